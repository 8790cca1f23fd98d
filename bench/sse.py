"""A client of the Messages API that does as little as it can: a POST, and the events of the answer."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import aiohttp
import msgspec

_TIMEOUT = 120.0
_PATH = "/v1/messages"
_TEXT = b'"text_delta"'
_DELTA = b"event: content_block_delta"
_END = b"event: message_stop"


class _Delta(msgspec.Struct):
    text: str = ""


class _Event(msgspec.Struct):
    type: str
    delta: _Delta | None = None


_event = msgspec.json.Decoder(_Event)


@dataclass(frozen=True)
class Streamed:
    """One answer: seconds to its first text and to its end, counted from before the request."""

    first_text: float
    whole: float
    deltas: int
    text: str
    session: str


def http_client() -> aiohttp.ClientSession:
    """Connections that are kept open, as many as are wanted."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
    )


def begin(
    http: aiohttp.ClientSession, url: str, body: object
) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
    """Post a body of the Messages API."""
    headers = {"content-type": "application/json", "anthropic-version": "2023-06-01"}
    return http.post(url + _PATH, data=msgspec.json.encode(body), headers=headers)


class Talk:
    """A conversation that its caller keeps: each request tells all of it."""

    def __init__(self, http: aiohttp.ClientSession, url: str, model: str) -> None:
        self._http, self._url, self._model = http, url, model
        self._messages: list[dict[str, str]] = []

    async def say(self, text: str) -> Streamed:
        """Say something; raises RuntimeError where the answer does not come to its end."""
        self._messages.append({"role": "user", "content": text})
        body = {
            "model": self._model,
            "max_tokens": 1024,
            "stream": True,
            "messages": self._messages,
        }
        begun, first = time.perf_counter(), 0.0
        told = bytearray()
        async with asyncio.timeout(_TIMEOUT), begin(self._http, self._url, body) as response:
            async for chunk in response.content.iter_any():
                looked_at = max(0, len(told) - len(_TEXT))
                told += chunk
                if not first and told.find(_TEXT, looked_at) >= 0:
                    first = time.perf_counter() - begun
            whole = time.perf_counter() - begun
            session = response.headers.get("x-session-id", "")
        if response.status != 200 or _END not in told:
            raise RuntimeError(f"an answer failed ({response.status}): {bytes(told[-500:])!r}")
        answer = _text_of(told)
        self._messages.append({"role": "assistant", "content": answer})
        return Streamed(first, whole, told.count(_DELTA), answer, session)


def _text_of(told: bytearray) -> str:
    said = (line.removeprefix(b"data: ") for line in told.splitlines() if _TEXT in line)
    return "".join(event.delta.text for event in map(_event.decode, said) if event.delta)
