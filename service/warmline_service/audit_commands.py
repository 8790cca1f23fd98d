"""`warmline audit`: the audit log looked at, verified and taken elsewhere, with the service or without it.

They read the database of the settings, so that they need no key and no running service, and are
believed where the service is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from warmline_service.audit import KEY_PURPOSE, Chain, Verdict, head_file, verify
from warmline_service.config import Settings
from warmline_service.errors import WarmlineError
from warmline_service.options import EX_CONFIG, ConfigFile, DataDir, err, fail, settings_of
from warmline_service.store import AuditQuery, AuditRow, AuditStore, Database, Roots, open_database
from warmline_service.vault import SealBroken, Vault, read_master

app = typer.Typer(
    help="Who did what: the audit log, read from the database of the settings.",
    no_args_is_help=True,
)

T = TypeVar("T")

_PAGE = 1000
_TOLD_EVERY = 100_000
_SHOWN = 120

Tenant = Annotated[str, typer.Option(help="Only this tenant's.")]
Action = Annotated[str, typer.Option(help="Only what begins so: `tool.`, `session.deleted`.")]
Since = Annotated[
    str, typer.Option(help="Only from this moment on: 2026-01-31 or 2026-01-31T12:00:00Z.")
]
Until = Annotated[str, typer.Option(help="Only before this moment.")]


@app.command("verify")
def verify_log(config: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Read every event from the first to the last and say whether each is as it was written.

    Exits with 1 where one is not, and names it. The service may run meanwhile.
    """
    settings = settings_of(config, data_dir=data_dir)
    verdict = _run(settings, lambda store, roots, root: _verified(store, roots, settings, root))
    if verdict.broken is not None:
        fail(f"the audit log is broken at seq {verdict.broken.seq}: {verdict.broken.why}", 1)
    gone = f" after {verdict.base} that were removed" if verdict.base else ""
    err.print(
        f"warmline: the audit log is whole: {verdict.rows} events{gone}, up to seq {verdict.last}"
    )


async def _verified(store: AuditStore, roots: Roots, settings: Settings, root: Path) -> Verdict:
    wrapped = await roots.root()
    if wrapped is None:
        fail("the database has no vault: no service was ever started with it", EX_CONFIG)
    master = await asyncio.to_thread(read_master, settings.vault, root, os.environ, make=False)
    try:
        vault = Vault(master.unwrap(wrapped))
    except SealBroken as error:
        fail(f"vault: {error}; settings [vault]", EX_CONFIG)
    noted = await asyncio.to_thread(head_file(root).read)
    told = 0

    def progress(seq: int) -> None:
        nonlocal told
        if seq - told >= _TOLD_EVERY:
            told = seq
            err.print(f"warmline: whole up to seq {seq}")

    return await verify(store, Chain(vault.derive(KEY_PURPOSE)), noted, progress)


@app.command("list")
def list_events(
    config: ConfigFile = None,
    data_dir: DataDir = None,
    tenant: Tenant = "",
    action: Action = "",
    session: Annotated[str, typer.Option(help="Only what is about this session.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=_PAGE, help="At most so many.")] = 20,
) -> None:
    """The latest events, one a line: number, moment, tenant, actor, action, outcome, and the rest."""
    query = AuditQuery(tenant=tenant, action=action, session_id=session, limit=limit)
    settings = settings_of(config, data_dir=data_dir)
    for row in _run(settings, lambda store, _, __: store.select(query)):
        moment = datetime.fromtimestamp(row.time, UTC).isoformat(timespec="seconds")
        about = (row.tenant or "-", row.actor, row.action, row.outcome, row.session_id or "-")
        print(_plain(f"{row.seq} {moment} {' '.join(about)} {row.detail[:_SHOWN]}"))  # noqa: T201  # the command's output


@app.command("export")
def export_events(
    config: ConfigFile = None,
    data_dir: DataDir = None,
    since: Since = "",
    until: Until = "",
    tenant: Tenant = "",
    action: Action = "",
) -> None:
    """Write events to standard output as JSON lines, the oldest first, with their hashes."""
    query = AuditQuery(
        descending=False,
        limit=_PAGE,
        tenant=tenant,
        action=action,
        since=_moment(since, "--since"),
        before=_moment(until, "--until"),
    )
    settings = settings_of(config, data_dir=data_dir)
    count = _run(settings, lambda store, _, __: _exported(store, query))
    err.print(f"warmline: {count} events")


async def _exported(store: AuditStore, query: AuditQuery) -> int:
    count, rows = 0, await store.select(query)
    while rows:
        for row in rows:
            print(_line(row))  # noqa: T201  # the command's output
        count += len(rows)
        rows = await store.select(msgspec.structs.replace(query, after=rows[-1].seq))
    return count


def _plain(text: str) -> str:
    """A line that does nothing to a terminal, whatever somebody made of the table."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _line(row: AuditRow) -> str:
    """A row as a JSON object, in ASCII; its detail is one too, unless it was changed."""
    fields = msgspec.structs.asdict(row)
    with contextlib.suppress(msgspec.MsgspecError):
        fields["detail"] = msgspec.json.decode(row.detail)
    return json.dumps(fields, separators=(",", ":"))


def _moment(text: str, option: str) -> float | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        fail(f"{option} {text!r} is no moment, such as 2026-01-31T12:00:00Z", 2)
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()


def _run(
    settings: Settings, work: Callable[[AuditStore, Roots, Path], Coroutine[Any, Any, T]]
) -> T:
    """Do something with the log of these settings; ends the command where it cannot be read."""

    async def run() -> T:
        root = settings.data_dir.expanduser().absolute()
        async with _opened(settings, root) as database:
            return await work(AuditStore(database), Roots(database), root)

    try:
        return asyncio.run(run())
    except WarmlineError as error:
        fail(error.message, 1)
    except (OSError, ValueError) as error:
        fail(str(error), EX_CONFIG)


@asynccontextmanager
async def _opened(settings: Settings, root: Path) -> AsyncIterator[Database]:
    url = settings.store.url.get_secret_value() if settings.store.url else ""
    path = root / "warmline.db"
    if not url and not path.is_file():
        # To open it would make one.
        raise ValueError(f"{path}: there is no database; name the service's settings or --data-dir")
    database = open_database(url, path)
    try:
        yield database
    finally:
        await database.aclose()
