"""The store as others use it: every transaction that there is, each within a deadline."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TypeVar

import msgspec
import sqlalchemy as sa
from alembic.util import CommandError

from warmline_service.errors import Reason, WarmlineError
from warmline_service.store import _continuations, _leases, _sessions, _turns
from warmline_service.store._audit_store import AuditStore
from warmline_service.store._blob_key import blob_key, blob_prefix
from warmline_service.store._blobs import Blobs
from warmline_service.store._credential_store import CredentialStore
from warmline_service.store._database import Database, unavailable
from warmline_service.store._event_store import EventStore
from warmline_service.store._faults import StoreMisconfigured
from warmline_service.store._ledger import Ledger
from warmline_service.store._migrate import migrate
from warmline_service.store._roots import Roots
from warmline_service.store._rows import (
    Claim,
    Claimed,
    EventRow,
    PartRow,
    Query,
    SessionRow,
    Taken,
    TurnRow,
)
from warmline_service.store._take import take
from warmline_service.store._tenant_store import TenantStore

T = TypeVar("T")

_TIMEOUT = 15.0
# Half a second for 100,000 turns.
_SUM_TIMEOUT = 60.0
_MIGRATION_TIMEOUT = 300.0
# What one round of retention takes on.
_ROUND = 200


class Store:
    """Sessions, turns, events, transcripts, keys and leases in a database; content in blobs.

    `tenants` has those and their API keys, `credentials` what pays for them, `audit` who did what. `node_id`
    names this service among those that share the database. Everything raises STORAGE_UNAVAILABLE while
    the database or the blobs cannot be used. `open` first, `aclose` last.
    """

    def __init__(self, database: Database, blobs: Blobs, node_id: str) -> None:
        self.blobs = blobs
        self.tenants = TenantStore(database)
        self.audit = AuditStore(database)
        self.credentials = CredentialStore(database)
        self.node_id = node_id
        self.ledger = Ledger(database, node_id)
        self.roots = Roots(database)
        self._database = database
        self._leases: dict[str, int] = {}
        self._events = EventStore(database, node_id)
        self._works = True

    @property
    def works(self) -> bool:
        """Whether what was to be written last could be."""
        return self._works

    async def open(self) -> None:
        """Get the blobs ready and bring the database to this version.

        Raises StoreMisconfigured, also where the database is of a later version.
        """
        await self.blobs.start()
        try:
            await self._database.prepare(migrate, _MIGRATION_TIMEOUT)
        except CommandError as error:
            raise StoreMisconfigured(
                f"store: the database is of another version: {error}"
            ) from error
        await self._events.open()

    async def aclose(self) -> None:
        """Close what is open."""
        await self._events.aclose()
        await self._database.aclose()
        await self.blobs.aclose()

    # Leases.

    async def renew(self, ttl: float) -> None:
        """This node lives for `ttl` seconds more."""
        await self._write(lambda c: _leases.renew(c, self.node_id, ttl))

    async def be_alone(self) -> None:
        """No other node lives: this one has the database to itself."""
        await self._write(lambda c: _leases.be_alone(c, self.node_id))

    async def resign(self) -> None:
        """This node goes: its leases are free at once."""
        await self._write(lambda c: _leases.resign(c, self.node_id))

    async def take(self, tenant: str, session_id: str) -> Taken:
        """Become the writer of a tenant's session, under a new epoch.

        Raises SESSION_ELSEWHERE, and SESSION_NOT_FOUND, also for another tenant's.
        """
        logged = self._events.logged_position(session_id)
        taken = await self._write(lambda c: take(c, tenant, session_id, self.node_id))
        self._leases[session_id] = taken.token
        # What is in the log has no row yet, and may have got it meanwhile.
        last = max(taken.position, logged, self._events.logged_position(session_id))
        return msgspec.structs.replace(taken, position=last)

    async def release(self, session_id: str, epoch: int) -> None:
        """Give the session up."""
        if self.has_lease(session_id, epoch):
            del self._leases[session_id]
        await self._write(lambda c: _leases.release(c, session_id, self.node_id, epoch))

    def has_lease(self, session_id: str, epoch: int) -> bool:
        """Whether this is the lease that was acquired last, and not given up: to ask before `log`."""
        return self._leases.get(session_id) == epoch

    async def check_here(self, session_id: str) -> None:
        """Raise SESSION_ELSEWHERE where another living node has a session, and knows more of it."""
        if await self._read(lambda c: _leases.held_elsewhere(c, session_id, self.node_id)):
            raise _leases.elsewhere()

    async def orphaned(self) -> list[tuple[str, str]]:
        """Sessions (tenant, id) with unfinished turns that no other living node has."""
        return await self._read(lambda c: _leases.orphaned(c, self.node_id))

    # Events.

    async def append(
        self, rows: Sequence[EventRow], parts: Sequence[PartRow], tokens: Mapping[str, int]
    ) -> set[str]:
        """Store events and pieces of transcripts under the leases' epochs, all or nothing.

        Gives the sessions whose lease is lost. Bodies that are spilled must be in their blobs already.
        """
        return await self._events.append(rows, parts, tokens)

    @property
    def has_log(self) -> bool:
        """Whether `log` may be used at the moment."""
        return self._events.has_log

    async def log(self, rows: Sequence[EventRow]) -> None:
        """Store events beside the database, which gets them later; all or none.

        Not those that say how far a turn is, and only under leases by `has_lease`. In each session in the
        order in which `append` is used, too.
        """
        await self._events.log(rows)

    async def events(
        self, session_id: str, after: int, limit: int, *, turn_id: str = ""
    ) -> list[EventRow]:
        """Events after a seq, in order, of one turn if it is named; bodies may be spilled."""
        return await self._events.read(session_id, after, limit, turn_id=turn_id)

    async def position(self, session_id: str) -> tuple[int, int]:
        """Epoch and seq of the last stored event."""
        return await self._events.position(session_id)

    async def first_seq(self, session_id: str) -> int:
        """The seq of the first event that is kept; 0 where none is."""
        return await self._events.first_seq(session_id)

    async def expire(self, row: SessionRow, upto: int) -> None:
        """Forget a session's events up to the end of a turn, and their blobs."""
        for seq, turn_id in await self._events.expire(row.id, upto):
            await self.blobs.delete(blob_key(row.tenant, row.id, event_name(seq, turn_id)))

    # Turns.

    async def accept(
        self, turn: TurnRow, title: str, claim: Claim | None, token: int, *, named: bool = True
    ) -> Claimed:
        """Store a turn under a lease, unless its key has one already: gives whose it is.

        The names that a session is found by are used up by that; without `named` it has none.
        Raises IDEMPOTENCY_CONFLICT, SESSION_ELSEWHERE.
        """
        try:
            return await self._write(
                lambda c: _turns.accept(c, turn, title, claim, (self.node_id, token), named=named)
            )
        except (sa.exc.IntegrityError, sqlite3.IntegrityError) as error:
            # One that had been given up was stored only now, under the same number.
            raise unavailable(error) from error

    async def begin(self, turn_id: str) -> None:
        """A turn that waited begins: from now on it may have had an effect."""
        await self._write(lambda c: _turns.begin(c, turn_id))

    async def withdraw(self, session_id: str, turn_ids: Collection[str]) -> None:
        """Forget turns that `accept` may have stored before it failed."""
        await self._write(lambda c: _turns.withdraw(c, session_id, tuple(turn_ids)))

    async def turn(self, session_id: str, turn_id: str) -> TurnRow | None:
        """A session's turn."""
        return await self._read(lambda c: _turns.find(c, session_id, turn_id))

    async def kept(self, turn: TurnRow) -> bool:
        """Whether a turn's events can still be read, or are to come."""
        return turn.ended_at is None or bool(
            await self.events(turn.session_id, turn.last_seq - 1, 1, turn_id=turn.id)
        )

    async def last_ended(self, session_id: str) -> TurnRow | None:
        """The last turn that has ended."""
        return await self._read(lambda c: _turns.last_ended(c, session_id))

    async def unfinished(self, session_id: str) -> list[TurnRow]:
        """The turns that have no end yet."""
        return await self._read(lambda c: _turns.unfinished(c, session_id))

    async def turns(self, session_id: str, upto: int = 2**31 - 1) -> list[TurnRow]:
        """A session's turns up to a number, in their order."""
        return await self._read(lambda c: _turns.upto(c, session_id, upto))

    async def claimed(self, claim: Claim) -> Claimed | None:
        """Who has a key, if anybody has. Raises IDEMPOTENCY_CONFLICT."""
        return await self._read(lambda c: _turns.look_up(c, claim))

    async def forget_keys(self, before: float) -> int:
        """Remove the keys that expired before a moment; gives how many."""
        return await self._write(lambda c: _turns.forget_keys(c, before))

    # Sessions.

    async def create(
        self, row: SessionRow, claim: Claim | None, limit: int, parts: Sequence[PartRow] = ()
    ) -> str:
        """Store a new session with its transcript; gives its id, or that of the one that its key has.

        Raises QUOTA_EXCEEDED where the tenant has `limit` of them, IDEMPOTENCY_CONFLICT; what was put
        into blobs for it is removed then.
        """
        stored = [await self._spill_part(row.tenant, part) for part in parts]
        try:
            session_id = await self._write(lambda c: _sessions.create(c, row, claim, limit, stored))
        except WarmlineError as error:
            # Otherwise it may be there all the same.
            if error.reason is not Reason.STORAGE_UNAVAILABLE:
                await self.blobs.delete_prefix(blob_prefix(row.tenant, row.id))
            raise
        if session_id != row.id:
            await self.blobs.delete_prefix(blob_prefix(row.tenant, row.id))
        return session_id

    async def session(self, tenant: str, session_id: str) -> SessionRow:
        """A tenant's session. Raises SESSION_NOT_FOUND, also for another tenant's."""
        return await self._read(lambda c: _sessions.get(c, tenant, session_id))

    async def sessions(self, tenant: str, query: Query) -> list[SessionRow]:
        """A page of a tenant's sessions."""
        return await self._read(lambda c: _sessions.page(c, tenant, query))

    async def reconfigure(self, session_id: str, config: str, token: int) -> None:
        """A session is set up in this way from now on, under a lease. Raises SESSION_ELSEWHERE."""

        def work(connection: sa.Connection) -> None:
            _leases.check(connection, session_id, self.node_id, token)
            _sessions.update(connection, session_id, config=config)

        await self._write(work)

    async def name(self, session_id: str, tenant: str, names: Collection[str], token: int) -> None:
        """Let a session be found by names, under a lease. Raises SESSION_ELSEWHERE."""

        def work(connection: sa.Connection) -> None:
            _leases.check(connection, session_id, self.node_id, token)
            _continuations.put(connection, session_id, tenant, names)

        await self._write(work)

    async def take_named(self, tenant: str, name: str) -> str:
        """The tenant's session of a name; all of its names are used up by that. Empty for none."""
        return await self._write(lambda c: _continuations.take(c, tenant, name))

    async def place_workspace(self, session_id: str, slot_id: str) -> None:
        """From now on a session's files are in this slot."""
        await self._write(lambda c: _sessions.update(c, session_id, slot_id=slot_id))

    async def replace_workspace(self, session_id: str, slot_id: str, key: str) -> str | None:
        """A session's files are under a key now, and in no slot any more; gives the key before.

        None, and nothing is changed, where they are in another slot, or the session is gone.
        """
        return await self._write(lambda c: _sessions.replace_workspace(c, session_id, slot_id, key))

    async def in_slots(self, slot_ids: Sequence[str]) -> list[SessionRow]:
        """The sessions whose workspaces are in these slots."""
        return await self._read(lambda c: _sessions.in_slots(c, slot_ids))

    async def delete(self, row: SessionRow) -> None:
        """Remove a session with all that is stored of it. Blobs go first: what is left of a failure
        still has its row, by which it can be tried again."""
        await self.blobs.delete_prefix(blob_prefix(row.tenant, row.id))
        await self._write(lambda c: _sessions.delete(c, row.id))
        self._leases.pop(row.id, None)
        self._events.forget(row.id)
        # Files that were being saved meanwhile: whoever saves later finds no row, and takes them back.
        await self.blobs.delete_prefix(blob_prefix(row.tenant, row.id))

    async def unused(self, before: float) -> list[SessionRow]:
        """Some sessions whose last use was before a moment."""
        return await self._read(lambda c: _sessions.unused(c, before, _ROUND))

    async def expirable(self, ended_before: float) -> list[tuple[SessionRow, int]]:
        """Some sessions with events of turns that ended before a moment, and up to which seq."""
        return await self._read(lambda c: _sessions.expirable(c, ended_before, _ROUND))

    async def oversize(self, limit_bytes: int) -> list[tuple[str, int]]:
        """Tenants whose events take more than a bound, and by how much."""
        return await self._read(lambda c: _sessions.oversize(c, limit_bytes))

    async def stored_bytes(self, tenant: str) -> int:
        """Bytes that are kept of a tenant's sessions; of a turn that runs those of its transcript alone."""
        work = partial(_sessions.stored_bytes, tenant=tenant)
        return await self._database.read(work, _SUM_TIMEOUT)

    async def oldest_turns(self, tenant: str) -> list[tuple[SessionRow, TurnRow]]:
        """Some of a tenant's oldest turns whose events are kept."""
        return await self._read(lambda c: _sessions.oldest_turns(c, tenant, _ROUND))

    # Transcripts.

    async def parts(self, tenant: str, session_id: str) -> list[PartRow]:
        """The pieces of a session's transcript, in order and whole."""
        rows = await self._read(lambda c: _sessions.parts(c, session_id))
        return [
            msgspec.structs.replace(row, lines=await self.blobs.get(_part_key(tenant, row)))
            if row.spilled
            else row
            for row in rows
        ]

    async def _spill_part(self, tenant: str, part: PartRow) -> PartRow:
        if not part.spilled:
            return part
        await self.blobs.put(_part_key(tenant, part), part.lines)
        return msgspec.structs.replace(part, lines=b"")

    async def _write(self, work: Callable[[sa.Connection], T]) -> T:
        try:
            done = await self._database.write(work, _TIMEOUT)
        except WarmlineError as error:
            self._works = error.reason is not Reason.STORAGE_UNAVAILABLE
            raise
        self._works = True
        return done

    async def _read(self, work: Callable[[sa.Connection], T]) -> T:
        return await self._database.read(work, _TIMEOUT)


def event_name(seq: int, turn_id: str) -> str:
    """The name of the blob with an event's body.

    With the turn's id, so that a service which has lost the session overwrites nothing of another's.
    """
    return f"event-{seq}-{turn_id}"


def part_name(part: int, turn_id: str) -> str:
    """The name of the blob with a piece of a transcript; as above."""
    return f"transcript-{part}-{turn_id}"


def _part_key(tenant: str, row: PartRow) -> str:
    return blob_key(tenant, row.session_id, part_name(row.part, row.turn_id))
