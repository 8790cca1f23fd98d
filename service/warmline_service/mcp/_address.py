"""Which addresses the service connects to for a caller: none that only this machine or network can."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# The well-known prefix of NAT64 (RFC 6052): the IPv4 address is in its last 32 bits.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Lookups at once, of all tenants and of each: one may hang for as long as its owner's name server likes.
_THREADS, _EACH = 16, 2


class AddressRefused(OSError):  # noqa: N818  # named for what was done
    """The host is none, or is at an address that callers may not reach."""


def permitted(address: str, allowed: Sequence[Network] = ()) -> bool:
    """Whether it is on the public internet, or in a network that the operator allows."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if any(ip.version == network.version and ip in network for network in allowed):
        return True
    if (inner := _embedded(ip)) is not None:
        return permitted(str(inner), allowed)
    if isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local:
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved)


class Resolver:
    """Looks hosts up in threads of its own, which nothing else of the service waits for."""

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        self._allowed = allowed
        self._pool = ThreadPoolExecutor(_THREADS, "mcp-resolver")
        self._places: defaultdict[str, asyncio.Semaphore] = defaultdict(self._place)

    async def resolve(self, owner: str, host: str, port: int, timeout: float) -> str:
        """An address of the host to connect to, looked up for one of many owners.

        Raises AddressRefused where any of its addresses may not be reached, TimeoutError.
        """
        async with asyncio.timeout(timeout):
            addresses = await self._look_up(owner, host, port)
        # A name that stands for both kinds is somebody's try to get at the other one.
        if not addresses or not all(permitted(each, self._allowed) for each in addresses):
            raise AddressRefused("its address is not on the public internet")
        return addresses[0]

    def close(self) -> None:
        """Look nothing up any more; a lookup that hangs ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _place(self) -> asyncio.Semaphore:
        return asyncio.Semaphore(_EACH)

    async def _look_up(self, owner: str, host: str, port: int) -> list[str]:
        place, loop = self._places[owner], asyncio.get_running_loop()
        await place.acquire()
        try:
            work = loop.run_in_executor(self._pool, _addresses, host, port)
        except BaseException:
            place.release()
            raise
        # Given back when the thread is, whether anybody still waits for it or not.
        work.add_done_callback(lambda _: place.release())
        return await asyncio.shield(work)


def _addresses(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError, ValueError) as error:
        raise AddressRefused("its host is not known") from error
    return [str(each[4][0]) for each in found]


def _embedded(ip: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one is another way of writing for."""
    if isinstance(ip, ipaddress.IPv4Address):
        return None
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
