"""The slots' sockets: who is who, and what belongs to nobody."""

import asyncio
import socket
import stat
from pathlib import Path

import aiohttp
import pytest
from egress.client import MESSAGES, ModelClient, connected, request
from warmline_service.egress import Access, Egress, LoopbackModel, Tokens
from warmline_service.egress._account import MAX_REQUESTS
from warmline_service.errors import WarmlineError
from warmline_service.worker import Slot

ACCESS = Access("tenant", "session")
STRANGE = [
    ("GET", "/v1/messages"),
    ("POST", "/"),
    ("POST", "/v1/messages/"),
    ("POST", "/v1/messages/batches"),
    ("POST", "/v1/messages%2fcount_tokens"),
    ("POST", "/v1/./messages"),
    ("POST", "/v1/complete"),
    ("GET", "/v1/models"),
    ("GET", "/api/claude_code/policy_limits"),
    ("CONNECT", "/v1/messages"),
]


async def _other(egress: Egress, tmp_path: Path, name: str) -> Slot:
    slot = Slot(name, tmp_path / name)
    slot.root.mkdir(0o700)
    await egress.open_endpoint(slot)
    return slot


async def test_the_socket_is_its_owners_alone(egress: Egress, slot: Slot) -> None:
    """Nobody else may connect, and the environment says where it is."""
    endpoint = await egress.open_endpoint(slot)
    assert stat.S_IMODE(slot.sock.stat().st_mode) == 0o600
    assert dict(endpoint.env) == {
        "ANTHROPIC_UNIX_SOCKET": str(slot.sock),
        "ANTHROPIC_BASE_URL": "http://localhost",
        "ANTHROPIC_API_KEY": "placeholder",
    }


@pytest.mark.parametrize(("method", "path"), STRANGE)
async def test_only_the_messages_api_is_there(client: ModelClient, method: str, path: str) -> None:
    """Everything else is not found, in the API's shape."""
    reader, writer = await asyncio.open_unix_connection(client.session.connector._path)  # type: ignore[union-attr]
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 404")
    assert b"not_found_error" in answer


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_root_answers_a_bound_slot(client: ModelClient, method: str) -> None:
    """The CLI warms its connection with it."""
    async with client.session.request(method, "http://localhost/") as response:
        assert response.status == 200


@pytest.mark.parametrize("stream", [True, False])
async def test_an_unbound_slot_gets_a_warm_up_answer(
    egress: Egress, slot: Slot, model: LoopbackModel, stream: bool
) -> None:
    """No tokens, no provider, no meter; the text cannot steer it."""
    await egress.open_endpoint(slot)
    async with connected(slot.sock) as client:
        answer = await client.ask("::error 500", stream=stream)
    assert answer.text == "ok"
    assert not any(answer.json["usage"].values())
    assert not model.requests
    assert egress.meter(slot.id).requests == 0


async def test_a_warm_up_body_is_bounded_too(egress: Egress, slot: Slot) -> None:
    """A length over the limit is refused before anything is read."""
    await egress.open_endpoint(slot)
    reader, writer = await asyncio.open_unix_connection(slot.sock)
    writer.write(b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 67108865\r\n\r\n")
    answer = await asyncio.wait_for(reader.readuntil(b"request_too_large"), 60)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("path", ["/", "/v1/messages/count_tokens", "/v1/models"])
async def test_an_unbound_slot_gets_nothing_else(egress: Egress, slot: Slot, path: str) -> None:
    """What belongs to nobody has no use for it."""
    await egress.open_endpoint(slot)
    async with connected(slot.sock) as client:
        for method in ("GET", "POST"):
            async with client.session.request(method, f"http://localhost{path}") as response:
                assert response.status == 404


async def test_a_slot_is_known_by_its_socket(egress: Egress, slot: Slot, tmp_path: Path) -> None:
    """Nothing that a request says makes it another's."""
    await egress.open_endpoint(slot)
    other = await _other(egress, tmp_path, "s2")
    for name in ("s1", "s2"):
        egress.bind(name, Access(name, name))
    async with connected(other.sock) as client:
        client.session.headers["X-Claude-Code-Session-Id"] = "s1"
        await client.ask("::text 5")
    assert egress.meter("s1").snapshot() == {}
    assert egress.meter("s2").snapshot()["loopback"].output == 5


async def test_a_slot_is_bound_once(egress: Egress, slot: Slot) -> None:
    """A process serves one session and never another."""
    await egress.open_endpoint(slot)
    egress.bind(slot.id, ACCESS)
    with pytest.raises(RuntimeError, match="bound already"):
        egress.bind(slot.id, ACCESS)
    with pytest.raises(KeyError):
        egress.bind("unknown", ACCESS)


async def test_a_slot_has_one_endpoint(egress: Egress, slot: Slot) -> None:
    """A second one would share its account."""
    await egress.open_endpoint(slot)
    with pytest.raises(ValueError, match="already"):
        await egress.open_endpoint(slot)


async def test_a_port_of_another_network_fits_too(egress: Egress, slot: Slot) -> None:
    """The listening socket may be handed in; the environment then names the port."""
    endpoint = await egress.open_endpoint(slot, socket.create_server(("127.0.0.1", 0)))
    url = endpoint.env["ANTHROPIC_BASE_URL"]
    assert "ANTHROPIC_UNIX_SOCKET" not in endpoint.env
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/messages", json=request("hi")) as response,
    ):
        assert response.status == 200


