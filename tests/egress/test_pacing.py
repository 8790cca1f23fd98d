"""Paced answers keep time; the model serves alone."""

import asyncio

import aiohttp
import pytest
from egress.client import connected, read, request
from warmline_service.egress import (
    Access,
    Egress,
    LoopbackBehaviour,
    LoopbackModel,
    serve_loopback,
)
from warmline_service.egress.loopback._output import _paced
from warmline_service.worker import Slot


@pytest.mark.virtual_time
async def test_tokens_come_at_an_even_pace_without_drift() -> None:
    """The n-th comes n paces after the first, however slow the writing was; late ones catch up."""
    loop, times = asyncio.get_running_loop(), list[float]()

    async def send(batch: bytes) -> None:
        times.extend([loop.time()] * len(batch))
        if len(times) == 3:
            await asyncio.sleep(0.25)

    await _paced(iter([b"x"] * 8), 8, 0.1, send)
    assert times == pytest.approx([0, 0.1, 0.2, 0.45, 0.45, 0.5, 0.6, 0.7])


@pytest.mark.virtual_time
async def test_a_burst_lets_others_run() -> None:
    """Many tokens without a pace go out in batches, with a turn for others between them."""
    turns = list[int]()

    async def send(batch: bytes) -> None:
        turns.append(len(batch))
        asyncio.get_running_loop().call_soon(turns.append, 0)

    await _paced(iter([b"x"] * 150), 150, 0.0, send)
    assert turns == [64, 0, 64, 0, 22, 0]


async def test_the_behaviour_delays_the_first_token(
    slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every answer, also one that a script did not slow down."""
    waits = list[float]()
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr("warmline_service.egress.loopback._player.asyncio.sleep", note)
    egress = Egress(LoopbackModel(LoopbackBehaviour(first_token=0.5)))
    await egress.open_endpoint(slot)
    egress.bind(slot.id, Access("t", "s"))
    async with connected(slot.sock) as client:
        assert (await client.ask("::say hi")).text == "hi"
    await egress.aclose()
    assert waits[0] == 0.5


async def test_it_serves_alone_and_ends() -> None:
    """Over TCP, with any credential, and without a slot."""
    runner = await serve_loopback("127.0.0.1", 0)
    url = "http://{}:{}".format(*runner.addresses[0][:2])
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{url}/v1/messages", json=request("hi")) as response:
            assert "You said: hi" in (await read(response)).text
        async with session.get(f"{url}/v1/models") as response:
            assert response.status == 404
    await runner.cleanup()
