"""`/v1/chat/stream`: a message and what comes of it, or what a session tells, as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response
from warmline.v1 import chat_service_pb2 as pb
from warmline.v1 import events_pb2 as events_pb
from warmline.v1 import session_config_pb2 as config_pb
from warmline.v1 import session_service_pb2 as session_pb

from warmline_http._call import Asked, Call
from warmline_http._events import DETAIL, Detail
from warmline_http._failure import Failure, within
from warmline_http._link import Events
from warmline_http._proto import Text, filled
from warmline_http._sse import EventStream
from warmline_http.chat._place import Place
from warmline_http.chat._telling import told

router = APIRouter(tags=["chat"])

_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": (
            "Server-sent events: `event` is the kind, `data` the `Event` as protobuf JSON, `id` what "
            "`Last-Event-ID` takes. The last one is `done`."
        ),
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
        "headers": {"x-session-id": {"schema": {"type": "string"}}},
    },
    204: {"description": "The turn has ended and was told to its end: nothing comes any more."},
}


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid")

    message: Text = ""
    session_id: Text = ""
    model: Text = ""
    system: Text = ""
    idempotency_key: Text = ""
    detail: Detail = "blocks"


class Spoken(_Said):
    """A message to a session, a new one where `session_id` is empty, and how that is set up.

    `config` is a `SessionConfig` as protobuf JSON; `model` and `system` are short for fields of it.
    `model` may be set for a session that goes on, too.
    """

    config: dict[str, Any] = {}


class Asking(_Said):
    """The same, as `EventSource` can say it."""

    last_event_id: Text = ""


# Asynchronous, though it waits for nothing: FastAPI runs others in a thread.
async def _last_event_id(
    last_event_id: Annotated[
        str,
        Header(description="The `id` of the last event that was had: what came after it is told."),
    ] = "",
) -> str:
    return last_event_id


LastEventId = Annotated[str, Depends(_last_event_id)]


@router.post("/v1/chat/stream", responses=_ANSWERS)
async def stream(call: Asked, body: Spoken, last_event_id: LastEventId) -> Response:
    """Say something and be told what comes of it.

    With `Last-Event-ID` nothing is said: what came after that event is told, and then what comes.
    Whoever goes away ends the stream, and not the turn.
    """
    return await _answer(call, body, last_event_id)


@router.get("/v1/chat/stream", responses=_ANSWERS)
async def event_source(
    call: Asked, asked: Annotated[Asking, Query()], last_event_id: LastEventId
) -> Response:
    """The same for `EventSource`. With `session_id` and no message: what the session tells from now on."""
    spoken = Spoken.model_validate(asked.model_dump(exclude={"last_event_id"}))
    return await _answer(call, spoken, last_event_id or asked.last_event_id)


async def _answer(call: Call, asked: Spoken, last_event_id: str) -> Response:
    if last_event_id:
        place = Place.parse(last_event_id)
        if asked.session_id not in ("", place.session_id):
            raise Failure.field("last-event-id", "is of another session than `session_id`")
        if place.ended:
            # With any other answer an EventSource would ask for ever.
            return Response(status_code=204, headers={"x-session-id": place.session_id})
        return await _goes_on(call, asked, place, ())
    if asked.message:
        return await _said(call, asked)
    if asked.session_id:
        return await _followed(call, asked)
    raise Failure.field("message", "must be set, or `session_id`, or `Last-Event-ID`")


async def _said(call: Call, asked: Spoken) -> Response:
    request = pb.AskRequest(
        message=pb.UserMessage(text=asked.message, idempotency_key=asked.idempotency_key),
        session_id=asked.session_id,
        config=await _config_of(asked),
        detail=DETAIL[asked.detail],
    )
    if asked.session_id and asked.model:
        await _choose(call, asked.session_id, asked.model)
    events = await call.events("Ask", request)
    try:
        async with within(call.settings.call_timeout):
            first = await _until_named(events)
    except BaseException:
        events.close()
        raise
    return _stream(call, events, first, _beginning(first))


async def _until_named(events: Events) -> list[events_pb.Event]:
    """The first events, up to one that names the turn: a moment after the message was taken."""
    first: list[events_pb.Event] = []
    while not any(event.turn_id for event in first):
        batch = await events.read()
        if not batch:
            raise Failure.stream_ended()
        first += batch
    return first


def _beginning(first: list[events_pb.Event]) -> Place:
    """The place before a turn's first event."""
    named = next(event for event in first if event.turn_id)
    seq = next((event.seq - 1 for event in first if event.seq), 0)
    for event in first:
        if event.HasField("session_opened"):
            seq = event.session_opened.last_seq
    return Place(named.epoch, seq, named.session_id, named.turn_id)


async def _followed(call: Call, asked: Spoken) -> Response:
    wanted = session_pb.GetSessionRequest(session_id=asked.session_id)
    session = (await call.unary("sessions", "GetSession", wanted)).session
    opened = events_pb.SessionOpened(
        session_id=session.id,
        model=session.config.model,
        last_seq=session.last_seq,
        epoch=session.epoch,
        open_approvals=session.open_approvals,
    )
    first = events_pb.Event(session_id=session.id, epoch=session.epoch, session_opened=opened)
    first.time.GetCurrentTime()
    place = Place(session.epoch, session.last_seq, session.id)
    return await _goes_on(call, asked, place, (first,))


async def _goes_on(
    call: Call, asked: Spoken, place: Place, first: tuple[events_pb.Event, ...]
) -> Response:
    request = pb.WatchRequest(
        session_id=place.session_id, after=place.cursor, detail=DETAIL[asked.detail]
    )
    return _stream(call, await call.events("Watch", request), list(first), place)


def _stream(call: Call, events: Events, first: list[events_pb.Event], place: Place) -> EventStream:
    return EventStream(
        told(call, events, first, place),
        heartbeat=call.settings.heartbeat,
        headers={"x-session-id": place.session_id},
    )


async def _config_of(asked: Spoken) -> config_pb.SessionConfig | None:
    """How a new session is set up; None where nothing is said of it."""
    config = config_pb.SessionConfig()
    try:
        await asyncio.to_thread(filled, config, asked.config)
    except ValueError as error:
        raise Failure.field("config", str(error)) from None
    if asked.system:
        if config.HasField("system_prompt"):
            raise Failure.field("system", "is in `config` already")
        config.system_prompt.replace = asked.system
    if asked.model and not asked.session_id:
        if config.model:
            raise Failure.field("model", "is in `config` already")
        config.model = asked.model
    return config if config.ByteSize() else None


async def _choose(call: Call, session_id: str, model: str) -> None:
    """Have another model answer from now on."""
    chat, first = await call.chat(pb.Open(session_id=session_id))
    try:
        async with within(call.settings.call_timeout):
            opened = first[0].session_opened
            if opened.running_turn_id:
                text = "A turn runs; the model can be changed after it, or over a WebSocket."
                raise Failure(409, "SESSION_BUSY", text, retry_after=1.0)
            if opened.model != model:
                await chat.send(pb.ChatRequest(update=pb.Update(model=model)))
            await chat.half_close()
            # To its end: a session that somebody has is busy.
            while events := await chat.read():
                _check_update(events)
    finally:
        chat.close()


def _check_update(events: Sequence[events_pb.Event]) -> None:
    for event in events:
        if event.notice.code == "update_refused":
            raise Failure.field("model", event.notice.message)
