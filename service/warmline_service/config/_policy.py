"""What one tenant may have and use."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from warmline_service.config._base import Section
from warmline_service.config._places import ProviderKind
from warmline_service.config._sandbox import EgressHost, Level

_Count = Annotated[int, Field(ge=1, le=10**15)]
_Dollars = Annotated[float, Field(gt=0, le=10**9)]
_Host = Annotated[str, StringConstraints(pattern=r"^(\*\.)?[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
_Tool = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class TenantPolicy(Section):
    """What a tenant may have; what one of `[[tenants]]` does not set is as `[policy]` says."""

    requests_per_minute: _Count | None = Field(
        None, description="Calls, and messages of a Chat after its first. Not set: no bound."
    )
    concurrent_turns: _Count | None = Field(
        None,
        description="Turns that run or wait in one service; a turn that is parked is not counted.",
    )
    processes: _Count | None = Field(
        None,
        description="CLI processes of its sessions in one service; an idle one of its own makes room.",
    )
    waiting: _Count | None = Field(
        None,
        description="Sessions that wait for a process, if fewer than `pool.max_waiting_per_tenant`.",
    )
    open_streams: _Count | None = Field(
        None, description="Open streams, if fewer than `limits.streams_per_tenant`."
    )
    sessions: _Count | None = Field(
        None, description="Sessions that are kept, if fewer than `limits.sessions_per_tenant`."
    )
    storage_bytes: _Count | None = Field(
        None,
        description=(
            "Bytes of events, transcripts and workspaces that it keeps; with more it gets no new "
            "sessions and turns."
        ),
    )
    tokens_per_day: _Count | None = Field(
        None, description="Tokens of a day (UTC), those read from the prompt cache apart."
    )
    usd_per_day: _Dollars | None = Field(
        None, description="US dollars of a day (UTC), by `models.prices`."
    )
    usd_per_month: _Dollars | None = Field(
        None, description="US dollars of a calendar month (UTC), by `models.prices`."
    )
    models: frozenset[str] | None = Field(
        None, description="The models that its sessions may name, by id or alias. Not set: all."
    )
    providers: frozenset[ProviderKind] | None = Field(
        None,
        description=(
            "The providers that it may use, as in `provider.kind`. Not set: all. Where that of the service "
            "is none of them, it has no models and no turns there."
        ),
    )
    permission_modes: (
        frozenset[Literal["default", "plan", "acceptEdits", "dontAsk", "auto", "bypassPermissions"]]
        | None
    ) = Field(None, description="The permission modes that its sessions may have. Not set: all.")
    forbidden_tools: tuple[_Tool, ...] = Field(
        (),
        max_length=64,
        description="Tools that never run, as in `tools.disallowed` of a session.",
    )
    mcp_hosts: frozenset[_Host] | None = Field(
        None,
        description="The hosts of its MCP servers, `*.example.com` for all below one. Not set: any.",
    )
    egress_hosts: frozenset[EgressHost] | None = Field(
        None,
        description=(
            "The hosts that its processes reach at the sandbox level `network`, as in "
            "`sandbox.egress_hosts`, which holds where this is not set."
        ),
    )
    sandbox: Level | None = Field(
        None,
        description=(
            "What is around its processes. Not set: `sandbox.level`; where that is `none`, there is no other."
        ),
    )

    def over(self, default: TenantPolicy) -> TenantPolicy:
        """This policy, with what it does not set taken from another."""
        return default.model_copy(
            update={name: getattr(self, name) for name in self.model_fields_set}
        )
