"""What a session's turns are held to and charged: one account for each process that it has had."""

from __future__ import annotations

from collections.abc import Mapping

from warmline_service.chat._endings import used_between
from warmline_service.chat._ports import Runtime
from warmline_service.quota import Allowance
from warmline_service.sessions import Session
from warmline_service.sessions.events import Tokens


class Bill:
    """Opened before a turn talks to its process, closed after; what was used in between turns comes with
    the next one."""

    def __init__(self, session: Session, runtime: Runtime) -> None:
        self._session = session
        self._runtime = runtime
        self._slot_id = ""
        self._charged: Mapping[str, Tokens] = {}
        self._asked = 0
        self._allowance: Allowance | None = None

    async def open(self, slot_id: str) -> None:
        """Reserve what the turn begins with. Raises BUDGET_EXCEEDED, STORAGE_UNAVAILABLE."""
        if slot_id != self._slot_id:
            self._slot_id, self._charged, self._asked = slot_id, {}, 0
        runtime = self._runtime
        self._allowance = await runtime.quota.allow(self._session.tenant)
        runtime.access.allow(slot_id, self._allowance)

    def close(self) -> None:
        """Charge what was used. For a turn that was opened."""
        runtime, slot_id = self._runtime, self._slot_id
        runtime.access.allow(slot_id, None)
        used, asked = dict(runtime.access.metered(slot_id)), runtime.access.requests(slot_id)
        more = used_between(self._charged, used).by_model
        runtime.quota.settle(self._session.tenant, more, asked - self._asked, self._allowance)
        self._charged, self._asked, self._allowance = used, asked, None
