"""The service as a process: it starts, drains, stops and dies without leaving anything."""

import asyncio
import os
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import fake_cli
import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from processes import descendants, runs
from running import events_of, kinds, until
from warmline.v1 import events_pb2 as pb
from warmline_client import WarmlineError, connect
from warmline_client.terminal import receipt

WARMLINE = str(Path(sys.executable).parent / "warmline")


@asynccontextmanager
async def serving(directory: Path, *, fake: bool = False) -> AsyncIterator[tuple[Process, str]]:
    """`warmline serve` in a process of its own, and its address."""
    env = os.environ | {"WARMLINE_DRAIN_GRACE": "3", "WARMLINE_POOL__MAX_SPARES": "1"}
    if fake:
        env["WARMLINE_CLI__PATH"] = str(fake_cli.install(directory / "fake"))
        env["WARMLINE_SANDBOX__LEVEL"] = "none"
    command = ("serve", "--listen", "127.0.0.1:0", "--provider", "loopback")
    # Below TMPDIR, which is short: a socket's path has at most 107 bytes.
    data = Path(os.environ["TMPDIR"]) / "d"
    process = await asyncio.create_subprocess_exec(
        WARMLINE, *command, "--data-dir", data, stdout=PIPE, env=env, start_new_session=True
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        yield process, line.decode().rpartition(" ")[2].strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        slots = list(data.glob("slots/*/"))
        (data / "slots" / ".lock").unlink()
        if process.returncode == 0:
            assert not slots
            (data / "slots").rmdir()  # Nothing is left in it.
            shutil.rmtree(data)


async def stopped(process: Process) -> int:
    """Wait for its end; its exit code."""
    return await asyncio.wait_for(process.wait(), 90)


@pytest.mark.real_cli
async def test_sigterm_drains(tmp_path: Path) -> None:
    """NOT_SERVING at once, the running turn finishes, the stream says so, exit 0, nothing is left."""
    async with serving(tmp_path) as (process, address), connect(address) as client:
        chatting = client.chat(reconnect_timeout=0)
        async with chatting as chat, grpc.aio.insecure_channel(address) as channel:
            request = health_pb2.HealthCheckRequest(service="warmline.v1.ChatService")
            watching = health_pb2_grpc.HealthStub(channel).Watch(request)
            assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
            turn = await chat.send("::pace 20ms\n::text 40")
            async for event in turn:
                if event.HasField("text_delta"):
                    break
            children = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGTERM)
            assert (await watching.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert (await turn.completed()).result
            await until(lambda: chat.broken)
            assert [event.WhichOneof("kind") for event in chat.notices] == ["server_draining"]
            with pytest.raises(WarmlineError, match="DRAINING"):
                await chat.send("more")
        assert await stopped(process) == 0
        assert not [child for child in children if child.is_running()]


async def test_a_turn_that_outlasts_the_grace_ends_by_name(tmp_path: Path) -> None:
    """What still runs when the grace is over is interrupted and fails as DRAINING."""
    async with serving(tmp_path, fake=True) as (process, address), connect(address) as client:
        async with client.chat() as chat:
            turn = await chat.send("!deltas 10000 20")
            await anext(aiter(turn))
            process.send_signal(signal.SIGTERM)
            events = [event async for event in turn]
        assert WarmlineError(events[-1].turn_failed.status).reason == "DRAINING"
        assert await stopped(process) == 0


async def test_a_second_signal_hurries(tmp_path: Path) -> None:
    """Ctrl-C twice does not wait for the grace."""
    async with serving(tmp_path, fake=True) as (process, address), connect(address) as client:
        async with client.chat() as chat:
            turn = await chat.send("!deltas 10000 20")
            await anext(aiter(turn))
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(2.5):
                await until(lambda: bool(chat.notices))
                process.send_signal(signal.SIGINT)
                await process.wait()
        assert process.returncode == 0


@pytest.mark.real_cli
async def test_after_sigkill_no_process_survives(tmp_path: Path) -> None:
    """The CLI processes die with the service, tools included; the next start clears the slots."""
    data = Path(os.environ["TMPDIR"]) / "d"
    async with serving(tmp_path) as (process, address), connect(address) as client:
        async with client.chat(reconnect_timeout=0) as chat:
            turn = await chat.send('::tool Bash {"command": "sleep 300"}')
            async for event in turn:
                if event.HasField("tool_call"):
                    break

            def sleeps() -> bool:
                started = descendants("name", of=process.pid)
                return any(shown["name"] == "sleep" for _, shown in started)

            await until(sleeps)
            children = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            await process.wait()
            await until(lambda: not any(runs(child) for child in children))
            with pytest.raises(WarmlineError):
                await turn.completed()
    assert list(data.glob("slots/*/"))
    async with serving(tmp_path) as (process, address), connect(address) as client:
        async with client.chat() as chat:
            assert kinds(await events_of(chat, "::say hi"))[-1] == "turn_completed"
        process.terminate()
        assert await stopped(process) == 0


async def test_two_services_do_not_share_a_directory(tmp_path: Path) -> None:
    """The second one says so and exits with 78."""
    async with serving(tmp_path, fake=True) as (first, _):
        data = Path(os.environ["TMPDIR"]) / "d"
        command = ("serve", "--listen", "127.0.0.1:0", "--provider", "loopback", "--data-dir", data)
        second = await asyncio.create_subprocess_exec(WARMLINE, *command, stderr=PIPE)
        _, said = await asyncio.wait_for(second.communicate(), 90)
        assert second.returncode == 78
        assert b"another service is using" in said
        first.terminate()
        assert await stopped(first) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--provider", "gpt"], b"provider.kind"),
        (["--listen", "nonsense"], b"listen"),
        (["--config", "/nonexistent.toml"], b"No such file"),
    ],
)
async def test_a_bad_setting_is_named_and_nothing_starts(arguments: list[str], says: bytes) -> None:
    """Exit code 78 and one message that names the setting."""
    process = await asyncio.create_subprocess_exec(WARMLINE, "serve", *arguments, stderr=PIPE)
    _, said = await asyncio.wait_for(process.communicate(), 90)
    assert process.returncode == 78
    assert says in said
    assert b"Traceback" not in said


def test_a_receipt_is_one_line() -> None:
    """What a turn took, in words."""
    done = pb.TurnCompleted()
    done.latency.start = pb.START_KIND_HOT
    done.latency.first_token.FromMilliseconds(25)
    assert receipt(done) == "hot · first_token 25 ms · 0 in, 0 out, $0.0000"
