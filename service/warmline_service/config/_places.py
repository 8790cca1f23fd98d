"""Settings of what the service connects to, and of where it keeps things."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, IPvAnyNetwork, SecretStr, StringConstraints, model_validator

from warmline_service.config._base import MIB, Seconds, Section
from warmline_service.config._issuers import is_trusted_url


class McpSettings(Section):
    """MCP servers of callers, to which the service connects."""

    allow_networks: tuple[IPvAnyNetwork, ...] = Field(
        (),
        description="Networks that they may be in beside the public internet, such as `10.1.0.0/16`.",
    )
    allow_http: bool = Field(False, description="They may be reached without TLS.")
    ca_file: Path | None = Field(
        None, description="PEM file with the CAs that are trusted. Default: the system's."
    )
    connect_timeout: Seconds = Field(10.0, description="Seconds to connect and to learn the tools.")
    call_timeout: Seconds = Field(300.0, description="The longest call of a tool.")
    message_bytes: int = Field(
        16 * MIB, ge=64 * 1024, le=60 * MIB, description="One answer of a server; 1 MiB for `sse`."
    )
    connections_per_tenant: int = Field(
        64, ge=1, le=10_000, description="Connections of one tenant, which its sessions share."
    )
    idle_ttl: Seconds = Field(
        300.0, description="A connection that no session uses is kept so long."
    )


class OAuthSettings(Section):
    """Where stored OAuth tokens are renewed; without it an expired one has to be stored again."""

    token_url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s?#]{1,500}$")] = Field(
        description="The token endpoint of the authorization server; by https."
    )
    client_id: Annotated[str, StringConstraints(pattern=r"^[!-~]{1,200}$")] = Field(
        description="The client that the tokens were given to."
    )
    encoding: Literal["form", "json"] = Field(
        "form", description="What it is asked in: `form` as RFC 6749 has it, or `json`."
    )

    @model_validator(mode="after")
    def _https(self) -> Self:
        if not is_trusted_url(self.token_url):
            raise ValueError("token_url: must be https, or on this machine")
        return self


ProviderKind = Literal["loopback", "anthropic"]


class ProviderSettings(Section):
    """Where model requests go."""

    kind: ProviderKind = Field(
        "anthropic",
        description="`loopback` is the built-in model; `anthropic` whatever speaks its Messages API.",
    )
    base_url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s?#]+$")] = Field(
        "https://api.anthropic.com", description="Only for `anthropic`."
    )
    api_key: SecretStr | None = Field(
        None,
        description="The operator's credential. Default: ANTHROPIC_API_KEY in the service's environment.",
    )
    api_key_file: Path | None = Field(None, description="The same, from a file.")
    caller_credentials: bool = Field(
        False,
        description="Sessions may bring a credential of their own in place of the operator's.",
    )
    caller_tenants: bool = Field(
        False,
        description=(
            "Callers may show a credential of the provider in place of a key of this service: it pays for "
            "their sessions, and is who they are. Needs `caller_credentials`."
        ),
    )
    stored_credentials: bool = Field(
        False,
        description=(
            "The service may start without a credential of its own, also before any is stored: its tenants "
            "use those that are stored for them."
        ),
    )
    oauth: OAuthSettings | None = None
    connect_timeout: Seconds = Field(10.0, description="Seconds to connect.")
    read_timeout: Seconds = Field(
        600.0, description="Seconds without a byte before a model request is given up."
    )

    @model_validator(mode="after")
    def _pays(self) -> Self:
        if self.caller_tenants and not self.caller_credentials:
            raise ValueError("caller_tenants needs caller_credentials")
        return self


class ModelPrice(Section):
    """What a model costs, in US dollars for a million tokens."""

    input: float = Field(0.0, ge=0, le=10_000, description="Tokens read.")
    output: float = Field(0.0, ge=0, le=10_000, description="Tokens written.")
    cache_read: float = Field(0.0, ge=0, le=10_000, description="Tokens read from the cache.")
    cache_creation: float = Field(0.0, ge=0, le=10_000, description="Tokens written to the cache.")


# List prices, as the CLI 2.1.329 computes with them.
_PRICES = {
    "claude-fable-5-2": ModelPrice(input=8, output=40, cache_read=0.2, cache_creation=10),
    "claude-opus-5-5": ModelPrice(input=4, output=20, cache_read=0.2, cache_creation=5),
    "claude-sonnet-5-5": ModelPrice(input=2, output=10, cache_read=0.1, cache_creation=2.5),
    "claude-haiku-5-5": ModelPrice(input=0.1, output=0.5, cache_read=0.01, cache_creation=0.125),
}


class ModelSettings(Section):
    """Which models callers may name beside those that the CLI knows."""

    default: str = Field(
        "default", description="The model of sessions that name none: an id or alias."
    )
    extra: tuple[str, ...] = Field(
        (), description="Ids that are allowed beside the CLI's own list."
    )
    prices: dict[str, ModelPrice] = Field(
        _PRICES,
        description="By model id, for budgets; a model without one counts as the dearest that has one.",
    )


class TlsSettings(Section):
    """TLS of the gRPC port; with `client_ca` a client must show a certificate."""

    certificate: Path = Field(description="PEM file with the server's certificate chain.")
    key: Path = Field(description="PEM file with its private key.")
    client_ca: Path | None = Field(
        None, description="PEM file with the CA of client certificates: turns on mTLS."
    )


class VaultSettings(Section):
    """How secrets of callers are kept."""

    key_file: Path | None = Field(
        None,
        description=(
            "The master key, 32 bytes in hex, and in further lines those before it; services on one "
            "database need the same. Default: one made in `data_dir`."
        ),
    )
    key_variable: Annotated[str, StringConstraints(pattern=r"^[A-Z_][A-Z0-9_]*$")] | None = Field(
        None, description="The variable of the environment that has it instead."
    )
    key_command: tuple[str, ...] = Field(
        (),
        description="A command that prints it instead, such as one that asks a KMS; run once, by no shell.",
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(map(bool, (self.key_file, self.key_variable, self.key_command))) > 1:
            raise ValueError("only one of key_file, key_variable and key_command can be set")
        return self


class StoreSettings(Section):
    """Where sessions, their events and their content are kept."""

    url: SecretStr | None = Field(
        None,
        description="`postgresql://USER:PASSWORD@HOST/DATABASE`. Default: SQLite, in `data_dir`.",
    )
    blob_url: str = Field(
        "",
        description="Where large content is kept, such as `s3://BUCKET/PREFIX`. Default: in `data_dir`.",
    )
    spill_bytes: int = Field(
        64 * 1024,
        ge=1024,
        le=16 * MIB,
        description="Content above it is kept outside the database.",
    )
    pending_bytes: int = Field(
        64 * MIB, ge=1 * MIB, description="Events that wait in memory while the store is down."
    )
    outage_grace: Seconds = Field(
        30.0, description="Running turns go on so long while the store is down; then they fail."
    )
    lease_ttl: Seconds = Field(
        6.0, description="A service that says nothing for so long has lost its sessions to others."
    )


class RetentionSettings(Section):
    """How long what is stored is kept. 0: for ever."""

    events_days: float = Field(
        30.0, ge=0, le=36500, description="Days that the events of a turn are kept after its end."
    )
    sessions_days: float = Field(
        365.0, ge=0, le=36500, description="Days that an unused session is kept."
    )
    tenant_bytes: int = Field(
        0, ge=0, description="Events of one tenant; with more, those of its oldest turns go."
    )
    keys_hours: float = Field(
        48.0, ge=24, le=8760, description="Hours that an idempotency key is remembered."
    )


class LogSettings(Section):
    """What the service writes about itself, to stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least level that is written."
    )
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto`: console on a terminal, otherwise JSON lines."
    )
