"""What a hostile client does on the wire harms nobody else; against `warmline serve`, by raw HTTP/2."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import fake_cli
import h2_attacks
import psutil
import pytest
from h2_attacks import Address, Outcome
from running import data_directory
from serving import Served, served
from warmline_client import connect

# Of one attack's memory, what may stay; the service itself has a hundred.
_GROWTH = 96 * 1024 * 1024
_ASKS = 10
_OPEN_TIMEOUT = 2.0


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Served]:
    """A service in a process of its own, whose calls have to say soon what they are for."""
    settings = {"limits__open_timeout": _OPEN_TIMEOUT, "limits__connections": 200}
    with data_directory() as data:
        binary = fake_cli.install(tmp_path / "fake")
        async with served(data, binary, 0, settings) as running:
            yield running


def address_of(service: Served) -> Address:
    """Where it listens."""
    return "127.0.0.1", service.port


async def others_are_served(service: Served) -> None:
    """Another caller's turns come to their good end."""
    async with connect(service.address) as client, asyncio.timeout(60):
        for _ in range(_ASKS):
            events = [event async for event in client.ask("quick")]
            assert events[-1].turn_completed.result == "echo: quick"


async def under(service: Served, attack: Callable[[Address], Outcome]) -> Outcome:
    """Attack while others are served, and see that it costs nothing that stays."""
    process = psutil.Process(service.process.pid)
    before = process.memory_info().rss
    attacking = asyncio.create_task(asyncio.to_thread(attack, address_of(service)))
    await others_are_served(service)
    outcome = await asyncio.wait_for(attacking, 60)
    await others_are_served(service)
    assert process.memory_info().rss < before + _GROWTH
    return outcome


async def test_calls_that_are_reset_at_once(service: Served) -> None:
    """Thousands of calls are begun and given up."""
    outcome = await under(service, lambda address: h2_attacks.rapid_reset(address, 3000))
    assert outcome.closed or outcome.sent == 3000


async def test_pings_without_end(service: Served) -> None:
    """The connection is closed, and no other one."""
    outcome = await under(service, lambda address: h2_attacks.ping_flood(address, 20_000))
    assert outcome.closed


async def test_settings_without_end(service: Served) -> None:
    """They are answered, or the connection is closed."""
    outcome = await under(service, lambda address: h2_attacks.settings_flood(address, 20_000))
    assert outcome.closed or outcome.sent == 20_000


async def test_headers_without_end(service: Served) -> None:
    """Nothing of them is kept."""
    await under(service, lambda address: h2_attacks.continuation_flood(address, 32))


async def test_calls_that_never_say_what_they_are_for(service: Served) -> None:
    """Each is ended when its time is over."""
    outcome = await under(
        service, lambda address: h2_attacks.silent_calls(address, 300, 5 * _OPEN_TIMEOUT)
    )
    assert outcome.closed


async def test_a_message_of_two_gigabytes(service: Served) -> None:
    """Refused by what it says of itself; nothing is allocated."""
    assert (await under(service, h2_attacks.length_bomb)).closed


@pytest.mark.parametrize(
    "text", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00" + b"x" * 512]
)
async def test_connections_that_are_no_http2(service: Served, text: bytes) -> None:
    """Half of those that may be leave room for others; with all of them taken, new ones are closed, and
    when they go there is room again."""

    def holding(count: int) -> Outcome:
        with h2_attacks.half_open(address_of(service), count, text) as taken:
            asyncio.run(others_are_served(service))
            return Outcome(len(taken))

    assert (await asyncio.to_thread(holding, 100)).sent >= 99
    with h2_attacks.half_open(address_of(service), 400, text):
        pass
    await others_are_served(service)
