"""Client certificates: the names in one stand for a tenant."""

from __future__ import annotations

import functools
import re

from warmline_service.tenants._directory import Directory, Standing
from warmline_service.tenants._principal import Principal, Shown, tenant_disabled, unknown_caller

# Who administrates needs a key or a token: a certificate says which machine calls, and not who.
_SCOPES = frozenset({"chat", "read"})
_MOST_NAMES = 20
# A URI with its scheme, an e-mail address, or a DNS name: no name of one kind looks like another's.
_IDENTITY = re.compile(
    r"[a-z][a-z0-9+.-]{0,31}://[!-~]{1,400}"
    r"|[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,253}"
    r"|[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?"
)


def is_identity(name: str) -> bool:
    """Whether a name has the form of an identity: a URI, an e-mail address or a DNS name."""
    return _IDENTITY.fullmatch(name) is not None


class CertificateCheck:
    """The names in the certificate of a client that TLS has verified."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def knows(self, shown: Shown) -> bool:
        """A certificate, and no secret: who shows one as well wants to be known by it."""
        return bool(shown.identities) and not shown.anything

    async def check(self, shown: Shown) -> Principal:
        """Raises KEY_INVALID, also where the names stand for several tenants; TENANT_DISABLED."""
        found: dict[str, tuple[Standing, str]] = {}
        for name in shown.identities[:_MOST_NAMES]:
            standing = await self._directory.identified_by(name) if is_identity(name) else None
            if standing is not None:
                found.setdefault(standing.id, (standing, name))
        if len(found) != 1:
            raise unknown_caller(
                "The client's certificate stands for no tenant; have the operator add its identity, "
                "or send an API key."
                if not found
                else "The client's certificate stands for several tenants."
            )
        ((standing, name),) = found.values()
        if standing.disabled:
            raise tenant_disabled()
        still = functools.partial(self.check, shown)
        return Principal(standing.id, f"certificate {name}", _SCOPES, still=still)
