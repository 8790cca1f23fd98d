"""Every setting, its default and its check: a TOML file, then `WARMLINE_*`, then command-line flags."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    DirectoryPath,
    Field,
    IPvAnyNetwork,
    SecretStr,
    StringConstraints,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

MIB = 1024 * 1024

Seconds = Annotated[float, Field(gt=0, le=7 * 24 * 3600)]
Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Sha256Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Section(BaseModel):
    """A table of the settings file; an unknown key is an error, not a typo that nobody sees."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CliSettings(_Section):
    """The CLI binary and how one process of it is treated."""

    path: Path | None = Field(
        None,
        description="The CLI binary. Default: the one in claude-agent-sdk, then `claude` on PATH.",
    )
    start_timeout: Seconds = Field(30.0, description="Seconds from spawn to the first answer.")
    control_timeout: Seconds = Field(
        10.0, description="Seconds for the answer to a control request."
    )
    interrupt_timeout: Seconds = Field(
        5.0,
        description="Seconds for a turn to end after an interrupt, before its process is replaced.",
    )
    stop_timeout: Seconds = Field(2.0, description="Seconds for each rung of stopping a process.")
    max_line_bytes: int = Field(
        64 * MIB,
        ge=1 * MIB,
        le=256 * MIB,
        description="A longer line from the CLI ends its process.",
    )
    stderr_bytes: int = Field(
        16 * 1024,
        ge=1024,
        le=1 * MIB,
        description="How much of the CLI's last stderr is kept for the report of a crash.",
    )
    plugins: dict[Id, DirectoryPath] = Field(
        {}, description="Plugins that sessions may have: directories by name, as `[cli.plugins]`."
    )
    nice: int = Field(
        10, ge=0, le=19, description="Lower priority of CLI processes; 0: that of the service."
    )
    max_retries: int = Field(
        4, ge=0, le=10, description="How often the CLI retries a failed model request."
    )


class PoolSettings(_Section):
    """How many processes there are and how long they live."""

    max_processes: int = Field(
        0, ge=0, le=10_000, description="At most so many processes; 0: from the memory budget."
    )
    memory_budget_bytes: int = Field(
        0, ge=0, description="Memory for all processes; 0: 60 % of what the machine has available."
    )
    process_estimate_bytes: int = Field(
        250 * MIB, ge=1 * MIB, description="What a process is counted as until it is measured."
    )
    process_limit_bytes: int = Field(
        1024 * MIB, ge=64 * MIB, description="A process above it is replaced after its turn."
    )
    min_spares: int = Field(
        1, ge=0, le=1000, description="Spares kept of each kind when nobody comes."
    )
    max_spares: int = Field(4, ge=0, le=1000, description="Spares kept of each kind at the most.")
    bare_spares: bool = Field(
        False, description="Keep spares for sessions with the bare profile as well."
    )
    warm_up: bool = Field(
        True, description="Warm spares up, for nothing: a side question, or a turn that is cleared."
    )
    max_starting: int = Field(2, ge=1, le=100, description="Processes starting at once.")
    max_waiting: int = Field(
        256,
        ge=0,
        le=100_000,
        description="Callers waiting for a process at once, over all tenants.",
    )
    max_waiting_per_tenant: int = Field(
        64, ge=0, le=100_000, description="The same for one tenant."
    )
    acquire_timeout: Seconds = Field(
        30.0, description="The longest wait for a process where the call's own deadline is later."
    )
    idle_ttl: Seconds = Field(300.0, description="An idle session's process is kept so long.")
    max_age: Seconds = Field(
        4 * 3600.0, description="An idle process older than this (less up to 10 %) is replaced."
    )
    ping_after: Seconds = Field(
        30.0, description="An idle process is pinged when unused for so long."
    )
    start_backoff: Seconds = Field(
        1.0, description="The first wait after a failed start; doubles up to 60 s."
    )


