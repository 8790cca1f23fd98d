"""Which addresses of callers' servers are connected to."""

import asyncio
import ipaddress
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from warmline_service.addresses import AddressRefused, Resolver, host_among, permitted

PRIVATE = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1"),
    *("169.254.169.254", "100.64.0.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1"),
    *("64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a00:1::", "fe80::1", "fe80::1%eth0", "fc00::1"),
    *("2001:0:4136:e378:8000:63bf:80ff:fffe", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_what_only_this_machine_or_network_can_reach_is_refused(address: str) -> None:
    """In whatever way it is written."""
    assert not permitted(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_the_public_internet_may_be_reached(address: str) -> None:
    """By both versions of the protocol."""
    assert permitted(address)


def test_the_operator_may_allow_a_network() -> None:
    """That one, also where an IPv6 address stands for it, and no other."""
    allowed = [ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00::/8")]
    assert permitted("10.1.2.3", allowed)
    assert permitted("::ffff:10.1.2.3", allowed)
    assert permitted("fd00::1", allowed)
    assert not permitted("10.2.0.1", allowed)
    assert not permitted("::1", allowed)


def test_a_pattern_stands_for_what_is_below_it() -> None:
    """Not for the host itself, nor for one whose name only ends alike; a star stands for all."""
    known = ["*.example.com", "other.example"]
    assert host_among("a.example.com", known)
    assert host_among("a.b.example.com", known)
    assert host_among("other.example", known)
    assert not host_among("example.com", known)
    assert not host_among("badexample.com", known)
    assert not host_among("a.other.example", known)
    assert host_among("anything", ["*"])
    assert not host_among("anything", [])


@pytest.fixture
async def resolver() -> AsyncIterator[Resolver]:
    """Allows nothing beside the public internet."""
    made = Resolver()
    yield made
    made.close()


def _told(monkeypatch: pytest.MonkeyPatch, *answers: Sequence[str]) -> list[str]:
    """Have names looked up as these, one answer after another; gives what was asked."""
    asked: list[str] = []
    left = list(answers)

    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in left.pop(0)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


async def test_a_name_is_looked_up_once(
    monkeypatch: pytest.MonkeyPatch, resolver: Resolver
) -> None:
    """What is connected to is what was checked: a second look would be told another."""
    asked = _told(monkeypatch, ["8.8.8.8"], ["127.0.0.1"])
    assert await resolver.resolve("t", "rebind.example", 443, 1.0) == "8.8.8.8"
    assert asked == ["rebind.example"]
    with pytest.raises(AddressRefused, match="public internet"):
        await resolver.resolve("t", "rebind.example", 443, 1.0)


async def test_a_name_with_one_bad_address_is_refused(
    monkeypatch: pytest.MonkeyPatch, resolver: Resolver
) -> None:
    """Which of them is tried first is nobody's to say."""
    _told(monkeypatch, ["8.8.8.8", "10.0.0.1"])
    with pytest.raises(AddressRefused):
        await resolver.resolve("t", "both.example", 443, 1.0)


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost"])
async def test_other_ways_to_write_this_machine_are_refused(resolver: Resolver, host: str) -> None:
    """The resolver takes them all for the same."""
    with pytest.raises(AddressRefused):
        await resolver.resolve("t", host, 80, 5.0)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 70 + ".example", "\x00", ""])
async def test_a_host_that_is_none_is_refused(resolver: Resolver, host: str) -> None:
    """Not by another error."""
    with pytest.raises(AddressRefused):
        await resolver.resolve("t", host, 80, 5.0)


async def test_slow_lookups_of_one_tenant_keep_nobody_else_waiting(
    monkeypatch: pytest.MonkeyPatch, resolver: Resolver
) -> None:
    """A name server that never answers holds two threads, none of them the service's own."""
    release, inside = threading.Event(), threading.Semaphore(0)

    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        if host == "slow.example":
            inside.release()
            release.wait(30)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    slow = [
        asyncio.create_task(resolver.resolve("slow", "slow.example", 443, 0.5)) for _ in range(20)
    ]
    try:
        assert await resolver.resolve("quick", "quick.example", 443, 5.0) == "8.8.8.8"
        ended = await asyncio.gather(*slow, return_exceptions=True)
        assert all(isinstance(each, TimeoutError) for each in ended)
        assert sum(inside.acquire(blocking=False) for _ in range(20)) == 2
    finally:
        release.set()
