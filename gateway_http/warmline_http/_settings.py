"""The shim's settings: the table `[http]` of the settings file, then `WARMLINE_HTTP__*`, then flags."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    StringConstraints,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

_MIB = 1024 * 1024


def _origin(value: str) -> str:
    scheme, _, rest = value.partition("://")
    if scheme not in ("http", "https") or not rest or "/" in rest or "*" in rest:
        raise ValueError("an origin is such as https://app.example.org, without a path")
    return value.lower()


def _listed(value: object) -> object:
    """A list as a variable of the environment has it, of the service that started us for one."""
    return json.loads(value) if isinstance(value, str) else value


Origin = Annotated[str, AfterValidator(_origin)]
Listed = BeforeValidator(_listed)
Seconds = Annotated[float, Field(gt=0, le=24 * 3600)]


class HttpSettings(BaseSettings):
    """Where the shim listens, which service it speaks to, and what it lets in."""

    model_config = SettingsConfigDict(
        env_prefix="WARMLINE_HTTP__", extra="forbid", frozen=True, env_nested_delimiter="__"
    )

    listen: Annotated[
        str, StringConstraints(pattern=r"^(\[[0-9a-fA-F:]+\]|[^\s:\[\]]+):\d{1,5}$")
    ] = Field("127.0.0.1:8080", description="HOST:PORT of the HTTP port; port 0 takes a free one.")
    target: str = Field(
        "127.0.0.1:50051", description="The gRPC service: HOST:PORT, or `unix:` and a path."
    )
    target_ca: Path | None = Field(
        None, description="The CA of the service's certificate (PEM). Not set: plain text."
    )
    certificate: Path | None = Field(None, description="Certificate chain (PEM), for https.")
    key: Path | None = Field(None, description="Its private key (PEM).")
    hosts: Annotated[tuple[str, ...], Listed] = Field(
        (),
        description=(
            "Names that requests may call the shim by (their `Host`), besides localhost, loopback addresses "
            "and the host in `listen`. Others are refused: a web page could point its own name here."
        ),
    )
    origins: Annotated[tuple[Origin, ...], Listed] = Field(
        (),
        description="Web pages that may call from a browser (CORS, WebSocket), besides the shim's own.",
    )
    body_bytes: int = Field(
        48 * _MIB, ge=1024, le=1024 * _MIB, description="The largest body of a request."
    )
    header_bytes: int = Field(
        32 * 1024, ge=4096, le=_MIB, description="The most that a request's line and headers have."
    )
    read_timeout: Seconds = Field(
        30.0, description="Seconds for a request's head, and for its body."
    )
    call_timeout: Seconds = Field(
        60.0, description="Seconds for a call that is no stream, and for a stream's first answer."
    )
    heartbeat: Seconds = Field(15.0, description="Seconds of silence after which a stream says so.")
    calls_per_connection: int = Field(
        500,
        ge=1,
        le=100_000,
        description=(
            "Streams on one connection to the service, before another is made: no more than its "
            "`limits.streams_per_connection`."
        ),
    )
    connections: int = Field(
        10_000, ge=1, le=1_000_000, description="Open connections; more are answered by 503."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together")
        if int(self.listen.rpartition(":")[2]) > 65535:
            raise ValueError(f"listen: {self.listen!r} has no port from 0 to 65535")
        return self

    @property
    def host(self) -> str:
        """The host in `listen`, without brackets."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port in `listen`."""
        return int(self.listen.rpartition(":")[2])


class _File(BaseModel):
    http: dict[str, Any] = {}


def load(path: Path | None, **given: Any) -> HttpSettings:
    """The settings; flags win over the environment, and that over the file.

    Raises OSError and ValueError (pydantic's ValidationError among them).
    """
    table = _File.model_validate(tomllib.loads(path.read_text())).http if path is not None else {}
    return checked(table, **given)


def checked(table: Mapping[str, Any], **given: Any) -> HttpSettings:
    """The settings of a table that somebody else has read; flags and the environment as in `load`.

    Raises ValueError.
    """
    named = HttpSettings.model_fields
    unknown = sorted(set(table) - set(named))
    if unknown:
        raise ValueError(f"http.{unknown[0]}: there is no such setting")
    # What the environment says wins over the file: pydantic takes what is given for the strongest.
    from_environment = HttpSettings().model_fields_set
    kept = {name: value for name, value in table.items() if name not in from_environment}
    return HttpSettings(**(kept | {k: v for k, v in given.items() if v is not None}))
