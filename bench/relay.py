"""The least that can be between the same processes and the same client: pipe in, gRPC out.

A bare grpc.aio server without pool, sessions or events of its own; it relays each delta's line.
What it takes is what the machine and gRPC take, so the rest is the service's.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import Any

# Read when grpc is imported; with fork support it can lose child processes.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

import grpc
from warmline.v1 import chat_service_pb2 as pb
from warmline.v1 import chat_service_pb2_grpc as pb_grpc
from warmline.v1 import events_pb2

from bench.children import end


class Relay(pb_grpc.ChatServiceServicer):
    """One process for each stream."""

    def __init__(self, binary: Path) -> None:
        self._binary = binary

    async def Ask(self, request: object, context: Any) -> None:  # type: ignore[override]  # noqa: N802  # the stub knows iterators only
        """Not here."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not measured")

    async def Watch(self, request: object, context: Any) -> None:  # type: ignore[override]  # noqa: N802  # the stub knows iterators only
        """Not here."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not measured")

    async def Chat(self, _: object, context: Any) -> None:  # type: ignore[override]  # noqa: N802  # the stub knows iterators only
        """Frames in, deltas out."""
        child = await asyncio.create_subprocess_exec(
            self._binary, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, start_new_session=True
        )
        try:
            await context.read()
            opened = events_pb2.Event(session_opened=events_pb2.SessionOpened())
            await context.write(pb.ChatResponse(events=[opened]))
            while (frame := await context.read()) is not grpc.aio.EOF:
                await _turn(child, frame.message.text, context)
        finally:
            await end(child, kill=True)


async def _turn(child: Process, text: str, context: Any) -> None:
    assert child.stdin is not None
    assert child.stdout is not None
    message = {"type": "user", "message": {"role": "user", "content": text}}
    child.stdin.write(json.dumps(message).encode() + b"\n")
    while line := await child.stdout.readline():
        if b'"text_delta"' in line:
            delta = events_pb2.TextDelta(text=json.loads(line)["event"]["delta"]["text"])
            event = events_pb2.Event(text_delta=delta)
            event.time.GetCurrentTime()
            await context.write(pb.ChatResponse(events=[event]))
        elif b'"type":"result"' in line:
            done = events_pb2.Event(turn_completed=events_pb2.TurnCompleted())
            await context.write(pb.ChatResponse(events=[done]))
            return


async def _serve(binary: Path) -> None:
    _use_pidfds()
    server = grpc.aio.server()
    pb_grpc.add_ChatServiceServicer_to_server(Relay(binary), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"relay on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


def _use_pidfds() -> None:
    """Watch children by pidfd: on Python 3.11 the default is a thread for each."""
    if sys.version_info < (3, 12):
        watcher = asyncio.PidfdChildWatcher()
        watcher.attach_loop(asyncio.get_running_loop())
        asyncio.set_child_watcher(watcher)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
