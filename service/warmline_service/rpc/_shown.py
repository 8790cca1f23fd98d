"""What a call shows of its caller: headers, and the certificate of its connection."""

from __future__ import annotations

from typing import Any

from warmline_service.tenants import Shown

# What gRPC calls the names in a verified certificate. A name of one kind must not pass for another's: who
# may have a DNS name certified must not be taken for a URI.
_URIS, _DNS, _EMAILS = "peer_uri", "peer_dns", "peer_email"
_SPIFFE = "peer_spiffe_id"


def shown_by(context: Any) -> Shown:
    """All of it; nothing has been checked but the certificate's chain."""
    return Shown(
        metadata(context, "authorization"),
        metadata(context, "x-api-key"),
        identities_of(context.auth_context() or {}),
    )


def metadata(context: Any, name: str) -> str:
    """A header of the call; empty where it is not there, or is binary."""
    for key, value in context.invocation_metadata() or ():
        if key == name:
            return value if isinstance(value, str) else ""
    return ""


def identities_of(names: dict[str, list[bytes]]) -> tuple[str, ...]:
    """The identities in a certificate, each once; the SPIFFE id first."""
    uris = [name for name in _texts(names, _SPIFFE, _URIS) if "://" in name]
    others = [name for name in _texts(names, _DNS) if "@" not in name]
    others += [name for name in _texts(names, _EMAILS) if "@" in name]
    return tuple(dict.fromkeys([*uris, *(name for name in others if "://" not in name)]))


def _texts(names: dict[str, list[bytes]], *kinds: str) -> list[str]:
    return [name.decode(errors="replace") for kind in kinds for name in names.get(kind, ())]
