"""SessionService on the wire."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

from warmline.v1 import session_service_pb2 as pb
from warmline.v1 import session_service_pb2_grpc as pb_grpc

from warmline_service.chat import Conversations
from warmline_service.errors import Reason, WarmlineError, field_invalid
from warmline_service.rpc._deserialize import checked
from warmline_service.rpc._interceptors import principal
from warmline_service.rpc._parse import key_of, session_id_of, turn_id_of
from warmline_service.rpc._parse_answers import decision_of
from warmline_service.rpc._parse_config import config_of
from warmline_service.rpc._parse_credential import drop_shown, paid_by
from warmline_service.rpc._parse_files import path_of
from warmline_service.rpc._session_wire import page_of, query_of, wire_session
from warmline_service.rpc._streaming import Context, StreamCount, accept
from warmline_service.rpc._transfer import pieces, receive
from warmline_service.rpc._wire import OUTCOME, wire_approval
from warmline_service.sessions import UserMessage, check_file, chunks_of, list_files
from warmline_service.store import SessionRow

_ANSWER_BYTES = 32 * 1024 * 1024


class SessionServicer(pb_grpc.SessionServiceServicer):
    """`SessionService` over the service's conversations."""

    def __init__(self, conversations: Conversations, streams: StreamCount) -> None:
        self._conversations = conversations
        self._copies = conversations.copies
        self._streams = streams

    async def GetSession(
        self, request: pb.GetSessionRequest, context: Context
    ) -> pb.GetSessionResponse:
        """One session."""
        del context
        row = await self._row(request)
        session = self._session(row)
        if (live := self._conversations.at_work(row.id)) is not None:
            for asked in live.approvals:
                wire_approval(session.open_approvals.add(), asked)
        return pb.GetSessionResponse(session=session)

    async def ListSessions(
        self, request: pb.ListSessionsRequest, context: Context
    ) -> pb.ListSessionsResponse:
        """A page of the tenant's sessions."""
        del context
        checked(request)
        tenant = principal().tenant
        query = query_of(request)
        rows, token = page_of(await self._conversations.sessions(tenant, query), query)
        return pb.ListSessionsResponse(sessions=map(self._session, rows), next_page_token=token)

    async def ForkSession(
        self, request: pb.ForkSessionRequest, context: Context
    ) -> pb.ForkSessionResponse:
        """A new session with another's conversation."""
        del context
        row = await self._row(request)
        turn_id = turn_id_of(request.turn_id, "turn_id")
        key = key_of(request.idempotency_key, "idempotency_key")
        content = hashlib.sha256(f"fork:{row.id}:{turn_id}".encode()).hexdigest()
        fork = await self._copies.fork(row.tenant, row.id, turn_id, key, content)
        return pb.ForkSessionResponse(session=self._session(fork))

    async def DeleteSession(
        self, request: pb.DeleteSessionRequest, context: Context
    ) -> pb.DeleteSessionResponse:
        """Remove a session for good."""
        del context
        await self._conversations.remove(await self._row(request))
        return pb.DeleteSessionResponse()

    async def InterruptTurn(
        self, request: pb.InterruptTurnRequest, context: Context
    ) -> pb.InterruptTurnResponse:
        """Stop the running turn."""
        del context
        row = await self._row(request)
        outcome, turn_id = await self._conversations.interrupt(row)
        return pb.InterruptTurnResponse(outcome=OUTCOME[outcome], turn_id=turn_id)

    async def AnswerApproval(
        self, request: pb.AnswerApprovalRequest, context: Context
    ) -> pb.AnswerApprovalResponse:
        """Answer what a session asked."""
        del context
        row = await self._row(request)
        approval_id, decision = decision_of(request.decision, "decision", _ANSWER_BYTES)
        await self._conversations.decide(row, approval_id, decision)
        return pb.AnswerApprovalResponse()

    async def ListFiles(
        self, request: pb.ListFilesRequest, context: Context
    ) -> pb.ListFilesResponse:
        """The files in a session's workspace."""
        del context
        row = await self._row(request)
        out = pb.ListFilesResponse()
        async with self._copies.files(row) as folder:
            found = await asyncio.to_thread(list_files, folder) if folder is not None else []
        for file in found:
            each = out.files.add(path=file.path, size=file.size)
            each.modify_time.FromNanoseconds(int(file.modified * 1e9))
        return out

    async def ReadFile(  # type: ignore[override]  # reader/writer style; the stub knows iterators only
        self, request: pb.ReadFileRequest, context: Context
    ) -> None:
        """One file of a session's workspace."""
        async with self._streams.one_more():
            row = await self._row(request)
            path = path_of(request.path, "path")
            async with self._copies.files(row) as folder:
                if folder is None:
                    raise WarmlineError(Reason.FILE_NOT_FOUND, "The session has no files.")
                place = await asyncio.to_thread(check_file, folder, path)
                chunks = chunks_of(place)
                while chunk := await asyncio.to_thread(next, chunks, b""):
                    await context.write(pb.ReadFileResponse(data=chunk))

    async def ExportSession(  # type: ignore[override]  # reader/writer style; the stub knows iterators only
        self, request: pb.ExportSessionRequest, context: Context
    ) -> None:
        """A session as it can be taken elsewhere."""
        async with self._streams.one_more():
            row = await self._row(request)
            workspace = not request.without_workspace
            async with self._copies.exported(row, workspace=workspace) as export:
                await context.write(pb.ExportSessionResponse(session=self._session(export.row)))
                async for part in pieces(export):
                    await context.write(part)

    async def ImportSession(
        self, request_iterator: object, context: Context
    ) -> pb.ImportSessionResponse:
        """A new session from an export."""
        del request_iterator
        async with self._streams.one_more() as tenant:
            # Callers wait for it before they send: a refusal while they do reaches them garbled.
            await accept(context)
            row = await self._imported(tenant, context)
        return pb.ImportSessionResponse(session=self._session(row))

    async def _imported(self, tenant: str, context: Context) -> SessionRow:
        async with self._copies.scratch() as path:
            received = await receive(context, path)
            given = received.session.config
            drop_shown(principal(), given)
            config = await asyncio.to_thread(config_of, given, "session.config", existing=False)
            config = paid_by(principal(), config)
            return await self._copies.import_(
                tenant,
                config,
                # A caller's text: made one line, as that of a message is.
                UserMessage(received.session.title).title,
                received.transcript,
                path if received.has_workspace else None,
            )

    async def _row(self, request: Any) -> SessionRow:
        """The session that a request names, if it is the caller's."""
        checked(request)
        session_id = session_id_of(request.session_id, "session_id")
        if not session_id:
            raise field_invalid("session_id", "must be set")
        return await self._conversations.session(principal().tenant, session_id)

    def _session(self, row: SessionRow) -> pb.Session:
        live = self._conversations.at_work(row.id)
        if live is None:
            return wire_session(row, pb.SESSION_STATE_PARKED, row.last_seq)
        state = pb.SESSION_STATE_HOT if live.hot else pb.SESSION_STATE_PARKED
        if live.running:
            state = pb.SESSION_STATE_DEFERRED if live.deferred else pb.SESSION_STATE_RUNNING
        return wire_session(row, state, live.session.stored)
