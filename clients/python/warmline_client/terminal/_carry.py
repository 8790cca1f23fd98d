"""The commands that carry sessions from one service to another: export and import."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from warmline_client._client import connect
from warmline_client.terminal._options import (
    DEFAULT_TARGET,
    ApiKey,
    CaFile,
    SessionId,
    Target,
    Tls,
    err,
)
from warmline_client.terminal._pick import picked
from warmline_client.terminal._run import fail, run

_STANDARD = Path("-")
# What a gigabyte needs over a slow line.
_TIMEOUT = 3600.0


def export(
    session: SessionId,
    target: Target = DEFAULT_TARGET,
    api_key: ApiKey = None,
    tls: Tls = False,
    ca: CaFile = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to; `-` is standard output. Not given: standard output, or session-ID.tar "
            "where that is a terminal.",
        ),
    ] = None,
    workspace: Annotated[
        bool, typer.Option("--workspace/--no-workspace", help="With the session's files.")
    ] = True,
) -> None:
    """Write a session into one file, with which `import` makes another of it, here or elsewhere.

    It is a tar archive: session.json, transcript.jsonl and, with files, workspace.tar.zst.
    """

    async def write() -> None:
        async with connect(target, api_key=api_key, tls=tls, ca_file=ca) as client:
            session_id = await picked(client, session)
            file = _target(output, session_id)
            await client.export_to(session_id, file, workspace=workspace, timeout=_TIMEOUT)
        if isinstance(file, Path) and output is None:
            err.print(str(file), markup=False)

    try:
        run(write)
    except OSError as error:
        fail(f"The export cannot be written: {error}")


def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="What `export` has written; `-` reads it from standard input."
        ),
    ],
    target: Target = DEFAULT_TARGET,
    api_key: ApiKey = None,
    tls: Tls = False,
    ca: CaFile = None,
) -> None:
    """Make a session of an export, and print its id. It has the conversation, the set-up and the files."""

    async def read() -> None:
        source: Path | BinaryIO = sys.stdin.buffer if file == _STANDARD else file
        async with connect(target, api_key=api_key, tls=tls, ca_file=ca) as client:
            made = await client.import_from(source, timeout=_TIMEOUT)
        print(made.id)  # noqa: T201  # the command's output

    try:
        run(read)
    except OSError as error:
        fail(f"The export cannot be read: {error}")


def _target(output: Path | None, session_id: str) -> Path | BinaryIO:
    if output == _STANDARD or (output is None and not sys.stdout.isatty()):
        return sys.stdout.buffer
    return output or Path(f"session-{session_id}.tar")
