"""What a caller wants of a session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from warmline_service.sessions import PlacedFile, SessionConfig
from warmline_service.sessions.events import Detail


@dataclass(frozen=True)
class Opening:
    """What a caller wants of a session, checked. Without an id, `latest` and `fork` it is a new one.

    `after` is the seq after which events are told; `key` names a new session, `key_hash` what is asked
    for under it. `files` are there when a new session begins. `history` gives the entries of a transcript
    that it begins with, raises FIELD_INVALID, and may block: it is looked at for a new session only.
    `continuation` is the name of the session that is meant, if there is one.
    """

    session_id: str = ""
    config: SessionConfig = field(default_factory=SessionConfig)
    detail: Detail = Detail.BLOCKS
    after: int | None = None
    fork_session: str = ""
    fork_turn: str = ""
    latest: bool = False
    interrupt_when_lost: bool = False
    takeover: bool = False
    files: tuple[PlacedFile, ...] = ()
    key: str = ""
    key_hash: str = ""
    history: Callable[[], tuple[bytes, ...]] | None = field(default=None, repr=False)
    continuation: str = ""

    @property
    def forks_unchanged(self) -> bool:
        """Whether it is a fork that is set up as its original."""
        return bool(self.fork_session) and self.config == SessionConfig()
