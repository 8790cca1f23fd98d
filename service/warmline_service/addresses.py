"""What the service connects to for a caller: no address that only this machine or network can reach."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import defaultdict
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# The well-known prefix of NAT64 (RFC 6052): the IPv4 address is in its last 32 bits.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Lookups at once, of all tenants and of each: one may hang for as long as its owner's name server likes.
_THREADS, _EACH = 16, 2
_DISCARD = 9


class AddressRefused(OSError):  # noqa: N818  # named for what was done
    """The host is none, or is at an address that callers may not reach."""


class HostUnknown(AddressRefused):
    """There is no such host."""


def host_among(host: str, known: Collection[str]) -> bool:
    """Whether a host, in lower case, is one of those that patterns stand for.

    `*.example.com` are all below one, not itself; `*` are all.
    """
    return (
        host in known
        or "*" in known
        or any(
            each.startswith("*.") and host.endswith(each[1:]) and host != each[2:] for each in known
        )
    )


def permitted(address: str, allowed: Sequence[Network] = ()) -> bool:
    """Whether it is on the public internet, or in a network that the operator allows."""
    ip = _parsed(address)
    if _in_any(ip, allowed):
        return True
    if (inner := _embedded(ip)) is not None:
        return permitted(str(inner), allowed)
    if isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local:
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved)


def is_own(address: str) -> bool:
    """Whether it is one of this machine's: what is sent there never passes what guards its port."""
    family = socket.AF_INET if _parsed(address).version == 4 else socket.AF_INET6
    try:
        # Nothing is sent; the kernel says from where it would be.
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.connect((address, _DISCARD))
            return _parsed(asking.getsockname()[0]) == _parsed(address)
    except OSError:
        return False  # There is no way there at all.


class Resolver:
    """Looks hosts up in threads of its own, which nothing else of the service waits for.

    `apart`: what this machine itself has of public addresses is refused as well.
    """

    def __init__(self, allowed: Sequence[Network] = (), *, apart: bool = False) -> None:
        self._allowed = allowed
        self._apart = apart
        self._pool = ThreadPoolExecutor(_THREADS, "resolver")
        self._places: defaultdict[str, asyncio.Semaphore] = defaultdict(self._place)

    async def resolve(self, owner: str, host: str, port: int, timeout: float) -> str:
        """An address of the host to connect to, looked up for one of many owners.

        Raises HostUnknown, AddressRefused where any of its addresses may not be reached, TimeoutError.
        """
        async with asyncio.timeout(timeout):
            addresses = await self._look_up(owner, host, port)
        # A name that stands for both kinds is somebody's try to get at the other one.
        if not addresses or not all(permitted(each, self._allowed) for each in addresses):
            raise AddressRefused("its address is not on the public internet")
        if self._apart and any(self._is_barred(each) for each in addresses):
            raise AddressRefused("its address is this machine's")
        return addresses[0]

    def close(self) -> None:
        """Look nothing up any more; a lookup that hangs ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _is_barred(self, address: str) -> bool:
        return not _in_any(_parsed(address), self._allowed) and is_own(address)

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
        raise HostUnknown("its host is not known") from error
    return [str(each[4][0]) for each in found]


def _parsed(address: str) -> Address:
    return ipaddress.ip_address(address.partition("%")[0])


def _in_any(ip: Address, networks: Sequence[Network]) -> bool:
    return any(ip.version == each.version and ip in each for each in networks)


def _embedded(ip: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one is another way of writing for."""
    if isinstance(ip, ipaddress.IPv4Address):
        return None
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
