"""One session while this service is its writer."""

from __future__ import annotations

from dataclasses import dataclass, field

from warmline_service.sessions._config import SessionConfig
from warmline_service.store import Taken


@dataclass(eq=False)
class Session:
    """A conversation's identity and its counters.

    `token` is the epoch of the lease, under which its events are stored. `epoch` rises with every process
    that the session gets, `seq` with every event, `turns` with every message. `parts` counts the
    pieces of its transcript. `stored` is the seq of the last event that is in the store: what comes after it
    may still be lost, so no cursor that is given away may say more.
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
    stored: int = field(init=False)

    def __post_init__(self) -> None:
        self.stored = self.seq

    def next_seq(self) -> int:
        """Count one more event."""
        self.seq += 1
        return self.seq


def session_of(taken: Taken, config: SessionConfig) -> Session:
    """The session that was taken, which is set up so."""
    row, (epoch, seq) = taken.row, taken.position
    return Session(
        tenant=row.tenant,
        id=row.id,
        config=config,
        token=taken.token,
        epoch=max(taken.token, epoch, row.epoch),
        seq=max(seq, row.last_seq),
        turns=row.turn_count,
        parts=taken.parts,
        workspace_key=row.workspace_key,
    )
