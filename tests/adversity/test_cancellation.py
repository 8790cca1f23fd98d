"""Callers that go away at any moment leave nothing behind."""

import asyncio
import random
from pathlib import Path

import fake_cli
import pytest
from running import running_service, until
from warmline.v1 import chat_service_pb2 as pb
from warmline_client import Client, connect
from warmline_service.server import Service
from warmline_service.worker import ProcessState

STEPS = 40


async def first_event(client: Client) -> None:
    """Ask, and hang up after the first event."""
    await anext(client.ask("!deltas 3 5"))


def at_rest(service: Service) -> bool:
    """Nobody uses or waits for a process."""
    stats = service.pool.stats()
    used = stats.processes[ProcessState.BUSY] + stats.processes[ProcessState.RESERVED]
    return not used and not stats.waiting


async def test_a_call_may_be_cancelled_at_any_step(tmp_path: Path) -> None:
    """After as many cancelled Asks as there are steps in one, all processes are at rest and usable."""
    cli = {"path": fake_cli.install(tmp_path / "fake"), "interrupt_timeout": 1}
    async with running_service(cli=cli, pool={"max_processes": 3}) as service:
        async with connect(f"127.0.0.1:{service.port}") as client:
            for steps in range(STEPS):
                asking = asyncio.create_task(first_event(client))
                for _ in range(steps):
                    await asyncio.sleep(0)
                asking.cancel()
                await asyncio.wait({asking})
            await until(lambda: at_rest(service), 20)
            events = [event async for event in client.ask("fine")]
            assert events[-1].turn_completed.result == "echo: fine"
            stats = service.pool.stats()
            assert sum(stats.processes.values()) <= stats.max_processes


@pytest.mark.parametrize("seed", range(3))
async def test_streams_that_break_at_random_leak_nothing(tmp_path: Path, seed: int) -> None:
    """Ten callers at once send, interrupt, hang up and come back; each accepted message ends once."""
    choose = random.Random(seed)  # noqa: S311  # repeatable, not secret
    cli = {"path": fake_cli.install(tmp_path / "fake"), "interrupt_timeout": 1}
    texts = ("hi", "!deltas 5 5", "!die", "!hang", "!garbage", "!error 529")
    limits = {"stall_timeout": 1.0}

    async with running_service(cli=cli, limits=limits, pool={"max_processes": 4}) as service:
        async with connect(f"127.0.0.1:{service.port}") as client:

            async def caller() -> None:
                for _ in range(4):
                    async with client.chat(detail=pb.DETAIL_TEXT) as chat:
                        turn = await chat.send(choose.choice(texts))
                        what = choose.randrange(4)
                        if what == 0:
                            chat.cancel()
                            continue
                        if what == 1:
                            await chat.interrupt()
                        ends = [
                            event.WhichOneof("kind")
                            async for event in turn
                            if event.HasField("turn_completed") or event.HasField("turn_failed")
                        ]
                        assert len(ends) == 1

            async with asyncio.timeout(90), asyncio.TaskGroup() as group:
                for _ in range(10):
                    group.create_task(caller())
            await until(lambda: at_rest(service), 20)
