"""`warmline serve --http`: the shim is a process of its own, which never outlives the service."""

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import fake_cli
import httpx
import psutil
import pytest
import trustme
from certificates import Authority
from processes import descendants, runs
from running import data_directory, until
from serving import WARMLINE, Served, served
from warmline_client import connect

FREE = "127.0.0.1:0"
SECRET = "sk-ant-api03-this-is-nobodys"


@pytest.fixture
async def data() -> AsyncIterator[Path]:
    """A data directory."""
    with data_directory() as directory:
        yield directory


@pytest.fixture
def cli(tmp_path: Path) -> Path:
    """The fake CLI."""
    return fake_cli.install(tmp_path / "fake")


def shim_of(service: Served) -> psutil.Process:
    """The shim's process."""
    children = descendants("cmdline", of=service.process.pid)
    (shim,) = [each for each, shown in children if "warmline_http" in (shown["cmdline"] or ())]
    return shim


def first_key(log: Path) -> str:
    """The key that a service made at its start, as it printed it."""
    (line,) = [each for each in log.read_text().splitlines() if each.strip().startswith("wl_")]
    return line.strip()


async def ended(*command: str, said: bytes = b"", **env: str) -> tuple[int, str]:
    """A command that does not start: its exit code, and what it said."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=DEVNULL, stderr=PIPE, env=os.environ | env
    )
    _, text = await asyncio.wait_for(process.communicate(said), 60)
    assert process.returncode is not None
    return process.returncode, text.decode()


async def until_ready(http: httpx.AsyncClient) -> None:
    """Wait until something answers, and well."""
    async with asyncio.timeout(90):
        while not await is_up(http):
            await asyncio.sleep(0.05)
    assert (await http.get("/readyz")).status_code == 200


async def is_up(http: httpx.AsyncClient) -> bool:
    """Whether anybody listens."""
    try:
        await http.get("/livez")
    except httpx.TransportError:
        return False
    return True


async def test_it_begins_and_ends_with_the_service(data: Path, cli: Path, tmp_path: Path) -> None:
    """It has the settings and no secret; killed, it is back at the same port; SIGTERM leaves neither."""
    environ = {"ANTHROPIC_API_KEY": SECRET, "WARMLINE_PROVIDER__API_KEY": SECRET}
    settings = {
        "http__listen": "127.0.0.1:1",
        "http__origins": '["https://app.example"]',
        "http__body_bytes": "2048",
        "limits__streams_per_connection": "100",
    }
    log = tmp_path / "log"
    async with (
        served(data, cli, settings=settings, environ=environ, http=FREE, log=log) as service,
        httpx.AsyncClient(base_url=service.http) as http,
    ):
        shim = shim_of(service)
        assert set(shim.environ()) <= {"PATH", "LANG", "LC_CTYPE"}
        assert SECRET not in " ".join(shim.cmdline())
        assert (data / "http").stat().st_mode & 0o777 == 0o700
        answer = await http.get("/health", headers={"origin": "https://app.example"})
        assert answer.json()["providers"] == [{"name": "loopback"}]
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert (await http.post("/livez", json={"x": "y" * 4096})).status_code == 413
        shim.kill()
        await until(lambda: not shim.is_running())
        await until_ready(http)
        second = shim_of(service)
        await service.drained()
        assert not second.is_running()
    assert "http shim ended" in log.read_text()


async def test_it_dies_with_a_service_that_is_killed(data: Path, cli: Path) -> None:
    """Whoever closes its input last is the kernel."""
    async with served(data, cli, http=FREE) as service:
        shim = shim_of(service)
        await service.killed()
        assert not runs(shim)


async def test_the_drain_comes_first(data: Path, cli: Path) -> None:
    """While running turns get their time, HTTP says that nothing new is taken."""
    async with (
        served(data, cli, settings={"drain_grace": "10"}, http=FREE) as service,
        connect(service.address) as client,
        httpx.AsyncClient(base_url=service.http) as http,
    ):
        async with client.chat() as chat:
            turn = await chat.send("!hang")
            async with asyncio.timeout(90):
                while (await anext(aiter(turn))).WhichOneof("kind") != "text_delta":
                    pass
            service.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                while (ready := await http.get("/readyz")).status_code == 200:
                    await asyncio.sleep(0.02)
        assert ready.json() == {"status": "unavailable"}
        assert await asyncio.wait_for(service.process.wait(), 90) == 0


async def test_tls_is_between_others(data: Path, cli: Path, tmp_path: Path) -> None:
    """A service that wants certificates serves HTTP all the same, to those who show a key; and so does one
    whose HTTP alone can be reached by others."""
    authority = Authority(tmp_path, trustme.CA())
    authority.ca.cert_pem.write_to_path(str(authority.file))
    settings = {f"tls__{name}": path for name, path in authority.tls().items()}
    log = tmp_path / "log"
    async with (
        served(data, cli, settings=settings, http="0.0.0.0:0", log=log) as service,
        httpx.AsyncClient(base_url=service.http) as http,
    ):
        assert (await http.get("/v1/sessions")).status_code == 401
        key = {"x-api-key": first_key(log)}
        assert (await http.get("/v1/sessions", headers=key)).status_code == 200
        await service.drained()


async def test_a_service_without_its_http_does_not_start(data: Path, cli: Path) -> None:
    """A port that is taken: it says which, and leaves nothing."""
    command = (WARMLINE, "serve", "--provider", "loopback", "--sandbox", "none", "--listen", FREE)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, said = await ended(
            *command, "--data-dir", str(data), "--http", address, WARMLINE_CLI__PATH=str(cli)
        )
    assert code == 1
    assert f"cannot listen on {address}" in said


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (b'{"speed": 1}\n', "http.speed"),
        (b'{"listen": 8080}\n', "http.listen"),
        (b'{"origins": "*"}\n', "http.origins"),
        (b"7\n", "no JSON object"),
        (b"{", "closed before"),
    ],
    ids=["unknown", "number", "list", "object", "cut"],
)
async def test_its_settings_are_its_own_to_check(told: bytes, why: str) -> None:
    """A bad one is named, and the status says that it is the settings."""
    command = (sys.executable, "-I", "-m", "warmline_http", "--follow")
    code, said = await ended(*command, said=told)
    assert code == 78
    assert why in said
    assert "Traceback" not in said
