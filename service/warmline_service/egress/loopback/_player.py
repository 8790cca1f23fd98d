"""Does the steps of one reply."""

from __future__ import annotations

import asyncio

from aiohttp import web

from warmline_service.egress._account import Account
from warmline_service.egress._bodies import cut
from warmline_service.egress._faults import UpstreamError, error_type
from warmline_service.egress._meter import Reading, Tokens
from warmline_service.egress.loopback._output import Output, StreamOutput, WholeOutput
from warmline_service.egress.loopback._request import Conversation
from warmline_service.egress.loopback._script import MAX_SECONDS
from warmline_service.egress.loopback._steps import (
    Call,
    Cut,
    Echo,
    Fail,
    Hang,
    Pace,
    Pause,
    Reply,
    Stop,
    Write,
    spoken,
)


class Player:
    """Writes one answer for an account; `pace` is in seconds a token until a step sets another."""

    def __init__(
        self,
        request: web.BaseRequest,
        conversation: Conversation,
        account: Account,
        reading: Reading,
        used: Tokens,
        pace: float,
    ) -> None:
        asked = conversation.request
        kind = StreamOutput if asked.stream else WholeOutput
        self._out: Output = kind(request, asked.model, used, reading)
        self._request = request
        self._conversation = conversation
        self._account = account
        self._pace = pace
        self._left = asked.max_tokens
        self._stop: str | None = None

    async def play(self, reply: Reply) -> web.StreamResponse:
        """Do every step, up to one that ends the answer."""
        self._account.fault = None
        for step in reply:
            match step:
                case Fail():
                    return await self._fail(step)
                case Cut() | Hang():
                    return await self._break_off(step)
                case _:
                    await self._do(step)
            await self._account.cover()
            if self._left == 0:
                return await self._out.end("max_tokens")
        return await self._out.end(self._stop or "end_turn")

    async def _do(self, step: Write | Call | Echo | Pause | Pace | Stop) -> None:
        match step:
            case Write():
                await self._write(step)
            case Echo():
                await self._write(Write("text", spoken(self._conversation.part(step.what))))
            case Call():
                self._stop = self._stop or "tool_use"
                await self._out.call(step)
            case Pause():
                await self._out.flush()
                await asyncio.sleep(step.seconds)
            case Pace():
                self._pace = step.seconds
            case Stop():
                self._stop = step.reason

    async def _write(self, step: Write) -> None:
        words = step.words if self._left is None else step.words.upto(self._left)
        await self._out.write(Write(step.kind, words), self._pace)
        if self._left is not None:
            self._left -= words.count

    async def _fail(self, step: Fail) -> web.StreamResponse:
        kind = error_type(step.status)
        self._account.fault = UpstreamError(step.status, kind, step.retry_after)
        return await self._out.fail(step, f"The script asked for {step.status} {kind}.")

    async def _break_off(self, step: Cut | Hang) -> web.StreamResponse:
        await self._out.flush()
        if isinstance(step, Hang):
            await asyncio.sleep(MAX_SECONDS)
        self._account.fault = UpstreamError(502, "api_error")
        cut(self._request)
        return web.Response()
