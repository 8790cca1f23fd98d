"""Settings of what is around each CLI process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, IPvAnyNetwork, StringConstraints

from warmline_service.config._base import MIB, Section

Level = Literal["strict", "network", "none"]
EgressHost = Annotated[
    str, StringConstraints(pattern=r"^(\*|(\*\.)?[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)$")
]
_Port = Annotated[int, Field(ge=1, le=65535)]


class SandboxSettings(Section):
    """What a CLI process, and all that it runs, can see and use."""

    level: Level = Field(
        "strict",
        description=(
            "`strict`: no network but the way to the model. `network`: the same, and a proxy that lets "
            "through what policy allows. `none`: no sandbox. Where it cannot be had, the service does "
            "not start."
        ),
    )
    egress_hosts: frozenset[EgressHost] = Field(
        frozenset(),
        description=(
            "At level `network` the hosts that processes reach whose tenants have no "
            "`policy.egress_hosts`: `*.example.com` for all below one, `*` for all. By default none."
        ),
    )
    egress_networks: tuple[IPvAnyNetwork, ...] = Field(
        (),
        description=(
            "Networks that these hosts may be in beside the public internet, such as `10.1.0.0/16`."
        ),
    )
    egress_ports: frozenset[_Port] = Field(
        frozenset({443}), description="The ports of these hosts that may be connected to."
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
    cpu_seconds: int = Field(
        7200,
        ge=0,
        le=2**31 - 1,
        description=(
            "Time of a processor that one process may use, the CLI itself too, in seconds; 0: any. "
            "What takes more is ended."
        ),
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

    @property
    def memory_exceeded(self) -> str:
        """What is said of a process that took more memory, after "the process"."""
        return f"used more than {self.memory_bytes // MIB} MiB of memory"
