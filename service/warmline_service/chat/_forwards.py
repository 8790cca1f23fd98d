"""What a session's process asks of its MCP servers, on its way there and back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from warmline_service.mcp import (
    INTERNAL_ERROR,
    Cancelled,
    Connection,
    Forward,
    Refused,
    Reply,
    Unreachable,
    failed_tool,
    failure,
    heard,
    nothing,
    result,
)
from warmline_service.worker import CliProcess, ControlRequest, repair

# What a process may ask at once.
_MOST = 64
_LETTERS = 2048


@dataclass(eq=False)
class _Call:
    process: CliProcess
    request_id: str
    server: str
    message_id: str | int | None
    task: asyncio.Task[None]


class Forwards:
    """Calls under way; each is answered once, or its process waits for it no more."""

    def __init__(self) -> None:
        self._calls: set[_Call] = set()

    def take(
        self, process: CliProcess, question: ControlRequest, name: str, connection: Connection
    ) -> None:
        """Answer a message of a process to a server, or ask the server."""
        message = repair(bytes(question.request.message))
        request, reply = heard(name, message, connection.state)
        if isinstance(reply, Cancelled):
            cancels = reply.id
            self._cancel(lambda call: (call.server, call.message_id) == (name, cancels), process)
            send(process, question.request_id, nothing())
        elif not isinstance(reply, Forward):
            send(process, question.request_id, reply)
        elif len(self._calls) >= _MOST:
            busy = _unreachable(name, request.id, reply.method, "too much is asked of it at once")
            send(process, question.request_id, busy)
        else:
            asking = _ask(process, question.request_id, name, request.id, reply, connection)
            task = asyncio.create_task(asking)
            call = _Call(process, question.request_id, name, request.id, task)
            self._calls.add(call)
            task.add_done_callback(lambda _: self._calls.discard(call))

    def withdraw(self, process: CliProcess, request_id: str) -> None:
        """The process waits for this answer no more."""
        self._cancel(lambda call: call.request_id == request_id, process)

    def end(self) -> None:
        """Nobody waits for any of them."""
        self._cancel(lambda call: True, None)

    def _cancel(self, meant: Callable[[_Call], bool], process: CliProcess | None) -> None:
        for call in tuple(self._calls):
            if process in (None, call.process) and meant(call):
                call.task.cancel()


async def _ask(
    process: CliProcess,
    question_id: str,
    name: str,
    message_id: str | int | None,
    forward: Forward,
    connection: Connection,
) -> None:
    try:
        found = await connection.request(forward.method, forward.params)
        reply = result(message_id, found)
    except Refused as error:
        reply = failure(message_id, error.code, error.message[:_LETTERS])
    except Unreachable as error:
        reply = _unreachable(name, message_id, forward.method, str(error))
    except asyncio.CancelledError:
        # The process may go on to another turn: nothing in it must wait for ever.
        send(process, question_id, _unreachable(name, message_id, forward.method, "it was stopped"))
        raise
    send(process, question_id, reply)


def _unreachable(name: str, message_id: str | int | None, method: str, why: str) -> Reply:
    text = f"The MCP server {name} cannot be used: {why}."
    if method == "tools/call":
        return failed_tool(message_id, text)
    return failure(message_id, INTERNAL_ERROR, text)


def send(process: CliProcess, request_id: str, reply: Reply) -> None:
    """Answer a message of a process to an MCP server."""
    process.answer(request_id, {"mcp_response": reply})
