"""One session while this service is its writer."""

from __future__ import annotations

from dataclasses import dataclass

from warmline_service.sessions._config import SessionConfig
from warmline_service.store import SessionRow


@dataclass(eq=False)
class Session:
    """A conversation's identity and its counters.

    `token` is the epoch of the lease, under which its events are stored. `epoch` rises with every process
    that the session gets, `seq` with every event, `turns` with every message. `parts` counts the
    pieces of its transcript.
    """

    tenant: str
    id: str
    config: SessionConfig
    token: int
    epoch: int
    seq: int
    turns: int
    parts: int
    workspace_key: str

    def next_seq(self) -> int:
        """Count one more event."""
        self.seq += 1
        return self.seq


def session_of(
    row: SessionRow, config: SessionConfig, token: int, position: tuple[int, int], parts: int
) -> Session:
    """The session of a row, under a lease; `position` is that of its last event."""
    epoch, seq = position
    return Session(
        tenant=row.tenant,
        id=row.id,
        config=config,
        token=token,
        epoch=max(token, epoch, row.epoch),
        seq=max(seq, row.last_seq),
        turns=row.turn_count,
        parts=parts,
        workspace_key=row.workspace_key,
    )
