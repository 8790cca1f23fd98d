"""Stores for tests: the same tests run on SQLite and on PostgreSQL."""

import threading
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from warmline_service.config import LimitSettings, StoreSettings
from warmline_service.sessions import Journal, Session, SessionConfig
from warmline_service.sessions.events import Body, Event
from warmline_service.store import Blobs, SessionRow, SqliteDatabase, Store, open_database
from warmline_service.store._sqlite_writer import SqliteWriter

TENANT = "acme"


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest) -> str:
    """The setting `store.url` of each kind of database; it is empty when the test begins."""
    if request.param == "sqlite":
        return ""
    url: str = request.getfixturevalue("postgres_url")
    return url


@asynccontextmanager
async def opened(url: str, root: Path, node_id: str = "") -> AsyncIterator[Store]:
    """A store; with the same URL and root it is the same one again."""
    store = Store(
        open_database(url, root / "warmline.db"),
        Blobs("", root / "blobs"),
        node_id or str(uuid.uuid4()),
    )
    try:
        await store.open()
        await store.renew(60.0)
        yield store
    finally:
        await store.aclose()


@pytest.fixture
async def store(store_url: str, tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store of either kind."""
    async with opened(store_url, tmp_path) as made:
        yield made


def row(tenant: str = TENANT, **changes: object) -> SessionRow:
    """A session's row as it is when it begins."""
    now = time.time()
    made = SessionRow(str(uuid.uuid4()), tenant, "", "{}", now, now)
    return SessionRow(**{name: getattr(made, name) for name in made.__struct_fields__} | changes)


async def session(store: Store, tenant: str = TENANT) -> Session:
    """A session that the store's node may write."""
    made = row(tenant)
    await store.create(made, None, 1000)
    token = (await store.take(tenant, made.id)).token
    return Session(tenant, made.id, SessionConfig(), token, token, 0, 0, 0, "")


def event(of: Session, body: Body, turn_id: str = "") -> Event:
    """The session's next event."""
    return Event(of.id, turn_id, of.epoch, of.next_seq(), time.time(), body)


@asynccontextmanager
async def journal_of(store: Store, **settings: object) -> AsyncIterator[Journal]:
    """A journal at work."""
    journal = Journal(
        store,
        StoreSettings(**settings),
        LimitSettings(),
        exclusive=True,
    )
    await journal.start()
    try:
        yield journal
    finally:
        await journal.aclose()


def writer_of(store: Store) -> SqliteWriter:
    """What writes to the store's SQLite file."""
    database = store._database
    assert isinstance(database, SqliteDatabase)
    return database._writer


def hold(writer: SqliteWriter) -> threading.Event:
    """Keep it from all that comes, until this is set."""
    gate = threading.Event()
    writer.thread.submit(gate.wait, 20)
    return gate


def tell_sqlite(store: Store, pragma: str) -> None:
    """Run a PRAGMA on the connection that writes, between two transactions. Blocks."""
    writer = writer_of(store)

    def run() -> None:
        with writer.engine.connect() as connection:
            connection.execute(sa.text(f"PRAGMA {pragma}"))

    writer.thread.submit(run).result(20)


def tell_log(store: Store, *, usable: bool) -> None:
    """Let the log of events fail, or be used again. Blocks."""
    log = store._events._log
    assert log is not None
    folder = log._directory
    aside = folder.with_name("aside")
    log._thread.submit(log._close).result(20)
    if usable:
        folder.unlink()
        if aside.exists():
            aside.rename(folder)
    else:
        if folder.exists():
            folder.rename(aside)
        folder.touch()


def forbid_writing(store: Store, *, forbid: bool) -> None:
    """Let every write to SQLite fail, or let them pass again. Blocks."""
    tell_sqlite(store, f"query_only={'ON' if forbid else 'OFF'}")
