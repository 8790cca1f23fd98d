"""Settings of CLI processes: each of them, and all together."""

from __future__ import annotations

from pathlib import Path

from pydantic import DirectoryPath, Field

from warmline_service.config._base import MIB, Id, Seconds, Section


class CliSettings(Section):
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


class PoolSettings(Section):
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
    refill_delay: float = Field(
        0.3,
        ge=0,
        le=60,
        description=(
            "A spare that was given away is replaced so many seconds later, so that its first turn has the "
            "machine; at once where more come."
        ),
    )
    bare_spares: bool | None = Field(
        None,
        description=(
            "Keep spares for sessions with the bare profile as well. Default: where HTTP is served "
            "too, whose callers mostly want plain completions."
        ),
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
