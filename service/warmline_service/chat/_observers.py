"""Those who only read: all that a session tells, or the turn that a key has."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from warmline_service.chat._conversation import Conversation
from warmline_service.chat._drain import Drain
from warmline_service.chat._ports import Runtime
from warmline_service.chat._stream import Stream, opened_position, wanted
from warmline_service.errors import Reason, WarmlineError, field_invalid
from warmline_service.sessions.events import Detail, TurnAttached
from warmline_service.store import Claimed, SessionRow


class Observers:
    """Streams on sessions, whoever has those; `live` are the conversations that this service has."""

    def __init__(self, runtime: Runtime, drain: Drain, live: Mapping[str, Conversation]) -> None:
        self._runtime = runtime
        self._drain = drain
        self._live = live
        self._streams: dict[Stream, None] = {}

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
        self._drain.check()
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
        self._streams.pop(stream, None)
        live = stream.session_id in self._live
        self._runtime.journal.unsubscribe(stream.session_id, stream.subscription, live=live)

    def tell_drain(self, error: WarmlineError) -> None:
        """Tell all of them that the service is going away."""
        for stream in self._streams:
            stream.drain(error.retry_after or 1.0, stream.subscription.cursor)

    def fail(self, error: WarmlineError, session_id: str = "") -> None:
        """End the streams on a session with an error, or all of them."""
        for stream in self._streams:
            if session_id in ("", stream.session_id):
                stream.subscription.fail(error)

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
        self._streams[stream] = None
        return stream

    async def _last_seq(self, row: SessionRow) -> int:
        live = self._live.get(row.id)
        if live is not None:
            return live.session.seq
        return max(row.last_seq, (await self._runtime.store.position(row.id))[1])
