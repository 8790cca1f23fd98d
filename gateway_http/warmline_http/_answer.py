"""One answer in a conversation that its caller keeps: asked for, told as it is written, named."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence

import msgspec
import structlog
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import events_pb2 as pb
from warmline.v1 import session_config_pb2 as config_pb

from warmline_http._call import Call
from warmline_http._events import ENDS
from warmline_http._failure import Failure, within
from warmline_http._link import Chat
from warmline_http._merging import PROGRESS, Merging, Step, Written, line_of
from warmline_http._progress import progress_of
from warmline_http._talk import Talk

_log = structlog.get_logger(__name__)

# What a name is waited for: the answer is whole without it.
_NAMED_WITHIN = 5.0


class Answer:
    """Asks, and gives what the model writes as steps: events of the Anthropic API's stream, made one message.

    `open` first: what it raises has begun nothing. `written` is whole when `steps` has ended. `close` last;
    a turn that still runs goes on.
    """

    def __init__(self, call: Call, talk: Talk) -> None:
        self._call = call
        self._talk = talk
        self._chat: Chat | None = None
        self._ready: list[pb.Event] = []
        self._left: dict[str, chat_pb.ClientToolResult] = {}
        self._turn_id = ""
        self.opened = pb.SessionOpened()
        self.written = Written()
        self._merging = Merging(self.written, formed=talk.config.HasField("output_schema"))

    async def open(self) -> None:
        """Attach to the session and have the message accepted. Raises Failure."""
        talk = self._talk
        if not talk.said.results and talk.credential is None:
            # At once: what is said does not hang on which session it is.
            await self._say(talk.opening())
            return
        await self._attach(talk.opening())
        if talk.said.results and (self.opened.continued or talk.session_id):
            if await self._deliver():
                return
            if talk.session_id:
                raise Failure(
                    409, "CALL_NOT_OPEN", "The session waits for no result of these tools."
                )
            # Its calls are not waited for any more: what was said is told to another process.
            self.close()
            await self._attach(talk.opening(anew=True))
        await self._say()

    def close(self) -> None:
        """Give the stream up. Idempotent."""
        if self._chat is not None:
            self._chat.close()

    async def events(self) -> AsyncIterator[pb.Event]:
        """All that happens in the turn, to its end."""
        while True:
            for event in self._ready:
                if event.turn_id != self._turn_id:
                    continue  # Of one that was there before.
                yield event
                if event.HasField("turn_failed"):
                    raise Failure.of_status(event.turn_failed.status)
                if event.HasField("turn_completed"):
                    return
            self._ready = await self._read()

    async def steps(self) -> AsyncIterator[Step]:
        """What the model writes, and how the turn goes on. Raises Failure."""
        async for event in self.events():
            if event.HasField("raw") and event.raw.type == "stream_event":
                for step in self._steps(event.raw.json):
                    yield step
                if self._merging.asks:
                    break
            elif text := progress_of(event):
                yield {"type": PROGRESS, "text": text}
            elif event.turn_completed.stop_reason == pb.STOP_REASON_INTERRUPTED:
                self._merging.cut()
            elif event.turn_completed.HasField("structured_output"):
                # As the model wrote it: a Struct keeps neither the order nor whole numbers.
                for step in self._merging.form(event.turn_completed.result):
                    yield step
        self._merging.join()
        await self.name()
        for step in self._merging.end():
            yield step

    def _steps(self, line: str) -> list[Step]:
        try:
            return list(self._merging.take(line_of(line)))
        except (msgspec.MsgspecError, LookupError, TypeError, AttributeError) as error:
            _log.warning("line not understood", error=repr(error)[:200])
            text = "The model wrote what is no event of the Messages API."
            raise Failure(502, "PROTOCOL", text) from None

    async def _attach(self, opening: chat_pb.Open, *frames: chat_pb.ChatRequest) -> None:
        self._turn_id = ""
        self._chat, first = await self._call.chat(opening, *frames)
        self._take(first)
        if not self.opened.session_id:
            raise Failure(502, "PROTOCOL", "The service did not begin with `session_opened`.")
        known = self.opened.continued or self._talk.session_id
        if known and self._talk.credential is not None:
            await self._renew(self._chat, self._talk.credential)

    async def _renew(self, chat: Chat, credential: config_pb.Credential) -> None:
        """Have the session pay with this from now on; nothing is said to it before it does."""
        update = chat_pb.Update(credential=credential)
        await chat.send(chat_pb.ChatRequest(update=update))
        told = list(self._ready)
        async with within(self._call.settings.call_timeout):
            while not any(event.HasField("session_updated") for event in told):
                refused = [e.notice.message for e in told if e.notice.code == "update_refused"]
                if refused:
                    raise Failure(403, "POLICY_DENIED", refused[0])
                told += await self._read()
        self._ready = told

    async def _say(self, opening: chat_pb.Open | None = None) -> None:
        """Have the message accepted; with `opening` the stream begins with that."""
        try:
            await self._submit(opening)
        except Failure as failure:
            # The message was sent before: its turn is told, where it is the same one.
            session_id = failure.metadata.get("sessionId", "")
            if failure.reason != "IDEMPOTENCY_CONFLICT" or session_id in (
                "",
                self.opened.session_id,
            ):
                raise
            self.close()
            await self._submit(chat_pb.Open(session_id=session_id, detail=chat_pb.DETAIL_RAW))

    async def _submit(self, opening: chat_pb.Open | None) -> None:
        if opening is not None:
            await self._attach(opening, self._talk.frame())
        else:
            assert self._chat is not None
            await self._chat.send(self._talk.frame())
        # A refusal has its own status while nothing has been answered.
        async with within(self._call.settings.call_timeout):
            while not self._turn_id:
                self._take(await self._read())
        for event in self._ready:
            if event.HasField("turn_failed") and event.turn_id == self._turn_id:
                raise Failure.of_status(event.turn_failed.status)

    async def _deliver(self) -> bool:
        """Answer the calls that the turn waits for; False where it does not."""
        self._left = self._talk.answers()
        self._turn_id = self.opened.running_turn_id
        await self._settle(self.opened.open_client_calls)
        async with within(self._call.settings.call_timeout):
            while self._left and self._turn_id:
                events, self._ready = self._ready or await self._read(), []
                if any(event.WhichOneof("kind") in ENDS for event in events):
                    return False
                calls = [e.client_tool_called for e in events if e.HasField("client_tool_called")]
                await self._settle(calls)
        return not self._left

    async def _settle(self, calls: Iterable[pb.ClientToolCalled]) -> None:
        assert self._chat is not None
        for call in calls:
            result = self._left.pop(call.tool_call_id, None)
            if result is not None:
                result.call_id = call.call_id
                await self._chat.send(chat_pb.ChatRequest(client_tool_result=result))

    async def name(self) -> None:
        """Let the caller's next request find the session."""
        if not self._talk.session_id:
            await self._name(self._talk.names_after(self.written.content))

    async def keep(self) -> None:
        """Let it find the session although nobody has heard the answer's end, and the stream is gone."""
        if self._talk.session_id or not self._talk.stays:
            return
        self.close()
        opening = chat_pb.Open(session_id=self.opened.session_id, takeover=True)
        await self._name([self._talk.name(())], opening)

    async def _name(self, names: Sequence[str], opening: chat_pb.Open | None = None) -> None:
        frame = chat_pb.ChatRequest(checkpoint=chat_pb.Checkpoint(continuations=names))
        try:
            async with asyncio.timeout(_NAMED_WITHIN):
                if opening is not None:
                    self._chat, _ = await self._call.chat(opening)
                assert self._chat is not None
                await self._chat.send(frame)
                while not any(event.HasField("checkpointed") for event in await self._read()):
                    pass
        except (Failure, TimeoutError) as error:
            # The next request tells the whole conversation to another process.
            _log.warning("session not named", request_id=self._call.request_id, error=repr(error))

    async def _read(self) -> list[pb.Event]:
        assert self._chat is not None
        events = await self._chat.read()
        if not events:
            raise Failure.stream_ended()
        return list(events)

    def _take(self, events: list[pb.Event]) -> None:
        for event in events:
            if event.HasField("session_opened"):
                self.opened = event.session_opened
            elif self._talk.key in _keys(event):
                self._turn_id = event.turn_id
        self._ready = events


def _keys(event: pb.Event) -> tuple[str, ...]:
    """The key of the message whose acceptance or refusal an event tells of."""
    match event.WhichOneof("kind"):
        case "turn_queued":
            return (event.turn_queued.idempotency_key,)
        case "turn_attached":
            return (event.turn_attached.idempotency_key,)
        case "turn_failed":
            return (event.turn_failed.idempotency_key,)
    return ()
