"""All conversations of the service: loaded when wanted, dropped when idle, drained together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import structlog

from warmline_service.chat._conversation import Conversation
from warmline_service.chat._ports import Runtime
from warmline_service.chat._stream import Stream, opened_position, wanted
from warmline_service.errors import Reason, WarmlineError, field_invalid
from warmline_service.sessions import Export, Session, SessionConfig, UserMessage
from warmline_service.sessions.events import Detail, InterruptOutcome, TurnAttached
from warmline_service.store import Claim, Claimed, Query, SessionRow, elsewhere

_log = structlog.get_logger(__name__)

_CLOSE_TIMEOUT = 10.0
# A session that was loaded for somebody is theirs so long, in seconds.
_UNUSED = 5.0

T = TypeVar("T")


@dataclass(frozen=True)
class Opening:
    """What a caller wants of a session, checked. Without an id, `latest` and `fork` it is a new one.

    `after` is the seq after which events are told; `key` names a new session, `key_hash` what is asked
    for under it.
    """

    session_id: str = ""
    config: SessionConfig = field(default_factory=SessionConfig)
    detail: Detail = Detail.BLOCKS
    after: int | None = None
    fork_session: str = ""
    fork_turn: str = ""
    latest: bool = False
    interrupt_when_lost: bool = False
    takeover: bool = False
    key: str = ""
    key_hash: str = ""


class Conversations:
    """Many conversations by session; owns the tasks in which their turns run."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._live: dict[str, Conversation] = {}
        self._loading: dict[tuple[str, str], asyncio.Task[Conversation]] = {}
        self._watchers: dict[Stream, None] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._upkeep: set[asyncio.Task[None]] = set()
        self._draining: WarmlineError | None = None
        self._drain_began = asyncio.Event()
        runtime.journal.on_outage = self._on_outage
        runtime.journal.on_lost = self._on_lost

    async def open(self, tenant: str, opening: Opening) -> tuple[Conversation, Stream]:
        """Attach a stream to a session: a new one, a fork, the latest, or that of the id.

        Raises DRAINING, SESSION_NOT_FOUND, SESSION_BUSY, SESSION_ELSEWHERE, MODEL_NOT_FOUND,
        QUOTA_EXCEEDED, IDEMPOTENCY_CONFLICT, STORAGE_UNAVAILABLE, before anything starts.
        """
        if self._draining is not None:
            raise self._draining
        session_id = opening.session_id or await self._choose(tenant, opening)
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

    async def follow(
        self, tenant: str, claimed: Claimed, key: str, detail: Detail, after: int = 0
    ) -> Stream:
        """A stream of the events of a key's turn, first to last, whoever has the session."""
        store = self._runtime.store
        row = await store.session(tenant, claimed.session_id)
        turn = await store.turn(row.id, claimed.turn_id)
        if turn is None:
            raise WarmlineError(Reason.TURN_NOT_FOUND, "The turn of this key is gone.")
        kept = await store.kept(turn)
        stream = self._observe(row, max(turn.first_seq - 1, after), detail, turn_id=turn.id)
        stream.subscription.finish_with(turn.id)
        stream.tell(TurnAttached(key), turn.id)
        if not kept:
            stream.tell_gone(turn)
        return stream

    async def watch(
        self,
        tenant: str,
        session_id: str,
        after: int,
        detail: Detail,
        kinds: Collection[str],
        *,
        replay_only: bool,
    ) -> Stream:
        """A stream that observes a session. Raises SESSION_NOT_FOUND, DRAINING, FIELD_INVALID."""
        if self._draining is not None:
            raise self._draining
        row = await self._runtime.store.session(tenant, session_id)
        last = await self._last_seq(row)
        if after > last:
            raise field_invalid("after.seq", f"the session's last event is {last}")
        live = self._live.get(session_id)
        if replay_only and live is not None:
            await self._runtime.journal.flushed(live.session)
        first = await self._runtime.store.first_seq(session_id) if after else 0
        stream = self._observe(row, after, detail, kinds)
        if replay_only:
            stream.subscription.finish_when_empty()
        if after:
            stream.tell_expired(after, first, last)
        return stream

    def unwatch(self, stream: Stream) -> None:
        """An observer has gone."""
        self._watchers.pop(stream, None)
        live = stream.session_id in self._live
        self._runtime.journal.unsubscribe(stream.session_id, stream.subscription, live=live)

    async def session(self, tenant: str, session_id: str) -> SessionRow:
        """A tenant's session as it is stored. Raises SESSION_NOT_FOUND."""
        return await self._runtime.store.session(tenant, session_id)

    async def sessions(self, tenant: str, query: Query) -> list[SessionRow]:
        """Some of a tenant's sessions, as they are stored."""
        return await self._runtime.store.sessions(tenant, query)

    async def fork(
        self, tenant: str, session_id: str, turn_id: str, key: str, key_hash: str
    ) -> SessionRow:
        """A new session with another's conversation up to a turn, or the one that the key has.

        Raises as `Sessions.fork` does, and DRAINING.
        """
        if self._draining is not None:
            raise self._draining
        claim = self._runtime.sessions.claim(tenant, key, key_hash)
        fork_id = await self._fork(tenant, session_id, turn_id, claim)
        return await self._runtime.store.session(tenant, fork_id)

    @asynccontextmanager
    async def exported(self, row: SessionRow, *, workspace: bool) -> AsyncIterator[Export]:
        """A session's export while the context lasts.

        Raises SESSION_BUSY while a turn runs, STORAGE_UNAVAILABLE.
        """
        live = self._live.get(row.id)
        if live is not None and live.running:
            raise WarmlineError(
                Reason.SESSION_BUSY, "A turn of this session runs or waits.", retry_after=1.0
            )
        if live is None:
            await self._here(row)
        else:
            await self._runtime.journal.flushed(live.session)
            await live.saved()
            row = await self._runtime.store.session(row.tenant, row.id)
        work = live.work if live is not None else None
        async with self._runtime.portable.exported(row, work, workspace=workspace) as export:
            yield export

    async def import_(
        self,
        tenant: str,
        config: SessionConfig,
        title: str,
        transcript: bytes,
        workspace: Path | None,
    ) -> SessionRow:
        """A new session with what somebody brings. Raises as `Portable.import_` does, and DRAINING."""
        if self._draining is not None:
            raise self._draining
        self._runtime.catalog.resolve(config.model)
        portable = self._runtime.portable
        session_id = await portable.import_(tenant, config, title, transcript, workspace)
        return await self._runtime.store.session(tenant, session_id)

    def scratch(self) -> AbstractAsyncContextManager[Path]:
        """A place for a file that is being received; it is gone afterwards."""
        return self._runtime.workspaces.scratch()

    async def interrupt(self, row: SessionRow) -> tuple[InterruptOutcome, str]:
        """Stop a session's running turn from outside its stream."""
        conversation = self._live.get(row.id)
        if conversation is None:
            await self._here(row)
            return InterruptOutcome.NOTHING_RUNNING, ""
        return await conversation.interrupt(None)

    def at_work(self, session_id: str) -> Conversation | None:
        """The session's conversation, where it is loaded."""
        return self._live.get(session_id)

    async def remove(self, row: SessionRow) -> None:
        """Stop whatever a session does and remove all that is stored of it.

        Goes on when the caller goes away. Raises SESSION_ELSEWHERE, STORAGE_UNAVAILABLE; then it may
        be tried again.
        """
        await asyncio.shield(self._spawn(self._remove(row)))

    async def _remove(self, row: SessionRow) -> None:
        conversation = await self._get(row.tenant, row.id)
        gone = WarmlineError(Reason.SESSION_NOT_FOUND, "This session was deleted.")
        try:
            # Kept among the live ones meanwhile: who opens it now learns that it is gone.
            await conversation.lose(gone)
            # Also those that may only read, because another has taken the session over.
            self._runtime.journal.feed(row.id).fail(gone)
            await self._runtime.store.delete(row)
        finally:
            self._drop(conversation)
        for stream in self._watchers:
            if stream.session_id == row.id:
                stream.subscription.fail(gone)

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
        self._draining = error
        self._drain_began.set()
        for conversation in self._live.values():
            conversation.begin_drain(error)
        for stream in self._watchers:
            stream.drain(error.retry_after or 1.0, stream.subscription.cursor)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        if self._tasks:
            await self._cut(error, list(self._live.values()))

    async def draining(self) -> WarmlineError:
        """Wait until the service drains; says so as an error."""
        await self._drain_began.wait()
        assert self._draining is not None
        return self._draining

    async def drained(self, stream: Stream) -> WarmlineError:
        """Wait until the service drains and a stream's session has nothing more to do; says why.

        The stream gets its end then.
        """
        error = await self.draining()
        live = self._live.get(stream.session_id)
        if live is not None:
            await live.drained()
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

    async def _here(self, row: SessionRow) -> None:
        """Raise SESSION_ELSEWHERE where another service has the session, and knows more of it."""
        if await self._runtime.store.elsewhere(row.id):
            raise elsewhere()

    async def _fork(
        self,
        tenant: str,
        session_id: str,
        turn_id: str,
        claim: Claim | None,
        config: SessionConfig | None = None,
    ) -> str:
        return await self._runtime.sessions.fork(
            tenant,
            session_id,
            turn_id,
            claim,
            config=config,
            copy_workspace=self._copy_workspace,
        )

    async def _copy_workspace(self, row: SessionRow, session_id: str) -> str:
        workspaces = self._runtime.workspaces
        live = self._live.get(row.id)
        if live is not None and (work := live.work) is not None:
            try:
                async with workspaces.packed(work) as archive:
                    if live.work == work:
                        if archive is None:
                            return ""
                        return await workspaces.keep(row.tenant, session_id, archive)
            except WarmlineError:
                if live.work == work:
                    raise
        if live is not None:
            # Its process has ended, maybe while the files were looked at: they are being saved.
            await live.saved()
            row = await self._runtime.store.session(row.tenant, row.id)
        if row.workspace_key:
            return await workspaces.copy(row.tenant, row.workspace_key, session_id)
        return ""

    async def _choose(self, tenant: str, opening: Opening) -> str:
        """The session that is meant by something else than its id."""
        if opening.latest:
            rows = await self._runtime.store.sessions(tenant, Query(limit=1))
            if rows:
                return rows[0].id
        self._runtime.catalog.resolve(opening.config.model)
        sessions = self._runtime.sessions
        claim = sessions.claim(tenant, opening.key, opening.key_hash)
        if opening.fork_session:
            source = opening.fork_session, opening.fork_turn
            return await self._fork(tenant, *source, claim, opening.config)
        return await sessions.create(tenant, opening.config, claim)

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
            if loading.cancelled() and self._draining is not None:
                raise self._draining from None  # The load was ended by the stop, not by the caller.
            raise

    async def _load(self, tenant: str, session_id: str) -> Conversation:
        runtime = self._runtime
        session = await runtime.sessions.load(tenant, session_id)
        unfinished = await runtime.store.unfinished(session_id)
        runtime.journal.feed(session_id, session.seq).epoch = session.token
        conversation = Conversation(session, runtime, self._spawn, self._on_idle)
        self._live[session_id] = conversation
        conversation.fail_turns(unfinished)
        if self._draining is not None:
            conversation.begin_drain(self._draining)
        return conversation

    def _loaded(self, key: tuple[str, str], task: asyncio.Task[Conversation]) -> None:
        if self._loading.get(key) is task:
            del self._loading[key]
        if not task.cancelled() and task.exception() is None:
            # Who asked for it may have gone meanwhile; otherwise it is in use by then.
            asyncio.get_running_loop().call_later(_UNUSED, self._on_idle, task.result())

    def _observe(
        self,
        row: SessionRow,
        after: int,
        detail: Detail,
        kinds: Collection[str] = (),
        turn_id: str | None = None,
    ) -> Stream:
        subscription = self._runtime.journal.subscribe(
            (row.tenant, row.id),
            after,
            wanted(detail, kinds, turn_id),
            raw=detail is Detail.RAW,
        )

        def epoch() -> int:
            live = self._live.get(row.id)
            return opened_position(live.session)[0] if live else max(row.epoch, 1)

        stream = Stream(subscription, row.id, epoch)
        self._watchers[stream] = None
        return stream

    async def _last_seq(self, row: SessionRow) -> int:
        live = self._live.get(row.id)
        if live is not None:
            return live.session.seq
        return max(row.last_seq, (await self._runtime.store.position(row.id))[1])

    async def _tell_expired(self, stream: Stream, after: int, last: int) -> None:
        first = await self._runtime.store.first_seq(stream.session_id)
        stream.tell_expired(after, first, last)

    def _on_idle(self, conversation: Conversation) -> None:
        if self._draining is not None:
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
        if self._live.get(session_id) is conversation:
            del self._live[session_id]
            self._runtime.journal.forget(session_id)

    def _on_outage(self, error: WarmlineError) -> None:
        _log.error("running turns are given up for want of a store")
        conversations = list(self._live.values())
        self._spawn_upkeep(self._cut(error, conversations))
        # Their ends are told when they are stored, to whoever comes for them then.
        for conversation in conversations:
            conversation.fail_stream(error)
        for stream in self._watchers:
            stream.subscription.fail(error)

    def _on_lost(self, session: Session) -> None:
        conversation = self._live.get(session.id)
        if conversation is not None and conversation.session is session:
            self._drop(conversation)
            self._spawn_upkeep(conversation.lose(elsewhere()))

    async def _cut(self, error: WarmlineError, conversations: list[Conversation]) -> None:
        cuts = [asyncio.create_task(each.cut(error)) for each in conversations]
        if cuts:
            await asyncio.wait(cuts, timeout=2 * self._runtime.cli.interrupt_timeout)
        for cut in cuts:
            cut.cancel()
        await asyncio.gather(*cuts, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _spawn_upkeep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._upkeep.add(task)
        task.add_done_callback(self._upkeep.discard)