class LimitSettings(_Section):
    """Bounds on what callers may ask for."""

    message_bytes: int = Field(
        32 * MIB, ge=1024, le=60 * MIB, description="One message in either direction."
    )
    metadata_bytes: int = Field(
        16 * 1024, ge=4096, le=256 * 1024, description="All metadata of a call."
    )
    streams_per_connection: int = Field(
        1000, ge=1, le=100_000, description="Concurrent calls on one connection."
    )
    streams_per_tenant: int = Field(
        2000, ge=1, le=1_000_000, description="Open streams of one tenant."
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
            "Whether callers may bring what runs as a command on this machine, as the service's user: "
            "hooks, plugins and MCP servers of their own, settings in a workspace."
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


class McpSettings(_Section):
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


class VaultSettings(_Section):
    """How secrets of callers are kept."""

    key_file: Path | None = Field(
        None,
        description=(
            "The key, 32 bytes in hex; services on one database need the same. "
            "Default: one made in `data_dir`."
        ),
    )


class StoreSettings(_Section):
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


class RetentionSettings(_Section):
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


class TlsSettings(_Section):
    """TLS of the gRPC port; with `client_ca` a client must show a certificate."""

    certificate: Path = Field(description="PEM file with the server's certificate chain.")
    key: Path = Field(description="PEM file with its private key.")
    client_ca: Path | None = Field(
        None, description="PEM file with the CA of client certificates: turns on mTLS."
    )


class ProviderSettings(_Section):
    """Where model requests go."""

    kind: Literal["loopback", "anthropic"] = Field(
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
    connect_timeout: Seconds = Field(10.0, description="Seconds to connect.")
    read_timeout: Seconds = Field(
        600.0, description="Seconds without a byte before a model request is given up."
    )


class ModelSettings(_Section):
    """Which models callers may name beside those that the CLI knows."""

    default: str = Field(
        "default", description="The model of sessions that name none: an id or alias."
    )
    extra: tuple[str, ...] = Field(
        (), description="Ids that are allowed beside the CLI's own list."
    )


class ApiKeySettings(_Section):
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


class TenantSettings(_Section):
    """One tenant and its keys."""

    id: Id = Field(description="Its name in logs and metrics.")
    keys: tuple[ApiKeySettings, ...] = Field((), description="Its API keys.")


class LogSettings(_Section):
    """What the service writes about itself, to stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least level that is written."
    )
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto`: console on a terminal, otherwise JSON lines."
    )


class Settings(BaseSettings):
    """The whole configuration."""

    model_config = SettingsConfigDict(
        env_prefix="WARMLINE_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    listen: Annotated[
        str, StringConstraints(pattern=r"^(\[[0-9a-fA-F:]+\]|[^\s:\[\]]+):\d{1,5}$")
    ] = Field("127.0.0.1:50051", description="HOST:PORT of the gRPC port; port 0 takes a free one.")
    data_dir: Path = Field(
        Path("~/.local/share/warmline"),
        description="Where slots, the database and large content live; made if missing, private.",
    )
    drain_grace: Seconds = Field(30.0, description="Seconds that running turns get at SIGTERM.")
    cli: CliSettings = CliSettings()
    pool: PoolSettings = PoolSettings()
    limits: LimitSettings = LimitSettings()
    tls: TlsSettings | None = None
    provider: ProviderSettings = ProviderSettings()
    models: ModelSettings = ModelSettings()
    mcp: McpSettings = McpSettings()
    vault: VaultSettings = VaultSettings()
    store: StoreSettings = StoreSettings()
    retention: RetentionSettings = RetentionSettings()
    tenants: tuple[TenantSettings, ...] = ()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _port(self) -> Self:
        if int(self.listen.rpartition(":")[2]) > 65535:
            raise ValueError(f"listen: {self.listen!r} has no port from 0 to 65535")
        return self

    @model_validator(mode="after")
    def _unique(self) -> Self:
        ids = [tenant.id for tenant in self.tenants]
        keys = [key.id for tenant in self.tenants for key in tenant.keys]
        for what, names in (("tenant", ids), ("key", keys)):
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise ValueError(f"{what} id given twice: {', '.join(sorted(twice))}")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags win over the environment, the environment over the file."""
        del dotenv_settings, file_secret_settings
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls))


def load(path: Path | None = None, **overrides: object) -> Settings:
    """Read the settings.

    `path` is a TOML file, `overrides` win over everything. Raises `pydantic.ValidationError`, which
    names each bad setting, and `OSError` where the file cannot be read.
    """
    if path is not None:
        with path.open("rb"):
            pass  # TomlConfigSettingsSource passes over a missing file; a named one must be there.

    class _FileSettings(Settings):
        model_config = SettingsConfigDict(toml_file=path)

    return _FileSettings(**overrides)  # type: ignore[arg-type]  # pydantic checks them
