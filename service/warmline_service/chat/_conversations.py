"""All conversations of the service: loaded when wanted, dropped when idle, drained together."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog

from warmline_service.chat._answers import Allow, Deny
from warmline_service.chat._conversation import Conversation
from warmline_service.chat._copies import Copies
from warmline_service.chat._deferred import parked_turn
from warmline_service.chat._desk import approval_not_found
from warmline_service.chat._drain import Drain
from warmline_service.chat._naming import Names, Naming
from warmline_service.chat._observers import Observers
from warmline_service.chat._opening import Opening
from warmline_service.chat._ports import Runtime
from warmline_service.chat._stream import Stream
from warmline_service.errors import Reason, WarmlineError
from warmline_service.sessions import Session, UserMessage
from warmline_service.sessions.events import InterruptOutcome
from warmline_service.store import Claim, Claimed, Query, SessionRow, elsewhere

_log = structlog.get_logger(__name__)

_CLOSE_TIMEOUT = 10.0
# A session that was loaded for somebody is theirs so long, in seconds.
_UNUSED = 5.0
_PASSED_OVER = frozenset({Reason.SESSION_BUSY, Reason.SESSION_ELSEWHERE, Reason.SESSION_NOT_FOUND})

T = TypeVar("T")


class Conversations:
    """Many conversations by session; owns the tasks in which their turns run.

    `observers` are the streams that only read; `copies` makes forks, exports and imports.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._live: dict[str, Conversation] = {}
        self._loading: dict[tuple[str, str], asyncio.Task[Conversation]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._upkeep: set[asyncio.Task[None]] = set()
        self._drain = Drain()
        self._names = Names()
        self.observers = Observers(runtime, self._drain, self._live)
        self.copies = Copies(runtime, self._drain, self._live, self._wholly)
        runtime.journal.on_outage = self._on_outage
        runtime.journal.on_lost = self._on_lost
        runtime.sessions.on_created = self._on_created

    async def open(self, tenant: str, opening: Opening) -> tuple[Conversation, Stream]:
        """Attach a stream to a session: a new one, a fork, the latest, or that of the id.

        Raises DRAINING, SESSION_NOT_FOUND, SESSION_BUSY, SESSION_ELSEWHERE, MODEL_NOT_FOUND,
        QUOTA_EXCEEDED, IDEMPOTENCY_CONFLICT, STORAGE_UNAVAILABLE, before anything starts.
        """
        self._drain.check()
        while opening.continuation and (found := await self._find(tenant, opening.continuation)):
            try:
                return await self._attach(tenant, found, opening, continued=True)
            except WarmlineError as error:
                # Whoever asks by a name has the whole conversation, and can begin anew.
                if error.reason not in _PASSED_OVER:
                    raise
        session_id = opening.session_id or await self._choose(tenant, opening)
        return await self._attach(tenant, session_id, opening)

    async def _find(self, tenant: str, name: str) -> str:
        """The session of a name, which nobody finds by it any more; empty for none."""
        if here := self._names.take(tenant, name):
            return here
        while found := await self._runtime.store.take_named(tenant, name):
            live = self._live.get(found)
            if live is None or not live.naming.owes:
                return found
        return ""

    async def _attach(
        self, tenant: str, session_id: str, opening: Opening, *, continued: bool = False
    ) -> tuple[Conversation, Stream]:
        while True:
            conversation = await self._get(tenant, session_id)
            if self._live.get(session_id) is conversation:
                break  # Not given up again while we were waiting to run.
        try:
            stream = conversation.attach(
                opening.detail,
                after=opening.after,
                takeover=opening.takeover,
                interrupt_when_lost=opening.interrupt_when_lost,
                continued=continued,
            )
        except WarmlineError:
            self._on_idle(conversation)
            raise
        if opening.after is not None:
            self._spawn_upkeep(self._tell_expired(stream, opening.after, conversation.session.seq))
        return conversation, stream

    async def claimed(self, tenant: str, message: UserMessage) -> Claimed | None:
        """The turn that a message has already, by its key. Raises IDEMPOTENCY_CONFLICT."""
        claim = self._runtime.sessions.claim(tenant, message.key, message.content_hash())
        return await self._runtime.store.claimed(claim) if claim is not None else None

    async def session(self, tenant: str, session_id: str) -> SessionRow:
        """A tenant's session as it is stored. Raises SESSION_NOT_FOUND."""
        return await self._runtime.store.session(tenant, session_id)

    async def sessions(self, tenant: str, query: Query) -> list[SessionRow]:
        """Some of a tenant's sessions, as they are stored."""
        return await self._runtime.store.sessions(tenant, query)

    async def interrupt(self, row: SessionRow) -> tuple[InterruptOutcome, str]:
        """Stop a session's running turn from outside its stream."""
        conversation = await self._busy(row)
        if conversation is None:
            return InterruptOutcome.NOTHING_RUNNING, ""
        return await conversation.interrupt(None)

    async def decide(self, row: SessionRow, approval_id: str, decision: Allow | Deny) -> None:
        """Answer what a session asked, from outside its stream.

        Raises APPROVAL_NOT_FOUND, SESSION_ELSEWHERE, STORAGE_UNAVAILABLE.
        """
        conversation = await self._busy(row)
        if conversation is None:
            raise approval_not_found(approval_id)
        conversation.decide(approval_id, decision, None)
        if conversation.session.config.defers:
            # Whoever has answered will not ask again whether it was heard.
            await self._runtime.journal.flushed(conversation.session)

    async def _busy(self, row: SessionRow) -> Conversation | None:
        """The session where it is at work, or has a turn to go on with. Raises SESSION_ELSEWHERE."""
        conversation, store = self._live.get(row.id), self._runtime.store
        if conversation is not None:
            return conversation
        await store.check_here(row.id)
        if self._drain.error is None and await store.unfinished(row.id):
            return await self._get(row.tenant, row.id)
        return None

    def at_work(self, session_id: str) -> Conversation | None:
        """The session's conversation, where it is loaded."""
        return self._live.get(session_id)

    async def remove(self, row: SessionRow) -> None:
        """Stop whatever a session does and remove all that is stored of it.

        Goes on when the caller goes away. Raises SESSION_ELSEWHERE, STORAGE_UNAVAILABLE; then it may
        be tried again.
        """
        await self._wholly(self._remove(row))

    async def _remove(self, row: SessionRow) -> None:
        conversation = await self._get(row.tenant, row.id)
        gone = WarmlineError(Reason.SESSION_NOT_FOUND, "This session was deleted.")
        try:
            # Kept among the live ones meanwhile: who opens it now learns that it is gone.
            await conversation.lose(gone)
            # Also those that may only read, because another has taken the session over.
            self._runtime.journal.feed(row.id).fail(gone)
            await self._runtime.store.delete(row)
            await self._runtime.workspaces.forget(row)
            self._runtime.quota.freed(row.tenant)
        finally:
            self._drop(conversation)
        self.observers.fail(gone, row.id)
        self._runtime.audit.acted("session.deleted", tenant=row.tenant, session_id=row.id)

    async def recover(self) -> int:
        """End the turns that earlier services left without an end; gives how many sessions had some."""
        found = await self._runtime.store.orphaned()
        orphaned = [each for each in found if each[1] not in self._live]
        for tenant, session_id in orphaned:
            try:
                conversation = await self._get(tenant, session_id)
                await self._runtime.journal.flushed(conversation.session)
                self._on_idle(conversation)
            except Exception as error:  # noqa: BLE001  # one session must not keep the others waiting
                _log.warning("session not recovered", session=session_id, error=repr(error))
        return len(orphaned)

    def fence(self) -> None:
        """This service may no longer write: its sessions are anybody's now."""
        for conversation in list(self._live.values()):
            self._on_lost(conversation.session)

    async def drain(self, grace: float) -> None:
        """Refuse what is new, give running turns `grace` seconds, then end the rest by DRAINING."""
        error = WarmlineError(
            Reason.DRAINING, "The service is shutting down; connect again.", retry_after=2.0
        )
        if self._drain.error is None:
            self._drain.begin(error)
            for conversation in self._live.values():
                conversation.tell_drain(error)
            self.observers.tell_drain(error)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        if self._tasks:
            await self._cut(error, list(self._live.values()))
        await asyncio.gather(*(each.naming.settle() for each in self._live.values()))

    async def draining(self) -> WarmlineError:
        """Wait until the service drains; says so as an error."""
        return await self._drain.began()

    async def drained(self, stream: Stream) -> WarmlineError:
        """Wait until the service drains and a stream's session has nothing more to do; says why.

        The stream gets its end then.
        """
        error = await self.draining()
        live = self._live.get(stream.session_id)
        if live is not None:
            await live.quiet()
            stream.subscription.finish(live.session.seq)
        else:
            stream.subscription.finish(stream.subscription.cursor)
        return error

    async def aclose(self) -> None:
        """Cancel what still runs and wait for it."""
        tasks = {*self._tasks, *self._upkeep, *self._loading.values()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE_TIMEOUT)

    async def _choose(self, tenant: str, opening: Opening) -> str:
        """The session that is meant by something else than its id."""
        if opening.latest:
            rows = await self._runtime.store.sessions(tenant, Query(limit=1))
            if rows:
                return rows[0].id
        # A fork that is set up as its original is checked as that: when its turns begin.
        if not opening.forks_unchanged:
            await self._runtime.check(tenant, opening.config)
        sessions = self._runtime.sessions
        claim = sessions.claim(tenant, opening.key, opening.key_hash)
        if opening.fork_session:
            source = opening.fork_session, opening.fork_turn
            return await self.copies.forked(tenant, *source, claim, opening.config)
        if opening.history is not None:
            history = await asyncio.to_thread(opening.history)
            begin = self._runtime.portable.begin
            return await self._wholly(begin(tenant, opening.config, history, claim))
        if not opening.files:
            return await sessions.create(tenant, opening.config, claim)

        return await self._wholly(self._create_with_files(tenant, opening, claim))

    async def _create_with_files(self, tenant: str, opening: Opening, claim: Claim | None) -> str:
        runtime, named = self._runtime, opening.config.workspace
        found = await runtime.store.claimed(claim) if claim is not None and named else None
        if found is not None:
            return found.session_id  # What others have written there since stays.

        size = sum(len(file.data) for file in opening.files)

        async def keep(session_id: str) -> str:
            if not named:
                return await runtime.workspaces.keep_files(tenant, session_id, opening.files)
            await runtime.workspaces.place_files(tenant, named, opening.files)
            return ""

        return await runtime.sessions.create(
            tenant, opening.config, claim, keep_files=keep, size=size
        )

    async def _get(self, tenant: str, session_id: str) -> Conversation:
        """The session's conversation; loaded, once, where it is not."""
        conversation = self._live.get(session_id)
        if conversation is not None:
            if conversation.session.tenant != tenant:
                await self._runtime.store.session(tenant, session_id)  # Says that there is none.
            return conversation
        key = tenant, session_id
        loading = self._loading.get(key)
        if loading is None or loading.done():
            # A task of its own: whoever waits may be cancelled, and others wait with it.
            loading = asyncio.create_task(self._load(tenant, session_id))
            self._loading[key] = loading
            loading.add_done_callback(lambda task: self._loaded(key, task))
        try:
            return await asyncio.shield(loading)
        except asyncio.CancelledError:
            if loading.cancelled() and self._drain.error is not None:
                raise self._drain.error from None  # The load was ended by the stop, not by the caller.
            raise

    async def _load(self, tenant: str, session_id: str) -> Conversation:
        runtime = self._runtime
        session, unfinished = await runtime.sessions.load(tenant, session_id)
        runtime.journal.feed(session_id, session.seq).epoch = session.token
        naming = Naming(session, runtime.store, self._names)
        conversation = Conversation(
            session, runtime, self._spawn, self._on_idle, self._drain, naming
        )
        found = None
        if runtime.capabilities.goes_on:
            found = await parked_turn(runtime.journal, session, unfinished)
        self._live[session_id] = conversation
        if found is not None:
            row, asked = found
            unfinished.remove(row)
            conversation.take_up(row, asked)
        conversation.fail_turns(unfinished)
        return conversation

    def _loaded(self, key: tuple[str, str], task: asyncio.Task[Conversation]) -> None:
        if self._loading.get(key) is task:
            del self._loading[key]
        if not task.cancelled() and task.exception() is None:
            # Who asked for it may have gone meanwhile; otherwise it is in use by then.
            asyncio.get_running_loop().call_later(_UNUSED, self._on_idle, task.result())

    async def _tell_expired(self, stream: Stream, after: int, last: int) -> None:
        first = await self._runtime.store.first_seq(stream.session_id)
        stream.tell_expired(after, first, last)

    def _on_idle(self, conversation: Conversation) -> None:
        if self._drain.error is not None:
            return  # All leases are given up at the end, when every file has been saved.
        if conversation.idle and self._live.get(conversation.session.id) is conversation:
            self._spawn_upkeep(self._unload(conversation))

    async def _unload(self, conversation: Conversation) -> None:
        """Let go of a session that has nothing to do, once all of it is stored."""
        session = conversation.session
        await self._runtime.journal.flushed(session)
        # Whoever has it next must find the files that its last process wrote.
        await conversation.saved()
        if not conversation.idle or self._live.get(session.id) is not conversation:
            return
        self._drop(conversation)
        try:
            await self._runtime.sessions.release(session)
        except WarmlineError as error:
            # It expires by itself.
            _log.info("lease not released", session=session.id, reason=error.reason.value)

    def _drop(self, conversation: Conversation) -> None:
        session_id = conversation.session.id
        conversation.close()
        if self._live.get(session_id) is conversation:
            del self._live[session_id]
            self._runtime.journal.forget(session_id)

    def _on_outage(self, error: WarmlineError) -> None:
        _log.error("running turns are given up for want of a store")
        conversations = list(self._live.values())
        self._spawn_upkeep(self._cut(error, conversations, spare_parked=True))
        # Their ends are told when they are stored, to whoever comes for them then.
        for conversation in conversations:
            conversation.fail_stream(error)
        self.observers.fail(error)

    def _on_created(self, row: SessionRow) -> None:
        source = {"from": row.forked_from, "turn": row.forked_at} if row.forked_from else {}
        action = "session.forked" if source else "session.created"
        self._runtime.audit.acted(action, tenant=row.tenant, session_id=row.id, detail=source)

    def _on_lost(self, session: Session) -> None:
        conversation = self._live.get(session.id)
        if conversation is not None and conversation.session is session:
            self._drop(conversation)
            self._spawn_upkeep(conversation.lose(elsewhere()))

    async def _cut(
        self,
        error: WarmlineError,
        conversations: list[Conversation],
        *,
        spare_parked: bool = False,
    ) -> None:
        """End turns with an error; those that no process has, unless they are spared."""
        cutting = [each.cut(error, spare_parked=spare_parked) for each in conversations]
        cuts = [asyncio.create_task(each) for each in cutting]
        if cuts:
            await asyncio.wait(cuts, timeout=2 * self._runtime.cli.interrupt_timeout)
        for cut in cuts:
            cut.cancel()
        await asyncio.gather(*cuts, return_exceptions=True)

    async def _wholly(self, work: Coroutine[Any, Any, T]) -> T:
        """Run what puts and removes content: whoever goes away meanwhile leaves nothing half done."""
        return await asyncio.shield(self._spawn(work))

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _spawn_upkeep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._upkeep.add(task)
        task.add_done_callback(self._upkeep.discard)
