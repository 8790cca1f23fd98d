"""Settings that bound what callers may ask for, and who they are."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, StringConstraints, model_validator

from warmline_service.config._base import MIB, Id, Seconds, Section, Sha256Hex
from warmline_service.config._policy import TenantPolicy


class LimitSettings(Section):
    """Bounds on what callers may ask for."""

    message_bytes: int = Field(
        32 * MIB, ge=1024, le=60 * MIB, description="One message in either direction."
    )
    metadata_bytes: int = Field(
        16 * 1024, ge=4096, le=256 * 1024, description="All metadata of a call."
    )
    connections: int = Field(
        4000, ge=1, le=1_000_000, description="Connections to the gRPC port; more are closed."
    )
    streams_per_connection: int = Field(
        1000, ge=1, le=100_000, description="Concurrent calls on one connection."
    )
    streams_per_tenant: int = Field(
        2000, ge=1, le=1_000_000, description="Open streams of one tenant."
    )
    own_credential_streams: int = Field(
        200,
        ge=1,
        le=1_000_000,
        description="Open streams of all who show a credential of their own (`provider.caller_tenants`).",
    )
    sessions_per_tenant: int = Field(
        100_000, ge=1, le=10_000_000, description="Sessions of one tenant that are kept."
    )
    queued_messages: int = Field(
        16, ge=1, le=1000, description="Messages of one session that wait behind its running turn."
    )
    queued_bytes: int = Field(
        64 * MIB, ge=1024, description="Text of one session's messages that wait."
    )
    rates_url: SecretStr | None = Field(
        None,
        description=(
            "A Redis (`redis://`, `rediss://`, `redis+unix://`) in which services count requests together. "
            "Default: each counts its own."
        ),
    )
    open_timeout: Seconds = Field(30.0, description="Seconds for the first frame of a Chat.")
    flush_timeout: Seconds = Field(
        60.0, description="Seconds that a stream's reader gets for what waits at its end."
    )
    recent_bytes: int = Field(
        1 * MIB,
        ge=64 * 1024,
        description="A session's last events that are kept in memory for its streams.",
    )
    turn_timeout: Seconds = Field(
        3600.0, description="The longest turn, where the session sets none."
    )
    stall_timeout: Seconds = Field(
        300.0, description="The longest silence in a turn, where the session sets none."
    )
    forbidden_permission_modes: frozenset[
        Literal["plan", "acceptEdits", "dontAsk", "auto", "bypassPermissions"]
    ] = Field(frozenset(), description="Permission modes that no session may have.")
    caller_commands: bool = Field(
        False,
        description=(
            "Whether callers may bring what runs as a command on this machine: hooks, plugins and MCP "
            "servers of their own, settings in a workspace. It runs in the sandbox, if there is one."
        ),
    )
    approval_timeout: Seconds = Field(
        300.0, description="How long an approval is waited for, where the session sets nothing."
    )
    deferred_timeout: Seconds = Field(
        24 * 3600.0,
        description="The same for deferred approvals, with which no process has to wait.",
    )
    approval_park: Seconds = Field(
        60.0,
        description="A deferred approval keeps its turn's process so long before it is given up.",
    )
    keepalive_min_interval: Seconds = Field(
        10.0, description="Clients that ping more often are disconnected."
    )


Identity = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,512}$")]


class ApiKeySettings(Section):
    """One API key: `wl_<id>_<secret>`, of which only the hash is kept."""

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{4,32}$")] = Field(
        description="The id in the key."
    )
    sha256: Sha256Hex = Field(
        description="SHA-256 of the whole key, in hex; `warmline hash-key` prints it."
    )
    scopes: frozenset[Literal["chat", "read", "admin"]] = Field(
        frozenset({"chat", "read"}), description="What the key allows."
    )
    expires_at: datetime | None = Field(None, description="With a time zone. Not set: never.")

    @model_validator(mode="after")
    def _aware(self) -> Self:
        if self.expires_at is not None and self.expires_at.tzinfo is None:
            raise ValueError("expires_at needs a time zone, such as 2030-01-01T00:00:00Z")
        return self


class TenantSettings(Section):
    """One tenant and its keys."""

    id: Id = Field(description="Its name in logs and metrics.")
    keys: tuple[ApiKeySettings, ...] = Field((), description="Its API keys.")
    identities: tuple[Identity, ...] = Field(
        (),
        description=(
            "Client certificates that stand for it, with the scopes `chat` and `read`: a SPIFFE id or "
            "another URI, a DNS name or an e-mail address in them. Needs `tls.client_ca`."
        ),
    )
    policy: TenantPolicy = Field(
        TenantPolicy(), description="What it may have, where that is not as in `[policy]`."
    )
