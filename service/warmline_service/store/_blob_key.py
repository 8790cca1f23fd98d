"""Where a blob is: keys of checked parts, so that no name of a caller's becomes a path."""

from __future__ import annotations

import re
import secrets

_TENANT = r"[a-z0-9][a-z0-9_-]{0,62}"
_SESSION = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_NAME = r"[a-z0-9][a-z0-9._-]{0,127}"

_PARTS = {
    "tenant": re.compile(_TENANT),
    "session_id": re.compile(_SESSION),
    "name": re.compile(_NAME),
}
_ARCHIVE = re.compile(r".*/workspace-[0-9a-f]{16}-([0-9]{1,15})")
_KEY = re.compile(f"{_TENANT}/{_SESSION}/{_NAME}")
_PREFIX = re.compile(f"{_TENANT}/({_SESSION}/)?")


def blob_key(tenant: str, session_id: str, name: str) -> str:
    """The key of one blob of a session; ValueError where a part is not what it should be."""
    return _joined(tenant=tenant, session_id=session_id, name=name)


def blob_prefix(tenant: str, session_id: str | None = None) -> str:
    """What the keys of a session, or of a whole tenant, begin with; no other's do."""
    if session_id is None:
        return _joined(tenant=tenant) + "/"
    return _joined(tenant=tenant, session_id=session_id) + "/"


def archive_name(size: int) -> str:
    """A new name for an archive of so many bytes: what is kept can be summed up without a look at it."""
    return f"workspace-{secrets.token_hex(8)}-{size}"


def archive_size(key: str) -> int:
    """The bytes of an archive, by its key; 0 where that does not say."""
    found = _ARCHIVE.fullmatch(key)
    return int(found[1]) if found else 0


def check_key(key: str) -> None:
    """ValueError unless `blob_key` could have made it."""
    if not _KEY.fullmatch(key):
        raise ValueError(f"not the key of a blob: {key[:300]!r}")


def check_prefix(prefix: str) -> None:
    """ValueError unless `blob_prefix` could have made it."""
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"not the prefix of a session's or a tenant's blobs: {prefix[:300]!r}")


def _joined(**parts: str) -> str:
    for what, part in parts.items():
        if not _PARTS[what].fullmatch(part):
            raise ValueError(f"{what} cannot be part of a key: {part[:200]!r}")
    return "/".join(parts.values())
