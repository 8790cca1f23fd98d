"""What the egress knows of a slot: whose it is, what it used and may use, how its last request failed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from warmline_service.egress._credential import Credential
from warmline_service.egress._faults import UpstreamError
from warmline_service.egress._meter import Meter, Tokens
from warmline_service.errors import Reason, WarmlineError
from warmline_service.quota import Allowance

# Of one slot at once: a turn with its subagents stays far below it.
MAX_REQUESTS = 32


class TooManyRequestsError(Exception):
    """A slot has as many requests under way as it may."""


@dataclass(frozen=True, slots=True)
class Access:
    """Whose requests a slot's are, and what they go out with: a credential, or by its name a stored one.

    With an empty name it is the tenant's default, or else the operator's.
    """

    tenant: str
    session_id: str
    credential: Credential | None = None
    stored: str = ""


class Account:
    """One slot's side of the egress. `fault` is the last request's error, None after a good one.

    `denied` says why the running turn may ask no more: it has come to the end of what it may use. `unpaid`
    says why the last request had nothing to go out with, `paid_with` which stored credential it was for.
    """

    def __init__(self, slot_id: str) -> None:
        self.slot_id = slot_id
        self.access: Access | None = None
        self.meter = Meter()
        self.denied: WarmlineError | None = None
        self.unpaid: WarmlineError | None = None
        self.paid_with = ""
        self._allowance: Allowance | None = None
        self._before: Mapping[str, Tokens] = {}
        self.fault: UpstreamError | None = None
        self._held_until: asyncio.Future[bool] | None = None
        self._running = 0

    def bind(self, access: Access) -> None:
        """Give the slot to a session; a second time is a mistake and raises RuntimeError."""
        if self.access is not None:
            raise RuntimeError(f"slot {self.slot_id} is bound already")
        self.access = access

    def renew(self, credential: Credential | None, stored: str = "") -> None:
        """The next request goes out with another credential; RuntimeError where nobody has the slot."""
        if self.access is None:
            raise RuntimeError(f"slot {self.slot_id} is not bound")
        self.access = replace(self.access, credential=credential, stored=stored)

    def allow(self, allowance: Allowance | None) -> None:
        """What is used from now on is held to an allowance; None: to nothing."""
        self._allowance = allowance
        self._before = self.meter.snapshot()
        self.denied = None

    def hold(self, until: asyncio.Future[bool]) -> None:
        """Requests wait until this says that they may go out; where it says no, none does any more."""
        self._held_until = until

    async def let_go(self) -> None:
        """Wait until a request may go out. Raises INTERNAL where none may."""
        until = self._held_until
        if until is None:
            return
        if not until.done():
            await asyncio.wait({until})  # Which is not this one's to cancel.
        if not until.result():
            raise WarmlineError(
                Reason.INTERNAL, "What this process was told is not to be answered."
            )

    async def cover(self) -> None:
        """See that what was used is allowed for; nothing goes either way before.

        Raises WarmlineError where nothing is left, as `denied` says from then on.
        """
        if self._allowance is None:
            return
        now, none = self.meter.snapshot(), Tokens()
        used = {model: all_ - self._before.get(model, none) for model, all_ in now.items()}
        if self._allowance.covers(used):
            return
        try:
            await self._allowance.cover(used)
        except WarmlineError as error:
            self.denied = error
            raise

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request as under way; raises TooManyRequestsError at the bound."""
        if self._running >= MAX_REQUESTS:
            raise TooManyRequestsError
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
