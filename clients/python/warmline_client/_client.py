"""A connection to a service."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

# gRPC's fork support is of no use here and can break child processes; it is read at import.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import chat_service_pb2_grpc as chat_grpc
from warmline.v1 import events_pb2, model_service_pb2, usage_service_pb2
from warmline.v1 import model_service_pb2_grpc as model_grpc
from warmline.v1 import session_config_pb2 as config_pb
from warmline.v1 import usage_service_pb2_grpc as usage_grpc

from warmline_client._admin import AdminCalls
from warmline_client._ask import asked
from warmline_client._conversation import Conversation
from warmline_client._errors import from_rpc_error
from warmline_client._sessions import SessionCalls

_OPTIONS = [
    # Whole messages and tool results can be as large as the service's own limit.
    ("grpc.max_receive_message_length", 128 * 1024 * 1024),
    ("grpc.max_send_message_length", 128 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
]


def connect(
    target: str = "127.0.0.1:50051",
    *,
    api_key: str | None = None,
    tls: bool = False,
    ca_file: Path | None = None,
    certificate: tuple[Path, Path] | None = None,
) -> Client:
    """Connect to `HOST:PORT`; the connection is made at the first call.

    `tls` verifies the server by the system's roots, `ca_file` by that PEM file; `certificate` is the
    client's own chain and private key, for mTLS. `api_key` is sent with every call.
    """
    if tls or ca_file or certificate:
        chain, key = certificate or (None, None)
        credentials = grpc.ssl_channel_credentials(
            ca_file.read_bytes() if ca_file else None,
            key.read_bytes() if key else None,
            chain.read_bytes() if chain else None,
        )
        channel = grpc.aio.secure_channel(target, credentials, options=_OPTIONS)
    else:
        channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
    return Client(channel, api_key)


class Client(SessionCalls):
    """A connection; an async context manager that closes it. `admin` is for operators."""

    def __init__(self, channel: grpc.aio.Channel, api_key: str | None = None) -> None:
        super().__init__(channel, (("authorization", f"Bearer {api_key}"),) if api_key else ())
        self.admin = AdminCalls(channel, self._metadata)
        self._channel = channel
        self._chat = chat_grpc.ChatServiceStub(channel)
        self._models = model_grpc.ModelServiceStub(channel)
        self._usage = usage_grpc.UsageServiceStub(channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection; turns that run go on in the service."""
        await self._channel.close()

    def chat(
        self,
        *,
        session_id: str = "",
        model: str = "",
        system: str = "",
        append_system: str = "",
        detail: chat_pb.Detail.ValueType = chat_pb.DETAIL_BLOCKS,
        config: config_pb.SessionConfig | None = None,
        after: chat_pb.Cursor | None = None,
        fork: chat_pb.ForkFrom | None = None,
        continue_latest: bool = False,
        history: Sequence[chat_pb.HistoryMessage] = (),
        continuation: str = "",
        takeover: bool = False,
        interrupt_on_disconnect: bool = False,
        reconnect_timeout: float = 60.0,
    ) -> Conversation:
        """A conversation, as an async context manager.

        `session_id` goes on with a session, and `after` tells first what happened since that event;
        `continue_latest` goes on with the one that was used last; `fork` begins with another's
        conversation; `continuation` goes on with the session that has this name from a `checkpoint`, if
        there is one. Otherwise a new session, which may begin with a `history` from elsewhere, is set up
        by `config`, or by `model` and `system` (in place of the CLI's prompt) or `append_system` (after
        it). `takeover` takes a session from another stream. For `reconnect_timeout` seconds a lost
        connection is made again.
        """
        opening = chat_pb.Open(
            session_id=session_id,
            config=config or _config(model, system, append_system),
            detail=detail,
            after=after,
            fork=fork,
            continue_latest=continue_latest,
            history=history,
            continuation=continuation,
            takeover=takeover,
        )
        if interrupt_on_disconnect:
            opening.on_disconnect = chat_pb.ON_DISCONNECT_INTERRUPT

        def call() -> Any:
            return self._chat.Chat(metadata=self._metadata)

        return Conversation(call, opening, reconnect_timeout)

    async def ask(
        self,
        text: str,
        *,
        session_id: str = "",
        config: config_pb.SessionConfig | None = None,
        model: str = "",
        system: str = "",
        append_system: str = "",
        detail: chat_pb.Detail.ValueType = chat_pb.DETAIL_BLOCKS,
        key: str = "",
        timeout: float | None = None,
        reconnect_timeout: float = 60.0,
    ) -> AsyncIterator[events_pb2.Event]:
        """The events of one turn, each once; a session's set-up is as in `chat`.

        `key` is the message's idempotency key: asking again under it tells the same turn. `timeout` in
        seconds ends the call, not the turn. For `reconnect_timeout` seconds a lost connection is made
        again; no turn runs twice by that.
        """
        request = chat_pb.AskRequest(
            message=chat_pb.UserMessage(text=text, idempotency_key=key or str(uuid.uuid4())),
            session_id=session_id,
            config=config or _config(model, system, append_system),
            detail=detail,
        )
        async for event in asked(self._asking(request, timeout), reconnect_timeout):
            yield event

    def _asking(
        self, request: chat_pb.AskRequest, timeout: float | None
    ) -> Callable[[chat_pb.Cursor], Any]:
        def ask(after: chat_pb.Cursor) -> Any:
            request.after.CopyFrom(after)
            return self._chat.Ask(request, metadata=self._metadata, timeout=timeout)

        return ask

    async def watch(
        self,
        session_id: str,
        *,
        after: chat_pb.Cursor | None = None,
        kinds: Sequence[str] = (),
        detail: chat_pb.Detail.ValueType = chat_pb.DETAIL_BLOCKS,
        replay_only: bool = False,
    ) -> AsyncIterator[events_pb2.Event]:
        """What happens in a session, from the first event that is kept, or after one.

        `kinds` are names of fields of `Event.kind`; with `replay_only` it ends with what is there
        already. It does not connect again: go on with `after`.
        """
        request = chat_pb.WatchRequest(
            session_id=session_id,
            after=after,
            kinds=kinds,
            detail=detail,
            replay_only=replay_only,
        )
        try:
            async for response in self._chat.Watch(request, metadata=self._metadata):
                for event in response.events:
                    yield event
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error

    async def models(self) -> Sequence[model_service_pb2.Model]:
        """The models that the caller may use, the default first."""
        request = model_service_pb2.ListModelsRequest(page_size=1000)
        try:
            response = await self._models.ListModels(request, metadata=self._metadata, timeout=30)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return response.models

    async def usage(
        self, start_day: str = "", end_day: str = "", *, tenant_id: str = ""
    ) -> usage_service_pb2.GetUsageResponse:
        """What the caller's tenant has used, from one day (UTC) to another, by default in this month.

        A day is such as `2026-11-26`; `tenant_id` asks for another's, which needs the scope `admin`.
        """
        request = usage_service_pb2.GetUsageRequest(
            start_day=start_day, end_day=end_day, tenant_id=tenant_id
        )
        try:
            return await self._usage.GetUsage(request, metadata=self._metadata, timeout=30)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error


def _config(model: str, system: str, append_system: str) -> config_pb.SessionConfig:
    if system and append_system:
        raise ValueError("give `system` or `append_system`, not both")
    config = config_pb.SessionConfig(model=model)
    if system:
        config.system_prompt.replace = system
    elif append_system:
        config.system_prompt.append = append_system
    return config
