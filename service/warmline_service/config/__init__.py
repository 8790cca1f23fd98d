"""Every setting, its default and its check: a TOML file, then `WARMLINE_*`, then command-line flags."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from warmline_service.config._audit import AuditSettings
from warmline_service.config._base import MIB, Seconds
from warmline_service.config._issuers import IssuerSettings, is_trusted_url
from warmline_service.config._limits import ApiKeySettings, LimitSettings, TenantSettings
from warmline_service.config._places import (
    LogSettings,
    McpSettings,
    ModelPrice,
    ModelSettings,
    OAuthSettings,
    ProviderKind,
    ProviderSettings,
    RetentionSettings,
    StoreSettings,
    TlsSettings,
    VaultSettings,
)
from warmline_service.config._policy import TenantPolicy
from warmline_service.config._processes import CliSettings, PoolSettings
from warmline_service.config._sandbox import Level, SandboxSettings

__all__ = [
    "MIB",
    "ApiKeySettings",
    "AuditSettings",
    "CliSettings",
    "IssuerSettings",
    "Level",
    "LimitSettings",
    "LogSettings",
    "McpSettings",
    "ModelPrice",
    "ModelSettings",
    "OAuthSettings",
    "PoolSettings",
    "ProviderKind",
    "ProviderSettings",
    "RetentionSettings",
    "SandboxSettings",
    "Settings",
    "StoreSettings",
    "TenantPolicy",
    "TenantSettings",
    "TlsSettings",
    "VaultSettings",
    "is_trusted_url",
    "load",
]


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
    auth: Literal["auto", "required"] = Field(
        "auto",
        description=(
            "Whether callers have to show who they are. `auto`: unless the port is on loopback and nobody "
            "could; then everybody is the tenant `dev`. Where they have to and there is no key at all, the "
            "service makes one at its start and prints it once."
        ),
    )
    drain_grace: Seconds = Field(30.0, description="Seconds that running turns get at SIGTERM.")
    cli: CliSettings = CliSettings()
    sandbox: SandboxSettings = SandboxSettings()
    pool: PoolSettings = PoolSettings()
    limits: LimitSettings = LimitSettings()
    tls: TlsSettings | None = None
    provider: ProviderSettings = ProviderSettings()
    models: ModelSettings = ModelSettings()
    mcp: McpSettings = McpSettings()
    vault: VaultSettings = VaultSettings()
    store: StoreSettings = StoreSettings()
    retention: RetentionSettings = RetentionSettings()
    policy: TenantPolicy = TenantPolicy()
    audit: AuditSettings = AuditSettings()
    tenants: tuple[TenantSettings, ...] = ()
    oidc: tuple[IssuerSettings, ...] = ()
    log: LogSettings = LogSettings()
    http: dict[str, Any] = Field(
        {}, description="The HTTP shim's own, which it checks itself; `listen` has it started."
    )

    @model_validator(mode="after")
    def _port(self) -> Self:
        if int(self.listen.rpartition(":")[2]) > 65535:
            raise ValueError(f"listen: {self.listen!r} has no port from 0 to 65535")
        return self

    @property
    def http_listen(self) -> str:
        """HOST:PORT of the HTTP shim, as it was given; empty where none is to run."""
        return str(self.http.get("listen", ""))

    @model_validator(mode="after")
    def _unique(self) -> Self:
        ids = [tenant.id for tenant in self.tenants]
        keys = [key.id for tenant in self.tenants for key in tenant.keys]
        identities = [name for tenant in self.tenants for name in tenant.identities]
        issuers = [each.issuer for each in self.oidc]
        for what, names in (
            ("tenant id", ids),
            ("key id", keys),
            ("identity", identities),
            ("oidc issuer", issuers),
        ):
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise ValueError(f"{what} given twice: {', '.join(sorted(twice))}")
        return self

    @model_validator(mode="after")
    def _identified(self) -> Self:
        known = any(tenant.identities for tenant in self.tenants)
        if known and (self.tls is None or self.tls.client_ca is None):
            raise ValueError(
                "tenants[].identities need tls.client_ca: nobody would show a certificate"
            )
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
