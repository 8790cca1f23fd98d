"""The audit log as its commands read it: from the database of the settings, while a service may run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from warmline_service.audit import KEY_PURPOSE, Chain, Verdict, head_file, verify
from warmline_service.config import Settings
from warmline_service.errors import WarmlineError
from warmline_service.options import EX_CONFIG, err, fail
from warmline_service.store import AuditQuery, AuditRow, AuditStore, Database, Roots, open_database
from warmline_service.vault import SealBroken, Vault, read_master

T = TypeVar("T")

_TOLD_EVERY = 100_000
_SHOWN = 120


def tell_verdict(settings: Settings) -> None:
    """Say whether each event is as it was written; ends the command with 1 where one is not."""
    verdict = _run(settings, lambda store, roots, root: _verified(store, roots, settings, root))
    if verdict.broken is not None:
        fail(f"the audit log is broken at seq {verdict.broken.seq}: {verdict.broken.why}", 1)
    gone = f" after {verdict.base} that were removed" if verdict.base else ""
    err.print(
        f"warmline: the audit log is whole: {verdict.rows} events{gone}, up to seq {verdict.last}"
    )


def show_latest(settings: Settings, query: AuditQuery) -> None:
    """Print the events that are asked for, one a line."""
    for row in _run(settings, lambda store, _, __: store.select(query)):
        moment = datetime.fromtimestamp(row.time, UTC).isoformat(timespec="seconds")
        about = (row.tenant or "-", row.actor, row.action, row.outcome, row.session_id or "-")
        print(_plain(f"{row.seq} {moment} {' '.join(about)} {row.detail[:_SHOWN]}"))  # noqa: T201  # the command's output


def export(settings: Settings, query: AuditQuery) -> None:
    """Print every event that is asked for, page by page, as JSON lines, and say how many there were."""
    count = _run(settings, lambda store, _, __: _exported(store, query))
    err.print(f"warmline: {count} events")


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
