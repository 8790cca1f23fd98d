"""The sessions there are, each seen by its own tenant only."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from warmline_service.errors import Reason, WarmlineError
from warmline_service.sessions._config import SessionConfig


@dataclass(eq=False)
class Session:
    """One conversation's identity and its counters.

    `epoch` rises with every process that the session gets, `seq` with every event. `busy` counts the
    streams and turns that hold the session: it is never forgotten while they do.
    """

    tenant: str
    config: SessionConfig
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    epoch: int = 0
    seq: int = 0
    busy: int = 0

    @property
    def weight(self) -> int:
        """Bytes that keeping it takes, as far as its caller decides them."""
        prompt = self.config.system_prompt
        return len(prompt.text) if prompt else 0

    def next_seq(self) -> int:
        """Count one more event."""
        self.seq += 1
        return self.seq


class Sessions:
    """The registry: bounded per tenant, where the longest unused idle session makes room."""

    def __init__(
        self, per_tenant: int, bytes_per_tenant: int, on_forget: Callable[[Session], None]
    ) -> None:
        self._per_tenant = per_tenant
        self._bytes = bytes_per_tenant
        self._weights: Counter[str] = Counter()
        self._on_forget = on_forget
        # Insertion order is the order of last use: `get` moves a session to the end.
        self._by_tenant: dict[str, dict[str, Session]] = {}

    def create(self, tenant: str, config: SessionConfig) -> Session:
        """Begin a session. Raises QUOTA_EXCEEDED when all that the tenant may have are in use."""
        sessions = self._by_tenant.setdefault(tenant, {})
        session = Session(tenant, config)
        while sessions and (
            len(sessions) >= self._per_tenant
            or self._weights[tenant] + session.weight > self._bytes
        ):
            self._make_room(sessions)
        sessions[session.id] = session
        self._weights[tenant] += session.weight
        return session

    def get(self, tenant: str, session_id: str) -> Session:
        """Find a tenant's session; SESSION_NOT_FOUND also for another tenant's."""
        sessions = self._by_tenant.get(tenant, {})
        session = sessions.pop(session_id, None)
        if session is None:
            raise WarmlineError(Reason.SESSION_NOT_FOUND, "There is no such session.")
        sessions[session_id] = session
        return session

    def _make_room(self, sessions: dict[str, Session]) -> None:
        idle = next((session for session in sessions.values() if not session.busy), None)
        if idle is None:
            raise WarmlineError(
                Reason.QUOTA_EXCEEDED,
                "All sessions that this tenant may have are in use.",
                metadata={"limit": str(self._per_tenant), "quota": "sessions_per_tenant"},
                retry_after=10.0,
            )
        del sessions[idle.id]
        self._weights[idle.tenant] -= idle.weight
        self._on_forget(idle)
