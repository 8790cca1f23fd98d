"""`/v1/chat/ws`: the Chat RPC as JSON frames, both ways."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import structlog
from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect
from warmline.v1 import chat_service_pb2 as pb

from warmline_http._call import Call, call_of
from warmline_http._failure import Failure
from warmline_http._link import Chat
from warmline_http._shapes import Shape, body_of
from warmline_http.chat._frames import (
    NOTHING,
    HalfClose,
    close_code_of,
    request_of,
    response_of,
)
from warmline_http.chat._subprotocol import NAME, identified

_log = structlog.get_logger(__name__)

router = APIRouter(tags=["chat"])

_NORMAL = 1000
# What a close frame takes.
_REASON_BYTES = 123


@router.websocket("/v1/chat/ws")
async def chat(socket: WebSocket) -> None:
    """The Chat RPC: a frame is a `ChatRequest`, or a `ChatResponse` on the way back, as protobuf JSON."""
    await _Talk(socket, call_of(socket)).run()


class _Talk:
    """One connection, from its handshake to its close frame."""

    def __init__(self, socket: WebSocket, call: Call) -> None:
        self._socket = socket
        self._call = call
        self._sending = asyncio.Lock()
        self._said = 0.0

    async def run(self) -> None:
        """Serve it; how it ends is told to whoever is still there."""
        offered = self._socket.scope["subprotocols"]
        request_id = (b"x-request-id", self._call.request_id.encode())
        await self._socket.accept(NAME if NAME in offered else None, [request_id])
        try:
            await self._serve(identified(self._call, offered))
        except WebSocketDisconnect:
            return
        except Failure as failure:
            await self._refuse(failure)
        except Exception as error:  # noqa: BLE001  # whoever waits must learn of it
            _log.error("socket failed", request_id=self._call.request_id, exc_info=error)
            await self._refuse(Failure.fault(self._call.request_id))
        else:
            await self._close(_NORMAL, "done")

    async def _serve(self, call: Call) -> None:
        opening = await self._opening()
        chat, first = await call.chat(opening)
        try:
            await self._say(await response_of(first))
            await self._converse(chat)
        finally:
            chat.close()

    async def _opening(self) -> pb.Open:
        seconds = self._call.settings.read_timeout
        try:
            async with asyncio.timeout(seconds):
                frame = await self._hear()
        except TimeoutError:
            text = f"There was no `open` within {seconds:g} s."
            raise Failure(400, "FRAME_OUT_OF_ORDER", text) from None
        if isinstance(frame, HalfClose) or not frame.HasField("open"):
            raise Failure(400, "FRAME_OUT_OF_ORDER", "The first frame must be `open`.")
        return frame.open

    async def _converse(self, chat: Chat) -> None:
        """Read, write and show signs of life side by side, until the first of them ends."""
        tasks = {
            asyncio.create_task(self._read(chat)),
            asyncio.create_task(self._write(chat)),
            asyncio.create_task(self._beat()),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            # What the others fail with meanwhile follows from the first.
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    async def _read(self, chat: Chat) -> None:
        """Pass frames on; ends only by raising."""
        closed = False
        while True:
            frame = await self._hear()
            if closed:
                raise Failure(400, "FRAME_OUT_OF_ORDER", "Nothing may follow `halfClose`.")
            if isinstance(frame, HalfClose):
                closed = True
                await chat.half_close()
            else:
                await chat.send(frame)

    async def _write(self, chat: Chat) -> None:
        while events := await chat.read():
            await self._say(await response_of(events))

    async def _beat(self) -> None:
        """A page cannot see pings: without these it could not tell a lost connection from a quiet one."""
        loop, heartbeat = asyncio.get_running_loop(), self._call.settings.heartbeat
        while True:
            left = self._said + heartbeat - loop.time()
            if left > 0:
                await asyncio.sleep(left)
            else:
                await self._say(NOTHING)

    async def _hear(self) -> pb.ChatRequest | HalfClose:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        return await request_of(message.get("text"))

    async def _say(self, text: str) -> None:
        async with self._sending:
            await self._socket.send_text(text)
        self._said = asyncio.get_running_loop().time()

    async def _refuse(self, failure: Failure) -> None:
        body = msgspec.json.encode(body_of(Shape.OWN, failure, self._call.request_id))
        with contextlib.suppress(WebSocketDisconnect):
            await self._say(body.decode())
            await self._close(close_code_of(failure), failure.reason)

    async def _close(self, code: int, reason: str) -> None:
        with contextlib.suppress(WebSocketDisconnect):
            await self._socket.close(code, reason[:_REASON_BYTES])
