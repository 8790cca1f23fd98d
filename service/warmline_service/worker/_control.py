"""Control requests of ours: their ids, their pending answers, and what ends them."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import msgspec

from warmline_service.errors import Reason, WarmlineError
from warmline_service.worker._decode import repair
from warmline_service.worker._messages import ControlReply, JsonObject


class ControlRefused(WarmlineError):  # noqa: N818  # named for what the CLI did
    """The CLI answered a control request with an error; `error` is its sentence."""

    def __init__(self, subtype: str, error: str, code: str | None) -> None:
        super().__init__(Reason.INTERNAL, f"The CLI refused {subtype}: {error}")
        self.subtype = subtype
        self.error = error
        self.code = code


class PendingControls:
    """The control requests of one process that have no answer yet."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._pending: dict[str, tuple[str, asyncio.Future[JsonObject]]] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def open(self, subtype: str, fields: JsonObject) -> tuple[str, bytes]:
        """A new request: its id, and the line that asks it."""
        request_id = f"w{next(self._ids)}"
        future = asyncio.get_running_loop().create_future()
        self._pending[request_id] = (subtype, future)
        request = {"subtype": subtype, **fields}
        return request_id, encode_line(
            {"type": "control_request", "request_id": request_id, "request": request}
        )

    async def answer(self, request_id: str) -> JsonObject:
        """Wait for the answer; raises ControlRefused, or what `fail_all` was given.

        Call `forget` after it, however it ended.
        """
        return await self._pending[request_id][1]

    def forget(self, request_id: str) -> None:
        """Nobody will wait for this answer."""
        _, future = self._pending.pop(request_id, ("", None))
        if future is not None and not future.cancel() and not future.cancelled():
            future.exception()  # looked at, so that nothing is logged about it

    def settle(self, reply: ControlReply) -> None:
        """Hand an answer to whoever waits for it; one that nobody waits for is dropped."""
        subtype, future = self._pending.get(reply.request_id, ("", None))
        if future is None or future.done():
            return
        if reply.subtype == "success":
            future.set_result(_object(reply.response))
        else:
            future.set_exception(ControlRefused(subtype, reply.error, reply.error_code))

    def fail_all(self, error: WarmlineError) -> None:
        """No further answer will come."""
        for _, future in self._pending.values():
            if not future.done():
                future.set_exception(error)
                # Who has not come to wait yet still gets it; who never comes is no fault.
                future.exception()


def answer(request_id: str, response: JsonObject) -> bytes:
    """The line that answers a question of the CLI."""
    body = {"subtype": "success", "request_id": request_id, "response": response}
    return encode_line({"type": "control_response", "response": body})


def refusal(request_id: str, subtype: str) -> bytes:
    """The line that answers a question of the CLI which nobody here can answer."""
    error = f"{subtype or 'this'} is not supported here"
    return encode_line(
        {
            "type": "control_response",
            "response": {"subtype": "error", "request_id": request_id, "error": error},
        }
    )


def encode_line(value: Any) -> bytes:  # any JSON value
    """One line of JSON with its newline."""
    return msgspec.json.encode(value) + b"\n"


def _object(raw: msgspec.Raw) -> JsonObject:
    try:
        value = msgspec.json.decode(repair(bytes(raw)))
    except (msgspec.MsgspecError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
