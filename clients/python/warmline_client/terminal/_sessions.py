"""The commands `warmline sessions ...`: what there is, what was said, copies, and removal."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer
from google.protobuf import json_format
from rich.table import Table
from warmline.v1 import session_service_pb2 as pb

from warmline_client._client import Client, connect
from warmline_client._errors import WarmlineError
from warmline_client.terminal._carry import export, import_
from warmline_client.terminal._options import (
    DEFAULT_TARGET,
    PATIENCE,
    ApiKey,
    CaFile,
    SessionId,
    Target,
    Tls,
    err,
    tables,
)
from warmline_client.terminal._pick import all_picked, picked
from warmline_client.terminal._render import cell, plain, word
from warmline_client.terminal._run import complain, run
from warmline_client.terminal._show import show
from warmline_client.terminal._tail import tail

app = typer.Typer(
    no_args_is_help=True,
    help="The sessions that are kept. Wherever an ID is wanted, its beginning will do, "
    "as long as no other session's begins alike.",
)


def list_(
    target: Target = DEFAULT_TARGET,
    api_key: ApiKey = None,
    tls: Tls = False,
    ca: CaFile = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, help="At most so many; 0: all of them.")
    ] = 20,
    order: Annotated[
        str,
        typer.Option(
            help="`update_time` or `create_time`, the oldest first; with ` desc` the latest."
        ),
    ] = "update_time desc",
    contains: Annotated[
        str, typer.Option(metavar="TEXT", help="Only those with this text in their title.")
    ] = "",
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line, for scripts.")
    ] = False,
) -> None:
    """List your sessions, the one that was used last first."""

    async def show_list() -> None:
        async with connect(target, api_key=api_key, tls=tls, ca_file=ca) as client:
            found = await _some(client, limit, order, contains)
        if json:
            for session in found:
                print(_json(session))  # noqa: T201  # the command's output
        else:
            tables.print(_table(found))

    run(show_list)


def fork(
    session: SessionId,
    target: Target = DEFAULT_TARGET,
    api_key: ApiKey = None,
    tls: Tls = False,
    ca: CaFile = None,
    turn: Annotated[
        str,
        typer.Option(
            metavar="ID",
            help="The last turn to keep, as `show` names it. Not given: the last that has ended.",
        ),
    ] = "",
) -> None:
    """Begin a new session with another's conversation, and print its id. The other stays as it is."""

    async def copy() -> None:
        async with connect(target, api_key=api_key, tls=tls, ca_file=ca) as client:
            made = await client.fork(await picked(client, session), turn, retry_timeout=PATIENCE)
        print(made.id)  # noqa: T201  # the command's output

    run(copy)


def rm(
    sessions: Annotated[
        list[str], typer.Argument(metavar="ID...", help="Sessions: ids, or beginnings of them.")
    ],
    target: Target = DEFAULT_TARGET,
    api_key: ApiKey = None,
    tls: Tls = False,
    ca: CaFile = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove sessions for good, with all that was said and their files. Running turns are stopped.

    On a terminal it asks first. The exit code is 1 where one of them is still there.
    """

    async def remove() -> None:
        async with connect(target, api_key=api_key, tls=tls, ca_file=ca) as client:
            ids = list(dict.fromkeys(await all_picked(client, sessions)))
            if not yes and sys.stdin.isatty() and not await _agreed(client, ids):
                raise typer.Exit(1)
            gone = [await _removed(client, each) for each in ids]
        if not all(gone):
            raise typer.Exit(1)

    run(remove)


app.command("list")(list_)
app.command()(show)
app.command()(tail)
app.command()(fork)
app.command()(export)
app.command("import")(import_)
app.command()(rm)


async def _some(client: Client, limit: int, order: str, contains: str) -> list[pb.Session]:
    found: list[pb.Session] = []
    async for session in client.sessions(
        order_by=order, contains=contains, page_size=limit, retry_timeout=PATIENCE
    ):
        found.append(session)
        if len(found) == limit:
            break
    return found


async def _agreed(client: Client, ids: list[str]) -> bool:
    for session_id in ids:
        session = await client.session(session_id, retry_timeout=PATIENCE)
        err.print(f"{session.id}  {plain(session.title, 60)}", markup=False)
    what = "this session" if len(ids) == 1 else f"these {len(ids)} sessions"
    return typer.confirm(f"Remove {what} for good?", err=True)


async def _removed(client: Client, session_id: str) -> bool:
    try:
        await client.delete(session_id, retry_timeout=PATIENCE)
    except WarmlineError as error:
        err.print(session_id, markup=False)
        complain(error)
        return False
    return True


def _table(sessions: list[pb.Session]) -> Table:
    table = Table(box=None)
    for name in ("id", "state"):
        table.add_column(name, no_wrap=True)
    table.add_column("title", min_width=10)
    table.add_column("turns", justify="right", no_wrap=True)
    table.add_column("updated", no_wrap=True)
    now = time.time()
    for each in sessions:
        state = word(pb.SessionState, each.state, "SESSION_STATE_")
        updated = ago(now - each.update_time.ToNanoseconds() / 1e9)
        table.add_row(each.id, state, cell(each.title, 80), str(each.turn_count), updated)
    return table


def ago(seconds: float) -> str:
    """A time that has passed, in its largest unit."""
    if seconds < 1:
        return "now"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _json(session: pb.Session) -> str:
    return json_format.MessageToJson(
        session, indent=None, always_print_fields_with_no_presence=True, ensure_ascii=False
    )
