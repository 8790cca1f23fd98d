"""API keys: their form, their hash, and what is known of one."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Protocol

_KEY = re.compile(r"wl_([a-z0-9]{4,32})_([A-Za-z0-9_-]{32,128})")


@dataclass(frozen=True)
class KeyRecord:
    """What is known of a key: never the key itself. `expires_at` in seconds since the epoch; None: never.

    `disabled` says that its tenant is.
    """

    id: str
    tenant: str
    sha256: str
    scopes: frozenset[str]
    expires_at: float | None = None
    revoked: bool = False
    disabled: bool = False


class KeyStore(Protocol):
    """Where key records come from."""

    async def key(self, key_id: str) -> KeyRecord | None:
        """The record of a key id, or None."""


def hash_key(key: str) -> str:
    """SHA-256 in hex. A key carries 256 random bits, so a slow password hash would add nothing."""
    return hashlib.sha256(key.encode()).hexdigest()


def key_id(key: str) -> str | None:
    """The id within a well-formed key, or None."""
    match = _KEY.fullmatch(key)
    return match.group(1) if match else None


def new_key() -> tuple[str, str]:
    """Make a key: its id and the whole key, which is shown once and not kept."""
    identifier = secrets.token_hex(4)
    return identifier, f"wl_{identifier}_{secrets.token_urlsafe(32)}"
