"""The calls of SessionService."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import grpc
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import session_service_pb2 as pb
from warmline.v1 import session_service_pb2_grpc as pb_grpc

from warmline_client._backoff import Backoff
from warmline_client._call import passes
from warmline_client._errors import WarmlineError, from_rpc_error
from warmline_client._export_file import read_export, write_export
from warmline_client._moment import timestamp_of

_TIMEOUT = 30.0
# What may have to stop a process first, or to copy the files of a session.
_LONG_TIMEOUT = 300.0
_RETRY_TIMEOUT = 30.0


class SessionCalls:
    """What a client can do with sessions outside of a conversation.

    Everything raises WarmlineError. What can be repeated without harm is tried again for `retry_timeout`
    seconds (0: not at all) while the service or the way to it is down.
    """

    def __init__(
        self, channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...] = ()
    ) -> None:
        self._metadata = metadata
        # Its types are those of the blocking API.
        self._sessions: Any = pb_grpc.SessionServiceStub(channel)

    async def sessions(
        self,
        *,
        order_by: str = "",
        contains: str = "",
        forked_from: str = "",
        updated_after: datetime | None = None,
        updated_before: datetime | None = None,
        page_size: int = 0,
        retry_timeout: float = _RETRY_TIMEOUT,
    ) -> AsyncIterator[pb.Session]:
        """The tenant's sessions, all pages of them; the one that was used last comes first.

        `order_by` is `update_time` or `create_time`, with ` desc` for the latest first. `contains` is a
        part of the title, `forked_from` a session's id; a time without a zone is in UTC.
        """
        wanted = pb.SessionFilter(
            title_contains=contains,
            forked_from_session_id=forked_from,
            updated_after=timestamp_of(updated_after),
            updated_before=timestamp_of(updated_before),
        )
        request = pb.ListSessionsRequest(page_size=page_size, filter=wanted, order_by=order_by)
        while True:
            response = await self._repeated("ListSessions", request, retry_timeout)
            for session in response.sessions:
                yield session
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    async def session(
        self, session_id: str, *, retry_timeout: float = _RETRY_TIMEOUT
    ) -> pb.Session:
        """One session, as it is at this moment."""
        request = pb.GetSessionRequest(session_id=session_id)
        response = await self._repeated("GetSession", request, retry_timeout)
        return _session_in(response)

    async def fork(
        self,
        session_id: str,
        turn_id: str = "",
        key: str = "",
        *,
        retry_timeout: float = _RETRY_TIMEOUT,
    ) -> pb.Session:
        """A new session with another's conversation up to a turn, by default its last that has ended.

        `key` is the fork's idempotency key: the same call again under it gives the same fork.
        """
        request = pb.ForkSessionRequest(
            session_id=session_id, turn_id=turn_id, idempotency_key=key or str(uuid.uuid4())
        )
        response = await self._repeated(
            "ForkSession", request, retry_timeout, timeout=_LONG_TIMEOUT
        )
        return _session_in(response)

    async def delete(self, session_id: str, *, retry_timeout: float = _RETRY_TIMEOUT) -> None:
        """Remove a session for good; a running turn is stopped first."""
        request = pb.DeleteSessionRequest(session_id=session_id)
        # Found no more at a repetition, it was removed by the call whose answer was lost.
        await self._repeated(
            "DeleteSession",
            request,
            retry_timeout,
            timeout=_LONG_TIMEOUT,
            done="SESSION_NOT_FOUND",
        )

    async def interrupt(self, session_id: str) -> pb.InterruptTurnResponse:
        """Stop the running turn, and say what became of it.

        It is not tried again: it could stop the next turn.
        """
        request = pb.InterruptTurnRequest(session_id=session_id)
        response = await self._repeated("InterruptTurn", request, 0.0)
        assert isinstance(response, pb.InterruptTurnResponse)
        return response

    async def answer_approval(self, session_id: str, decision: chat_pb.ApprovalDecision) -> None:
        """Answer what a session asked, from outside its conversation.

        Raises APPROVAL_NOT_FOUND where nobody waits for it.
        """
        request = pb.AnswerApprovalRequest(session_id=session_id, decision=decision)
        await self._repeated("AnswerApproval", request, 0.0)

    async def files(self, session_id: str) -> list[pb.FileInfo]:
        """The files in a session's workspace. Raises SESSION_BUSY while a turn runs."""
        request = pb.ListFilesRequest(session_id=session_id)
        response = await self._repeated("ListFiles", request, 0.0)
        assert isinstance(response, pb.ListFilesResponse)
        return list(response.files)

    async def read_file(
        self, session_id: str, path: str, *, timeout: float | None = None
    ) -> AsyncGenerator[bytes, None]:
        """A file of a session's workspace, piece by piece. `timeout` in seconds bounds all of it."""
        request = pb.ReadFileRequest(session_id=session_id, path=path)
        call = self._sessions.ReadFile(request, metadata=self._metadata, timeout=timeout)
        try:
            async for response in call:
                yield response.data
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        finally:
            call.cancel()

    async def export(
        self, session_id: str, *, workspace: bool = True, timeout: float | None = None
    ) -> AsyncGenerator[pb.ExportSessionResponse, None]:
        """A session part by part, as `import_` takes it. `timeout` in seconds bounds all of it."""
        request = pb.ExportSessionRequest(session_id=session_id, without_workspace=not workspace)
        call = self._sessions.ExportSession(request, metadata=self._metadata, timeout=timeout)
        try:
            async for part in call:
                yield part
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        finally:
            call.cancel()

    async def export_to(
        self,
        session_id: str,
        file: Path | BinaryIO,
        *,
        workspace: bool = True,
        timeout: float | None = None,
    ) -> pb.Session:
        """Write a session into one file, a tar archive; gives what it is.

        It holds `session.json`, `transcript.jsonl` and, if there is one, `workspace.tar.zst`. A path has
        the whole file or is left as it was. Raises OSError where the file cannot be written.
        """
        async with aclosing(self.export(session_id, workspace=workspace, timeout=timeout)) as parts:
            return await write_export(parts, file)

    async def import_(
        self,
        parts: AsyncIterable[pb.ExportSessionResponse] | AsyncIterable[pb.ImportSessionRequest],
        *,
        timeout: float | None = None,
    ) -> pb.Session:
        """A new session from the parts of an export, in their order, which `export` of any client gives.

        It is not tried again: each import that succeeds makes a session.
        """
        call = self._sessions.ImportSession(metadata=self._metadata, timeout=timeout)
        try:
            # A refusal that comes while writing would reach us garbled: by this the service says that
            # it listens.
            if "x-request-id" in dict(await call.initial_metadata()):
                await _send(call, parts)
            return _session_in(await call)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        finally:
            call.cancel()

    async def import_from(
        self, file: Path | BinaryIO, *, timeout: float | None = None
    ) -> pb.Session:
        """A new session from a file that `export_to` has written.

        Raises OSError where the file cannot be read.
        """
        async with aclosing(read_export(file)) as parts:
            return await self.import_(parts, timeout=timeout)

    async def _repeated(
        self,
        method: str,
        request: Any,
        retry_timeout: float,
        *,
        timeout: float = _TIMEOUT,
        done: str = "",
    ) -> Any:
        """Call until there is an answer; None where a repetition fails for the reason `done`."""
        backoff, repetition = Backoff(retry_timeout), False
        while True:
            try:
                call = getattr(self._sessions, method)
                return await call(request, metadata=self._metadata, timeout=timeout)
            except grpc.aio.AioRpcError as failure:
                error = from_rpc_error(failure)
            if repetition and done and error.reason == done:
                return None
            if not (retry_timeout and passes(error) and await backoff.wait(error.retry_after)):
                raise error
            repetition = True


async def _send(
    call: Any,
    parts: AsyncIterable[pb.ExportSessionResponse] | AsyncIterable[pb.ImportSessionRequest],
) -> None:
    async for part in parts:
        try:
            await call.write(_request_of(part))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # It has been refused; the call itself says why.
    await call.done_writing()


def _request_of(
    part: pb.ExportSessionResponse | pb.ImportSessionRequest,
) -> pb.ImportSessionRequest:
    """What was exported, as it is imported."""
    if isinstance(part, pb.ImportSessionRequest):
        return part
    match part.WhichOneof("part"):
        case "session":
            return pb.ImportSessionRequest(session=part.session)
        case "transcript":
            return pb.ImportSessionRequest(transcript=part.transcript)
        case "workspace":
            return pb.ImportSessionRequest(workspace=part.workspace)
    raise WarmlineError.of(
        grpc.StatusCode.INVALID_ARGUMENT,
        "A part of the export is of a kind that is not known here.",
    )


def _session_in(response: Any) -> pb.Session:
    session = response.session
    assert isinstance(session, pb.Session)
    return session
