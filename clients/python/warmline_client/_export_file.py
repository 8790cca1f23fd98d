"""An export as one file: an uncompressed tar archive of what SessionService sends.

Its members are `session.json` (the message Session as protobuf JSON), `transcript.jsonl` and
`workspace.tar.zst`, in this order; those that would be empty are left out. The PAX header
`WARMLINE.members` of the first names them all, so that one whose end is lost is not taken for a whole one.
"""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
import tempfile
from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

import grpc
from google.protobuf import json_format
from warmline.v1 import session_service_pb2 as pb

from warmline_client._errors import WarmlineError

SESSION, TRANSCRIPT, WORKSPACE = "session.json", "transcript.jsonl", "workspace.tar.zst"

_MEMBERS = "WARMLINE.members"
_PIECE = 1024 * 1024
_SESSION_BYTES = 16 * 1024 * 1024
# Whoever gives an import up waits so long for a read that is under way.
_READ_TIMEOUT = 1.0
# Unpacked by hand, its files are their owner's alone.
_MODE = 0o600


async def write_export(
    parts: AsyncIterable[pb.ExportSessionResponse], file: Path | BinaryIO
) -> pb.Session:
    """Write an export; gives its session. Raises OSError."""
    # Its members' sizes come first in an archive, so nothing can be written before the end.
    with tempfile.TemporaryFile() as transcript, tempfile.TemporaryFile() as workspace:
        session = pb.Session()
        async for part in parts:
            match part.WhichOneof("part"):
                case "session":
                    session = part.session
                case "transcript":
                    await asyncio.to_thread(transcript.write, part.transcript)
                case "workspace":
                    await asyncio.to_thread(workspace.write, part.workspace)
        members = {TRANSCRIPT: transcript, WORKSPACE: workspace}
        await asyncio.to_thread(_write, session, members, file)
        return session


async def read_export(file: Path | BinaryIO) -> AsyncGenerator[pb.ImportSessionRequest, None]:
    """The parts of an export in a file.

    Raises WarmlineError where it is none, OSError where it cannot be read.
    """
    requests = _requests(file)
    reading: asyncio.Future[pb.ImportSessionRequest | None] | None = None
    try:
        while True:
            reading = asyncio.ensure_future(asyncio.to_thread(next, requests, None))
            request = await asyncio.shield(reading)
            if request is None:
                return
            yield request
    except (tarfile.TarError, EOFError, ValueError, json_format.ParseError) as error:
        raise WarmlineError.of(
            grpc.StatusCode.INVALID_ARGUMENT, f"The file is no export of a session: {error}"
        ) from error
    finally:
        if reading is not None and not reading.done():
            await asyncio.wait({reading}, timeout=_READ_TIMEOUT)
        if reading is None or reading.done():
            await asyncio.to_thread(requests.close)


def _write(session: pb.Session, members: Mapping[str, IO[bytes]], file: Path | BinaryIO) -> None:
    head = io.BytesIO(json_format.MessageToJson(session).encode() + b"\n")
    filled = {name: each for name, each in members.items() if each.seek(0, os.SEEK_END)}
    with (
        _target(file) as out,
        tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, content in {SESSION: head, **filled}.items():
            info = tarfile.TarInfo(name)
            info.size = content.seek(0, os.SEEK_END)
            info.mode, info.mtime = _MODE, session.update_time.seconds
            if name == SESSION:
                info.pax_headers = {_MEMBERS: " ".join([SESSION, *filled])}
            content.seek(0)
            tar.addfile(info, content)


@contextmanager
def _target(file: Path | BinaryIO) -> Iterator[IO[bytes]]:
    """What to write to; a path has what was written when all of it was."""
    if not isinstance(file, Path):
        yield file
        file.flush()
        return
    if file.exists() and not file.is_file():
        with file.open("wb") as device:
            yield device
        return
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(descriptor, "wb") as out:
            yield out
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def _source(file: Path | BinaryIO) -> Iterator[IO[bytes]]:
    if not isinstance(file, Path):
        yield file
        return
    with file.open("rb") as opened:
        yield opened


def _requests(file: Path | BinaryIO) -> Generator[pb.ImportSessionRequest, None, None]:
    with _source(file) as source, tarfile.open(fileobj=source, mode="r|") as tar:
        expected: list[str] = []
        for info in tar:
            expected = info.pax_headers.get(_MEMBERS, "").split() or expected
            content = tar.extractfile(info)
            if content is None:
                raise ValueError(f"{info.name!r} in it is no file")
            name = info.name.removeprefix("./")
            yield from _parts(name, content, info.size)
            expected = [each for each in expected if each != name]
        if expected:
            raise ValueError(f"its end is missing: there is no {expected[0]}")


def _parts(name: str, content: IO[bytes], size: int) -> Iterator[pb.ImportSessionRequest]:
    match name:
        case "session.json":
            session = pb.Session()
            text = content.read(_SESSION_BYTES).decode()
            json_format.Parse(text, session, ignore_unknown_fields=True)
            yield pb.ImportSessionRequest(session=session)
        case "transcript.jsonl":
            for piece in _pieces(content, size):
                yield pb.ImportSessionRequest(transcript=piece)
        case "workspace.tar.zst":
            for piece in _pieces(content, size):
                yield pb.ImportSessionRequest(workspace=piece)
        case _:
            raise ValueError(f"{name!r} is not what an export holds")


def _pieces(content: IO[bytes], size: int) -> Iterator[bytes]:
    """What a member holds; the library takes one that is cut for a short one."""
    while piece := content.read(_PIECE):
        size -= len(piece)
        yield piece
    if size:
        raise ValueError(f"{size} bytes of it are missing")
