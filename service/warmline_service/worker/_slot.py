"""A process's place on disk, its way to the model, and who listens to it."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from warmline_service.sandbox import Owner


@dataclass(frozen=True)
class Slot:
    """The private directories of one process, each 0700; wiped when the process is gone.

    `owner`: whose they are, where the process has a user of its own.
    """

    id: str
    root: Path
    owner: Owner | None = None

    @property
    def home(self) -> Path:
        """Its HOME."""
        return self.root / "home"

    @property
    def config(self) -> Path:
        """The CLI's own state; processes that shared one could message each other."""
        return self.root / "config"

    @property
    def tmp(self) -> Path:
        """Its TMPDIR."""
        return self.root / "tmp"

    @property
    def work(self) -> Path:
        """Its working directory."""
        return self.root / "work"

    @property
    def sock(self) -> Path:
        """Where its socket to the egress is."""
        return self.root / "sock"


class Endpoint(Protocol):
    """An open way from one slot to the model."""

    @property
    def env(self) -> Mapping[str, str]:
        """The variables by which the CLI finds it, with a placeholder for a credential."""
        ...

    async def aclose(self) -> None:
        """Close it; further requests of the slot are refused. May be called twice."""
        ...


OpenEndpoint = Callable[[Slot], Awaitable[Endpoint]]

# Serves a way to the network on a socket that listens inside; the slot's endpoint closes it.
OpenWay = Callable[[Slot, socket.socket], Awaitable[None]]