async def test_a_path_too_long_is_named(egress: Egress, tmp_path: Path) -> None:
    """The operator is told what to change, and the slot can be opened elsewhere."""
    slot = Slot("long", tmp_path / ("x" * 100))
    with pytest.raises(WarmlineError, match="107 are possible: choose a shorter data_dir"):
        await egress.open_endpoint(slot)
    await _other(egress, tmp_path, "long")


async def test_closing_ends_requests_and_removes_the_socket(egress: Egress, slot: Slot) -> None:
    """At once, though one is under way; twice is once; what was used can still be asked."""
    endpoint = await egress.open_endpoint(slot)
    egress.bind(slot.id, ACCESS)
    async with (
        connected(slot.sock) as client,
        client.session.post(MESSAGES, json=request("::text 3\n::hang")) as response,
    ):
        await response.content.readany()
        await asyncio.wait_for(endpoint.aclose(), 5)
        with pytest.raises(aiohttp.ClientError):
            await response.content.read()
    await endpoint.aclose()
    assert not slot.sock.exists()
    assert isinstance(egress.meter(slot.id).snapshot()["loopback"], Tokens)


async def test_a_slot_may_be_wiped_first(egress: Egress, slot: Slot) -> None:
    """A socket that is gone already is no error."""
    endpoint = await egress.open_endpoint(slot)
    slot.sock.unlink()
    await endpoint.aclose()


async def test_a_slot_has_so_many_requests_at_once(client: ModelClient) -> None:
    """Code in a slot cannot take every connection to the provider."""
    hanging = [asyncio.create_task(client.ask("::hang")) for _ in range(MAX_REQUESTS)]
    statuses: set[int] = set()
    async with asyncio.timeout(60):
        while statuses != {429}:
            statuses = {(await client.ask("hi")).status}
    for task in hanging:
        task.cancel()
    await asyncio.wait(hanging, timeout=5)


@pytest.mark.parametrize("stored", [True, False])
async def test_a_request_waits_until_what_it_is_for_is_stored(
    egress: Egress, client: ModelClient, slot: Slot, *, stored: bool
) -> None:
    """Nothing goes out before; where it is not, nothing ever does, in the next turn neither."""
    settled: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    egress.hold(slot.id, settled)
    gone, asking = (asyncio.create_task(client.ask("::text 5")) for _ in range(2))
    async with asyncio.timeout(60):
        while egress._accounts[slot.id]._running < 2:
            await asyncio.sleep(0.01)
    gone.cancel()
    assert egress.meter(slot.id).requests == 0
    settled.set_result(stored)
    assert ((await asking).status, (await client.ask("::text 5")).status) == (
        (200, 200) if stored else (403, 403)
    )
    assert bool(egress.meter(slot.id).requests) == stored


async def test_a_failure_inside_is_an_error_in_the_apis_shape(
    client: ModelClient, model: LoopbackModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What went wrong goes to the log, not into the slot."""

    async def broken(*_: object) -> None:
        raise LookupError("secret")

    monkeypatch.setattr(model, "forward", broken)
    answer = await client.ask("hi")
    assert (answer.status, answer.error) == (500, "api_error")
    assert b"secret" not in answer.body
