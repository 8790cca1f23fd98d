"""The gRPC server: services, interceptors, options, TLS, health and reflection."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection
from warmline.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    audit_service_pb2,
    audit_service_pb2_grpc,
    chat_service_pb2,
    chat_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    session_service_pb2,
    session_service_pb2_grpc,
    usage_service_pb2,
    usage_service_pb2_grpc,
)

from warmline_service.audit import AuditLog
from warmline_service.chat import Conversations, ModelCatalog
from warmline_service.config import LimitSettings, Settings, TlsSettings
from warmline_service.quota import Quota
from warmline_service.rpc._admin import AdminServicer
from warmline_service.rpc._audit import AuditServicer
from warmline_service.rpc._call_audit import CallAudit
from warmline_service.rpc._chat import ChatServicer
from warmline_service.rpc._count import TokenCounter
from warmline_service.rpc._deserialize import TolerantDecoding
from warmline_service.rpc._interceptors import Authentication, Guard, RequestId
from warmline_service.rpc._models import ModelServicer
from warmline_service.rpc._open_calls import OpenCalls
from warmline_service.rpc._scopes import scopes_of
from warmline_service.rpc._sessions import SessionServicer
from warmline_service.rpc._streaming import StreamCount
from warmline_service.rpc._usage import UsageServicer
from warmline_service.tenants import Authenticator

_DESCRIPTORS = (
    admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"],
    audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"],
    chat_service_pb2.DESCRIPTOR.services_by_name["ChatService"],
    model_service_pb2.DESCRIPTOR.services_by_name["ModelService"],
    session_service_pb2.DESCRIPTOR.services_by_name["SessionService"],
    usage_service_pb2.DESCRIPTOR.services_by_name["UsageService"],
)
_SERVICES = tuple(service.full_name for service in _DESCRIPTORS)


@dataclass
class RpcServer:
    """The listening server; `port` is the one it got."""

    server: grpc.aio.Server
    health: health_aio.HealthServicer
    calls: OpenCalls
    port: int

    async def start(self) -> None:
        """Serve, and say so in health."""
        self.calls.start()
        await self.server.start()
        for name in ("", *_SERVICES):
            await self.health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def begin_drain(self) -> None:
        """Say NOT_SERVING, for good."""
        await self.health.enter_graceful_shutdown()

    async def stop(self, grace: float) -> None:
        """Close the port, and after `grace` seconds what is still open."""
        await self.server.stop(grace)
        await self.calls.aclose()


def build_server(
    settings: Settings,
    conversations: Conversations,
    catalog: ModelCatalog,
    authenticator: Authenticator,
    quota: Quota,
    admin: AdminServicer,
    audit: AuditLog,
    counter: TokenCounter,
    credentials: grpc.ServerCredentials | None,
    private: str,
) -> RpcServer:
    """Put the server together and bind its port; without credentials it speaks plain text.

    `private`, unless it is empty, is another address, which speaks plain text in any case.

    Raises OSError where the port cannot be had.
    """
    calls = OpenCalls(authenticator.changed)
    call_audit = CallAudit(audit)
    server = grpc.aio.server(
        interceptors=[
            TolerantDecoding(),
            RequestId(),
            Authentication(authenticator, scopes_of(_DESCRIPTORS), quota, call_audit),
            Guard(calls, call_audit),
        ],
        options=_options(settings.limits),
    )
    streams = StreamCount(quota)
    chat = ChatServicer(conversations, settings.limits, streams)
    models = ModelServicer(catalog, settings, quota, counter)
    health = health_aio.HealthServicer()
    admin_service_pb2_grpc.add_AdminServiceServicer_to_server(admin, server)
    audit_service_pb2_grpc.add_AuditServiceServicer_to_server(AuditServicer(audit.store), server)
    chat_service_pb2_grpc.add_ChatServiceServicer_to_server(chat, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(models, server)
    session_service_pb2_grpc.add_SessionServiceServicer_to_server(
        SessionServicer(conversations, streams), server
    )
    usage_service_pb2_grpc.add_UsageServiceServicer_to_server(UsageServicer(quota), server)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    reflection.enable_server_reflection(
        (*_SERVICES, "grpc.health.v1.Health", reflection.SERVICE_NAME), server
    )
    try:
        if credentials is None:
            port = server.add_insecure_port(settings.listen)
        else:
            port = server.add_secure_port(settings.listen, credentials)
        if private:
            server.add_insecure_port(private)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {settings.listen}: is the port taken?") from error
    return RpcServer(server, health, calls, port)


def _options(limits: LimitSettings) -> list[tuple[str, int]]:
    return [
        # A second server on the same port would silently take half of the connections.
        ("grpc.so_reuseport", 0),
        # Twice the limit, so that what is somewhat too large still gets an error that names it.
        ("grpc.max_receive_message_length", 2 * limits.message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", limits.metadata_bytes),
        ("grpc.absolute_max_metadata_size", 2 * limits.metadata_bytes),
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.max_concurrent_streams", limits.streams_per_connection),
        (
            "grpc.http2.min_ping_interval_without_data_ms",
            int(limits.keepalive_min_interval * 1000),
        ),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


def read_credentials(tls: TlsSettings) -> grpc.ServerCredentials:
    """The server's certificate, and the CA of its clients where they must show one.

    Blocks while it reads the files; raises OSError where it cannot.
    """
    ca = tls.client_ca.read_bytes() if tls.client_ca else None
    pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
    return grpc.ssl_server_credentials(
        [pair], root_certificates=ca, require_client_auth=ca is not None
    )
