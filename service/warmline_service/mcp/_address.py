"""Which addresses the service connects to for a caller: none that only this machine or network can."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# The well-known prefix of NAT64 (RFC 6052): the IPv4 address is in its last 32 bits.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


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


async def resolve(host: str, port: int, allowed: Sequence[Network], timeout: float) -> str:
    """An address of the host to connect to, looked up once: a second look may be told another.

    Raises AddressRefused where any of its addresses may not be reached, TimeoutError.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise AddressRefused("its host is not known") from error
    addresses = [str(each[4][0]) for each in found]
    # A name that stands for both kinds is somebody's try to get at the other one.
    if not addresses or not all(permitted(each, allowed) for each in addresses):
        raise AddressRefused("its address is not on the public internet")
    return addresses[0]


def _embedded(ip: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one is another way of writing for."""
    if isinstance(ip, ipaddress.IPv4Address):
        return None
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
