"""An audit log for tests: at work on a store, and read back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from warmline_service.audit import AuditLog, Chain, Verdict, head_file, verify
from warmline_service.config import AuditSettings
from warmline_service.store import AuditQuery, AuditRow, Store

KEY = bytes(range(32))
CHAIN = Chain(KEY)


@asynccontextmanager
async def log_of(store: Store, root: Path, **settings: Any) -> AsyncIterator[AuditLog]:
    """A log at work, which notes its end in a directory."""
    log = AuditLog(store.audit, CHAIN, AuditSettings(**settings), head_file(root))
    await log.start()
    try:
        yield log
    finally:
        await log.aclose()


async def fill(store: Store, root: Path, count: int) -> None:
    """Record so many events, by a log that is at work only for that."""
    async with log_of(store, root) as log:
        for number in range(count):
            log.record("test.done", tenant="acme", actor="key1", detail={"number": number})


async def rows_of(store: Store, **query: Any) -> list[AuditRow]:
    """All that is kept, the oldest first."""
    return await store.audit.select(AuditQuery(descending=False, limit=100_000, **query))


async def verdict_of(store: Store, root: Path) -> Verdict:
    """What verifying says."""
    noted = await asyncio.to_thread(head_file(root).read)
    return await verify(store.audit, CHAIN, noted)


def detail(row: AuditRow) -> dict[str, Any]:
    """What a row says beside its columns."""
    return msgspec.json.decode(row.detail, type=dict[str, Any])
