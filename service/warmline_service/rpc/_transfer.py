"""Exports and imports on the wire: parts in their order, in pieces of bounded size."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from warmline.v1 import session_service_pb2 as pb

from warmline_service.errors import Reason, WarmlineError, field_invalid
from warmline_service.rpc._bounds import too_large
from warmline_service.rpc._deserialize import checked
from warmline_service.rpc._streaming import Context, read
from warmline_service.sessions import Export

_PIECE = 1024 * 1024
# An imported transcript is held in memory while it is checked.
_TRANSCRIPT_BYTES = 32 * 1024 * 1024
_WORKSPACE_BYTES = 1024 * 1024 * 1024
# Between two frames of an import.
_FRAME_TIMEOUT = 60.0
# A caller whose import is refused may go on sending so long.
_PATIENCE = 10.0
# What the disk may take for one frame.
_WRITE_TIMEOUT = 10.0
# All of an import: what a gigabyte needs over a slow line.
_TIMEOUT = 3600.0
_ORDER = ("session", "transcript", "workspace")


@dataclass
class Received:
    """What came of an import; the workspace is in the file that was given."""

    session: pb.Session = field(default_factory=pb.Session)
    transcript: bytes = b""
    workspace_bytes: int = 0

    @property
    def has_workspace(self) -> bool:
        """Whether there was any."""
        return self.workspace_bytes > 0


async def pieces(export: Export) -> AsyncIterator[pb.ExportSessionResponse]:
    """An export's transcript and workspace, piece by piece."""
    piece = bytearray()
    for line in export.lines:
        piece += line + b"\n"
        while len(piece) >= _PIECE:
            yield pb.ExportSessionResponse(transcript=bytes(piece[:_PIECE]))
            del piece[:_PIECE]
    if piece:
        yield pb.ExportSessionResponse(transcript=bytes(piece))
    if export.workspace is None:
        return
    at = 0
    while data := await asyncio.to_thread(_piece_of, export.workspace, at):
        yield pb.ExportSessionResponse(workspace=data)
        at += len(data)


async def receive(context: Context, path: Path) -> Received:
    """Take an import's frames; the workspace goes to `path`.

    Raises FRAME_OUT_OF_ORDER, MESSAGE_TOO_LARGE, FIELD_INVALID.
    """
    until = asyncio.get_running_loop().time() + _TIMEOUT
    try:
        return await _received(context, path, until)
    except TimeoutError:
        raise WarmlineError(
            Reason.FRAME_OUT_OF_ORDER,
            f"There was no frame for {_FRAME_TIMEOUT:g} s, or no end within {_TIMEOUT:g} s.",
        ) from None
    except WarmlineError:
        await _hear_out(context)
        raise


async def _received(context: Context, path: Path, until: float) -> Received:
    received, at = Received(), -1
    transcript = bytearray()
    while (frame := await _next(context, until)) is not grpc.aio.EOF:
        at = _placed(frame, at)
        match _ORDER[at]:
            case "session":
                received.session = frame.session
            case "transcript":
                transcript += frame.transcript
                _bounded("transcript", len(transcript), _TRANSCRIPT_BYTES)
            case _:
                received.workspace_bytes += len(frame.workspace)
                _bounded("workspace", received.workspace_bytes, _WORKSPACE_BYTES)
                await _to_its_end(_append, path, frame.workspace)
    if at < 0:
        raise WarmlineError(Reason.FRAME_OUT_OF_ORDER, "The first frame must hold `session`.")
    received.transcript = bytes(transcript)
    return received


async def _hear_out(context: Context) -> None:
    """Let a caller whose import is refused send the rest, for a while.

    Refused while it sends, it would be told by its own library that something internal failed.
    """
    until = asyncio.get_running_loop().time() + _PATIENCE
    with contextlib.suppress(TimeoutError):
        while await _next(context, until) is not grpc.aio.EOF:
            continue


async def _next(context: Context, until: float) -> Any:
    # Waited for by a task of its own: cancelling a read would break the stream.
    reading = asyncio.create_task(read(context))
    reading.add_done_callback(lambda task: task.cancelled() or task.exception())
    left = until - asyncio.get_running_loop().time()
    await asyncio.wait({reading}, timeout=max(0.0, min(_FRAME_TIMEOUT, left)))
    if not reading.done():
        raise TimeoutError
    return reading.result()


async def _to_its_end(work: Callable[..., object], *arguments: object) -> None:
    """Run in a thread, and wait for it also when cancelled: the file is about to be removed."""
    working = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        await asyncio.shield(working)
    finally:
        await asyncio.wait({working}, timeout=_WRITE_TIMEOUT)


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def _piece_of(path: Path, at: int) -> bytes:
    with path.open("rb") as file:
        file.seek(at)
        return file.read(_PIECE)


def _placed(frame: Any, at: int) -> int:
    """Where in the order a frame is."""
    checked(frame)
    part = frame.WhichOneof("part")
    if part is None:
        raise field_invalid("part", "is empty, or of a kind this version does not know")
    place = _ORDER.index(part)
    first = at < 0
    if first != (place == 0) or place < at:
        raise WarmlineError(
            Reason.FRAME_OUT_OF_ORDER,
            "The frames of an import are `session`, once, then `transcript`, then `workspace`.",
        )
    return place


def _bounded(part: str, size: int, limit: int) -> None:
    if size > limit:
        raise too_large(part, f"{part} has more than {limit} bytes.", limit)
