"""Where sessions' processes may connect to: hosts by policy, at addresses that are anybody's."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from warmline_service.addresses import AddressRefused, HostUnknown, Resolver, host_among
from warmline_service.config import SandboxSettings, TenantPolicy
from warmline_service.egress._account import Access
from warmline_service.errors import Reason, WarmlineError

# Of one tenant at once, so that no other lacks what the service may open.
_TUNNELS = 256
# Hosts that a slot is known to connect to; those beyond are told again and again.
_KNOWN = 1000

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Target:
    """What a process wants to connect to; the host in lower case."""

    host: str
    port: int


class Turned(Exception):  # noqa: N818  # named for what was done
    """Somebody was turned away: the status of HTTP, and one sentence for who has to do with it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Policies(Protocol):
    """What tenants may have."""

    async def of(self, tenant: str) -> TenantPolicy:
        """What holds for a tenant. Raises STORAGE_UNAVAILABLE."""
        ...


class Record(Protocol):
    """The audit log, as far as it is told of this."""

    def record_counted(
        self, action: str, kind: tuple[str, ...], detail: Mapping[str, Any], **fields: str
    ) -> None:
        """Something was done, by whom of many `kind` says."""


class Outlet:
    """Decides for all slots, connects, and tells the audit log of it."""

    def __init__(self, settings: SandboxSettings, policies: Policies, audit: Record) -> None:
        self._settings = settings
        self._policies = policies
        self._audit = audit
        self._resolver = Resolver(settings.egress_networks, apart=True)
        self._running: Counter[str] = Counter()

    def close(self) -> None:
        """Look nothing up any more."""
        self._resolver.close()

    @contextmanager
    def place(self, access: Access) -> Iterator[None]:
        """One of the tunnels that a session's tenant may have, for the length of the block. Raises Turned."""
        if self._running[access.tenant] >= _TUNNELS:
            raise Turned(503, f"More than {_TUNNELS} connections of one tenant at once.")
        self._running[access.tenant] += 1
        try:
            yield
        finally:
            self._running[access.tenant] -= 1
            self._running += Counter()  # Forgets who has none.

    async def connect(
        self, access: Access, target: Target, known: set[Target], timeout: float, limit: int
    ) -> Streams:
        """Connect for a session, with `limit` bytes as the reader's bound, in `timeout` seconds.

        `known` are targets that the audit log was told of already. Raises Turned.
        """
        try:
            async with asyncio.timeout(timeout):
                address = await self._address(access, target, timeout)
                self._allowed(access, target, known)
                return await asyncio.open_connection(address, target.port, limit=limit)
        except TimeoutError:
            raise Turned(504, f"{target.host} did not answer in {timeout:g} s.") from None
        except OSError:
            # The system's text may name the address, which is nobody's business.
            raise Turned(502, f"{target.host} cannot be connected to.") from None

    async def _address(self, access: Access, target: Target, timeout: float) -> str:
        try:
            policy = await self._policies.of(access.tenant)
        except WarmlineError as error:
            raise Turned(503, error.message) from error
        hosts = policy.egress_hosts
        hosts = self._settings.egress_hosts if hosts is None else hosts
        if not host_among(target.host, hosts):
            raise self._refusal(access, target, "policy allows no connections to this host")
        if target.port not in self._settings.egress_ports:
            raise self._refusal(access, target, f"policy allows no connections to {target.port}")
        try:
            return await self._resolver.resolve(access.tenant, target.host, target.port, timeout)
        except HostUnknown:
            raise Turned(502, f"There is no host {target.host}.") from None
        except AddressRefused as error:
            raise self._refusal(access, target, str(error)) from None

    def _refusal(self, access: Access, target: Target, why: str) -> Turned:
        self._audit.record_counted(
            "egress.refused",
            (access.tenant, access.session_id),
            {"host": target.host, "port": target.port, "message": why},
            outcome=Reason.POLICY_DENIED.value,
            tenant=access.tenant,
            session_id=access.session_id,
        )
        return Turned(403, f"{target.host} is refused: {why}.")

    def _allowed(self, access: Access, target: Target, known: set[Target]) -> None:
        if target in known:
            return
        if len(known) < _KNOWN:
            known.add(target)
        self._audit.record_counted(
            "egress.allowed",
            (access.tenant, access.session_id),
            {"host": target.host, "port": target.port},
            tenant=access.tenant,
            session_id=access.session_id,
        )
