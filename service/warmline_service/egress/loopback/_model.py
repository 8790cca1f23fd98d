"""The built-in model: answers locally and deterministically, as the message asks it to."""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from dataclasses import dataclass

import msgspec
from aiohttp import web

from warmline_service.egress._account import Account
from warmline_service.egress._bodies import BodyTooLargeError, read_body
from warmline_service.egress._faults import UpstreamError, error_body, error_response, error_type
from warmline_service.egress._meter import Meter, Tokens
from warmline_service.egress._provider import Route, route_of
from warmline_service.egress.loopback import _wire as wire
from warmline_service.egress.loopback._player import Player
from warmline_service.egress.loopback._request import BadRequestError, Conversation
from warmline_service.egress.loopback._script import ScriptError, parse
from warmline_service.egress.loopback._steps import Fail, Pause, Reply, Write, spoken
from warmline_service.egress.loopback._usage import input_tokens

_KEPT_REQUESTS = 1000
_KEPT_FAILURES = 1000
# Of what somebody said or a tool gave back, so much is repeated to them.
_QUOTED = 2000
# A longer body is not digested: it would hold up the loop.
_DIGESTED = 1024 * 1024


@dataclass(frozen=True)
class LoopbackBehaviour:
    """How long the model takes where no script says so: seconds to the first and for each token."""

    first_token: float = 0.0
    pace: float = 0.0


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request that the model got; `body` only where that was asked for."""

    session: str
    model: str
    stream: bool
    size: int
    digest: str
    body: bytes | None


class LoopbackModel:
    """A provider without a network: speaks the Messages API, steered by scripts in messages.

    What it answers depends on the request alone, but for `::error … times N`, which counts.
    `requests` are the last thousand; with `record` their bodies are kept.
    """

    def __init__(self, behaviour: LoopbackBehaviour | None = None, *, record: bool = False) -> None:
        self.requests: deque[RequestRecord] = deque(maxlen=_KEPT_REQUESTS)
        self._behaviour = behaviour or LoopbackBehaviour()
        self._record = record
        self._failures: OrderedDict[tuple[object, ...], int] = OrderedDict()

    async def start(self) -> None:
        """Nothing is needed."""

    async def aclose(self) -> None:
        """Nothing is held."""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request of nobody in particular: the model as a server of its own."""
        route = route_of(request)
        if route is None:
            return error_response(404, "There is nothing here.")
        if route is Route.ROOT:
            return web.Response()
        return await self.forward(request, route, Account("loopback"))

    async def forward(
        self, request: web.BaseRequest, route: Route, account: Account
    ) -> web.StreamResponse:
        """Answer a MESSAGES or COUNT_TOKENS request of an account."""
        # Counting tokens uses none.
        reading = (account.meter if route is Route.MESSAGES else Meter()).begin()
        try:
            conversation = Conversation(await read_body(request))
        except BodyTooLargeError as error:
            return _refuse(account, 413, str(error))
        except BadRequestError as error:
            return _refuse(account, 400, str(error))
        used = input_tokens(conversation)
        if route is Route.COUNT_TOKENS:
            return web.Response(body=_counted(used), content_type="application/json")
        session = request.headers.get("x-claude-code-session-id", "")
        self._remember(session, conversation)
        player = Player(request, conversation, account, reading, used, self._behaviour.pace)
        return await player.play(self._reply(session, conversation))

    async def count(self, body: bytes, account: Account) -> tuple[int, bytes]:
        """Count what a request would have."""
        del account
        try:
            used = input_tokens(Conversation(body))
        except BadRequestError as error:
            return 400, error_body(400, str(error))
        return 200, _counted(used)

    def _remember(self, session: str, conversation: Conversation) -> None:
        body = conversation.body
        self.requests.append(
            RequestRecord(
                session,
                conversation.request.model,
                conversation.request.stream,
                len(body),
                hashlib.sha256(body).hexdigest() if len(body) <= _DIGESTED else "",
                body if self._record else None,
            )
        )

    def _reply(self, session: str, conversation: Conversation) -> Reply:
        first = self._behaviour.first_token
        reply = _scripted(conversation) or _default(conversation)
        key = (session, conversation.number, conversation.answered, hash(conversation.said))
        steps = (step for index, step in enumerate(reply) if self._applies(step, (*key, index)))
        return ((Pause(first),) if first else ()) + tuple(steps)

    def _applies(self, step: object, key: tuple[object, ...]) -> bool:
        """Whether a step is still to be done: a counted failure only so often for one request."""
        if not isinstance(step, Fail) or step.times is None:
            return True
        failed = self._failures.pop(key, 0)
        self._failures[key] = failed + 1
        if len(self._failures) > _KEPT_FAILURES:
            self._failures.popitem(last=False)
        return failed < step.times


def _counted(used: Tokens) -> bytes:
    total = used.input + used.cache_read + used.cache_creation
    return msgspec.json.encode({"input_tokens": total})


async def answer_warm_up(request: web.BaseRequest) -> web.StreamResponse:
    """The least that is a whole answer, for a process that warms up.

    Nobody's meter counts it, and it reports no tokens: the CLI adds up what it is told.
    """
    try:
        conversation = Conversation(await read_body(request))
    except BodyTooLargeError as error:
        return error_response(413, str(error))
    except BadRequestError as error:
        return error_response(400, str(error))
    return _nothing_used(conversation.request.model, stream=conversation.request.stream)


def _nothing_used(model: str, *, stream: bool) -> web.Response:
    text, free = "ok", Tokens()
    if not stream:
        block = {"type": "text", "text": text}
        body = msgspec.json.encode(wire.message(model, free, [block], "end_turn"))
        return web.Response(body=body, content_type="application/json")
    frames = (
        wire.start_frame(model, free),
        wire.frame("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        wire.DeltaFrames(0, "text_delta", "text").of(text),
        wire.frame("content_block_stop", index=0),
        wire.end_frames("end_turn", free),
    )
    return web.Response(body=b"".join(frames), content_type="text/event-stream")


def _scripted(conversation: Conversation) -> Reply | None:
    """The part of the message's script that this request is for; None without one."""
    try:
        replies = parse(conversation.said)
    except ScriptError as error:
        return (Write("text", spoken(f"The script is not understood: {error}.")),)
    if replies is None or conversation.answered >= len(replies):
        return None
    return replies[conversation.answered]


def _default(conversation: Conversation) -> Reply:
    if conversation.answered:
        text = f"The tool answered: {conversation.tool_result[:_QUOTED]}"
    else:
        said = conversation.said[:_QUOTED]
        text = f"You said: {said} (message {conversation.number} of this conversation)"
    return (Write("text", spoken(text)),)


def _refuse(account: Account, status: int, message: str) -> web.Response:
    account.fault = UpstreamError(status, error_type(status))
    return error_response(status, message)
