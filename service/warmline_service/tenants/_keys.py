"""API keys: their form, their hash, and where the known ones are looked up."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from warmline_service.config import TenantSettings

_KEY = re.compile(r"wl_([a-z0-9]{4,32})_([A-Za-z0-9_-]{32,128})")


@dataclass(frozen=True)
class KeyRecord:
    """What is kept of a key: never the key itself."""

    id: str
    tenant: str
    sha256: str
    scopes: frozenset[str]
    expires_at: datetime | None


class KeyStore(Protocol):
    """Where key records come from; a database can stand behind it."""

    async def find(self, key_id: str) -> KeyRecord | None:
        """The record of a key id, or None."""


class SettingsKeys:
    """The keys of the settings file."""

    def __init__(self, tenants: Iterable[TenantSettings]) -> None:
        self._records = {
            key.id: KeyRecord(key.id, tenant.id, key.sha256, frozenset(key.scopes), key.expires_at)
            for tenant in tenants
            for key in tenant.keys
        }

    async def find(self, key_id: str) -> KeyRecord | None:
        """The record of a key id, or None."""
        return self._records.get(key_id)


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
