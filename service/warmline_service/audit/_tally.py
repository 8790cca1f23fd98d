"""What would flood the log is counted: the first of a kind in a minute are told, of the others how many."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Hashable
from dataclasses import dataclass

# More kinds than this at once are counted together.
_KINDS = 1000
_WINDOW = 60.0


@dataclass
class _Count:
    since: float
    tell: Callable[[int, float], None]
    seen: int = 0
    untold: int = 0


class Tally:
    """Counts by kind within windows of a minute; times are of one clock, whichever it is."""

    def __init__(self, told: int) -> None:
        self._told = told
        self._counts: dict[Hashable, _Count] = {}

    def one(self, kind: Hashable, now: float, tell: Callable[[int, float], None]) -> bool:
        """One more; whether it is to be told by itself.

        Where it is not, `tell(count, since)` is called at the end of its minute, for all of its kind.
        """
        if kind not in self._counts and len(self._counts) >= _KINDS:
            kind = None
        found = self._counts.get(kind)
        if found is None:
            found = self._counts[kind] = _Count(now, tell)
        found.seen += 1
        if found.seen <= self._told and kind is not None:
            return True
        found.untold += 1
        return False

    def close(self, now: float) -> None:
        """Tell of the windows that are over at a moment, and forget them."""
        over = [kind for kind, each in self._counts.items() if now - each.since >= _WINDOW]
        for count in map(self._counts.pop, over):
            if count.untold:
                count.tell(count.untold, count.since)


def network_of(peer: str) -> str:
    """Where a peer of gRPC's connects from, without its port; of IPv6 the network that one customer has."""
    kind, _, rest = peer.partition(":")
    host = rest.rpartition(":")[0].replace("%5B", "").replace("%5D", "").strip("[]")
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return kind[:16]
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address, 64), strict=False))
