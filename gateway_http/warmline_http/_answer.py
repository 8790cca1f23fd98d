"""One answer in a conversation that its caller keeps: asked for, told as it is written, named."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import events_pb2 as pb

from warmline_http._call import Call
from warmline_http._events import ENDS
from warmline_http._failure import Failure, within
from warmline_http._link import Chat
from warmline_http._talk import Talk

_log = structlog.get_logger(__name__)

# What a name is waited for: the answer is whole without it.
_NAMED_WITHIN = 5.0
_OWN_TOOL = "mcp__client__"

Step = Mapping[str, Any]


class _Line(msgspec.Struct):
    event: dict[str, Any] = {}  # msgspec copies an empty default
    parent_tool_use_id: str | None = None


_line = msgspec.json.Decoder(_Line)


@dataclass
class Written:
    """The answer so far: its blocks, as the API has them, and how it ended."""

    id: str = ""
    model: str = ""
    content: list[dict[str, Any]] = field(default_factory=list)
    stop_reason: str = "end_turn"
    stop_sequence: str | None = None
    usage: dict[str, int] = field(default_factory=dict)


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
        self._merging = _Merging(self.written, formed=talk.config.HasField("output_schema"))

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
        """All that happens in the turn, to its end or to a call that the caller has to answer."""
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
        """What the model writes. Raises Failure."""
        async for event in self.events():
            if event.HasField("raw") and event.raw.type == "stream_event":
                for step in self._steps(event.raw.json):
                    yield step
                if self._merging.asks:
                    break
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
            return list(self._merging.take(_line.decode(line)))
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
        if self.opened.continued and self._talk.credential is not None:
            update = chat_pb.Update(credential=self._talk.credential)
            await self._chat.send(chat_pb.ChatRequest(update=update))

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
        assert self._chat is not None
        if self._talk.session_id:
            return
        names = self._talk.names_after(self.written.content)
        frame = chat_pb.ChatRequest(checkpoint=chat_pb.Checkpoint(continuations=names))
        try:
            async with asyncio.timeout(_NAMED_WITHIN):
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


class _Merging:
    """Makes one message of all that the model writes in a turn; calls of the CLI's own tools are left out.

    `formed`: the session has an output schema, so that the answer's text is `form` alone.
    """

    def __init__(self, written: Written, *, formed: bool) -> None:
        self._written = written
        self._formed = formed
        self._begun = False
        self._output_before = 0
        # By the index in the message at hand: the one in what is told, where it is told.
        self._told: dict[int, int] = {}
        self._input: dict[int, list[str]] = {}
        # Of blocks that go on, by their place and field.
        self._pieces: dict[tuple[int, str], list[str]] = {}
        self._last: dict[str, Any] = {}
        self._calls = False

    @property
    def asks(self) -> bool:
        """Whether the model waits for the caller's tools."""
        return self._calls and self._last.get("stop_reason") == "tool_use"

    def take(self, line: _Line) -> Iterable[Step]:
        """The steps of a line."""
        if line.parent_tool_use_id is not None:
            return ()  # A sub-agent's: no part of the answer.
        event = line.event
        match event.get("type"):
            case "message_start":
                return self._start(event["message"])
            case "content_block_start":
                return self._block(event["index"], event["content_block"])
            case "content_block_delta":
                return self._delta(event["index"], event["delta"], event)
            case "content_block_stop":
                return self._stop(event["index"])
            case "message_delta":
                self._last = event["delta"]
                self._count(event.get("usage") or {})
        return ()

    def form(self, text: str) -> Iterable[Step]:
        """The answer in the form of the schema, as a block of text."""
        place = len(self._written.content)
        block = {"type": "text", "text": ""}
        yield {"type": "content_block_start", "index": place, "content_block": block}
        delta = {"type": "text_delta", "text": text}
        yield {"type": "content_block_delta", "index": place, "delta": delta}
        yield {"type": "content_block_stop", "index": place}
        self._written.content.append({"type": "text", "text": text})
        self._last = {"stop_reason": "end_turn"}

    def join(self) -> None:
        """Let `written` have whole texts, also those of a block that was cut."""
        for (place, name), pieces in self._pieces.items():
            block = self._written.content[place]
            block[name] = block.get(name, "") + "".join(pieces)
        self._pieces.clear()

    def end(self) -> Iterable[Step]:
        """The last steps."""
        written = self._written
        written.stop_reason = self._last.get("stop_reason") or "end_turn"
        written.stop_sequence = self._last.get("stop_sequence")
        delta = {"stop_reason": written.stop_reason, "stop_sequence": written.stop_sequence}
        yield {"type": "message_delta", "delta": delta, "usage": written.usage}
        yield {"type": "message_stop"}

    def _start(self, message: dict[str, Any]) -> Iterable[Step]:
        usage = message.get("usage") or {}
        self._told, self._calls, self._last = {}, False, {}
        self._output_before = self._written.usage.get("output_tokens", 0)
        if self._begun:
            self._count(usage, more=True)
            return
        self._begun = True
        self._written.id, self._written.model = message["id"], message["model"]
        self._written.usage = dict(usage)
        yield {"type": "message_start", "message": {**message, "content": []}}

    def _count(self, usage: Mapping[str, Any], *, more: bool = False) -> None:
        counted = self._written.usage
        for name, value in usage.items():
            if not isinstance(value, int) or isinstance(value, bool):
                continue
            if name == "output_tokens":
                counted[name] = self._output_before + value
            elif more:
                counted[name] = counted.get(name, 0) + value
            else:
                counted.setdefault(name, value)

    def _block(self, index: int, block: dict[str, Any]) -> Iterable[Step]:
        if block["type"] == "tool_use":
            if not block["name"].startswith(_OWN_TOOL):
                return
            self._calls = True
            block = {**block, "name": block["name"].removeprefix(_OWN_TOOL)}
        elif self._formed and block["type"] == "text":
            return
        place = self._told[index] = len(self._written.content)
        self._written.content.append(dict(block))
        yield {"type": "content_block_start", "index": place, "content_block": block}

    def _delta(self, index: int, delta: dict[str, Any], event: dict[str, Any]) -> Iterable[Step]:
        place = self._told.get(index)
        if place is None:
            return
        block = self._written.content[place]
        match delta["type"]:
            case "text_delta":
                self._pieces.setdefault((place, "text"), []).append(delta["text"])
            case "thinking_delta":
                self._pieces.setdefault((place, "thinking"), []).append(delta["thinking"])
            case "signature_delta":
                block["signature"] = delta["signature"]
            case "input_json_delta":
                self._input.setdefault(place, []).append(delta["partial_json"])
        yield {**event, "index": place}

    def _stop(self, index: int) -> Iterable[Step]:
        place = self._told.get(index)
        if place is None:
            return
        written = "".join(self._input.pop(place, ()))
        if written:
            # Where the answer was cut in its middle, a call has no input.
            with suppress(msgspec.DecodeError):
                self._written.content[place]["input"] = msgspec.json.decode(written)
        yield {"type": "content_block_stop", "index": place}
