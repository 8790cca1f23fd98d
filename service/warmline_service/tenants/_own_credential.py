"""A model credential that its caller brings as who he is: the tenant is a keyed hash of it."""

from __future__ import annotations

import re
from collections.abc import Callable

from warmline_service.tenants._principal import OwnCredential, Principal, Shown, unknown_caller

_PREFIX = "sk-ant-"
_OAUTH = "sk-ant-oat"
_SECRET = re.compile(r"sk-ant-[!-~]{8,1024}")
_SCOPES = frozenset({"chat", "read"})
_TENANT = "own-"
# No tenant's id: none has such a sign in it.
_ALL = "own-*"
# 160 bits: nobody finds two credentials with one hash.
_DIGITS = 40
_RESERVED = re.compile(rf"{_TENANT}[0-9a-f]{{{_DIGITS}}}")


def is_reserved(tenant: str) -> bool:
    """Whether a tenant's id is one that only a credential stands for."""
    return _RESERVED.fullmatch(tenant) is not None


def group_of(tenant: str) -> str:
    """Among whom a tenant's share of the machine is: a tenant by himself, but all of those together.

    Nobody has let them in, and anybody can be as many of them as he likes.
    """
    return _ALL if is_reserved(tenant) else tenant


class OwnCredentialCheck:
    """Credentials of the model provider. `keyed_hash` is one whose key never leaves the service, in hex."""

    def __init__(self, keyed_hash: Callable[[str], str]) -> None:
        self._keyed_hash = keyed_hash

    def knows(self, shown: Shown) -> bool:
        """What has the provider's prefix."""
        return shown.secret.startswith(_PREFIX)

    async def check(self, shown: Shown) -> Principal:
        """Raises KEY_INVALID. Whether the provider takes it, the first turn says."""
        secret = shown.secret
        if not _SECRET.fullmatch(secret):
            raise unknown_caller("This is no credential of the model provider.")
        tenant = f"{_TENANT}{self._keyed_hash(secret)[:_DIGITS]}"
        credential = OwnCredential(secret, oauth=secret.startswith(_OAUTH))
        return Principal(tenant, "credential", _SCOPES, credential)
