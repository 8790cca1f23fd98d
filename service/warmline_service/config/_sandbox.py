"""Settings of what is around each CLI process."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from warmline_service.config._base import MIB, Section

Level = Literal["strict", "network", "none"]


class SandboxSettings(Section):
    """What a CLI process, and all that it runs, can see and use."""

    level: Level = Field(
        "strict",
        description=(
            "`strict`: no network but the way to the model. `network`: the machine's own network, "
            "unfiltered. `none`: no sandbox. Where it cannot be had, the service does not start."
        ),
    )
    readable: tuple[Path, ...] = Field(
        (),
        description="Files and directories that processes may read beside the system's `/usr`: tools.",
    )
    memory_bytes: int = Field(
        2048 * MIB,
        ge=1024 * MIB,
        description="Memory of one process with all that it runs; what takes more is ended.",
    )
    processes: int = Field(
        512, ge=64, le=100_000, description="Processes and threads of one process's tree."
    )
    cpus: float = Field(
        0.0, ge=0, le=1024, description="Cores that a tree may use; 0: any. Needs cgroup v2."
    )
    disk_bytes: int = Field(
        2048 * MIB,
        ge=16 * MIB,
        description="What a tree may store, also in one named workspace; what stores more is ended.",
    )
    files: int = Field(
        200_000, ge=1000, description="How many files and directories; as `sandbox.disk_bytes`."
    )
    scratch_bytes: int = Field(
        64 * MIB, ge=1 * MIB, description="Each of its `/tmp`, `/var/tmp` and `/dev/shm`."
    )
    first_uid: int = Field(
        1_900_000_000,
        ge=1,
        le=2**32 - 2**26,
        description=(
            "Where the service runs as root, each process has a uid of its own: one of the "
            "16,777,216 from here."
        ),
    )
