"""What goes into the tables and comes out of them."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class TurnState(StrEnum):
    """How far a turn is, as the store knows it."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


# The kinds of events that begin and end a turn, and how far it is then.
TURN_STARTED = "turn_started"
TURN_ENDS = {"turn_completed": TurnState.COMPLETED, "turn_failed": TurnState.FAILED}


def follows(kind: str) -> bool:
    """Whether an event of this kind says how far its turn is, whose row then follows it."""
    return kind == TURN_STARTED or kind in TURN_ENDS


class EventRow(Struct, frozen=True, array_like=True):
    """One event. `body` is empty where it is `spilled` to a blob; `size` is the body's in bytes.

    Groups of them are stored as they stand: a new field goes last, and has a default.
    """

    session_id: str
    seq: int
    epoch: int
    turn_id: str
    kind: str
    time: float
    parent: str
    size: int
    spilled: bool
    body: bytes


class SessionRow(Struct, frozen=True):
    """One session. `config` is JSON; `slot_id` names the slot that has its workspace at the moment."""

    id: str
    tenant: str
    title: str
    config: str
    created_at: float
    updated_at: float
    epoch: int = 0
    last_seq: int = 0
    turn_count: int = 0
    forked_from: str = ""
    forked_at: str = ""
    slot_id: str = ""
    workspace_key: str = ""


class TurnRow(Struct, frozen=True):
    """One turn; `number` counts the session's turns from 1, `bytes` are of its kept events."""

    id: str
    session_id: str
    number: int
    key: str
    state: TurnState
    first_seq: int
    last_seq: int
    created_at: float
    ended_at: float | None = None
    bytes: int = 0


class Claim(Struct, frozen=True):
    """What an idempotency key stands for: its tenant's, for one content, until it expires."""

    tenant: str
    key: str
    content_hash: str
    now: float
    expires_at: float


class Claimed(Struct, frozen=True):
    """Who had a key first."""

    session_id: str
    turn_id: str


class PartRow(Struct, frozen=True):
    """A piece of a transcript: compressed JSON lines, empty where they are `spilled` to a blob."""

    session_id: str
    part: int
    turn_id: str
    size: int
    spilled: bool
    lines: bytes


class Query(Struct, frozen=True):
    """Which of a tenant's sessions, in which order; `after` is the last one of the page before."""

    order: str = "updated_at"
    descending: bool = True
    limit: int = 50
    after: tuple[float, str] | None = None
    updated_from: float | None = None
    updated_before: float | None = None
    title_contains: str = ""
    forked_from: str = ""


class TenantRow(Struct, frozen=True):
    """One tenant; `identities` are the client certificates that stand for it, `policy` is JSON."""

    id: str
    display_name: str
    disabled: bool
    created_at: float
    identities: tuple[str, ...] = ()
    policy: str = "{}"


class KeyRow(Struct, frozen=True):
    """What is kept of an API key. Times are seconds since the epoch; None: never."""

    id: str
    tenant: str
    sha256: str
    scopes: frozenset[str]
    note: str
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    last_used_at: float | None = None


class AuditRow(Struct, frozen=True):
    """Something that somebody did. `detail` is a JSON object; the hashes are in hex."""

    seq: int
    time: float
    tenant: str
    actor: str
    action: str
    session_id: str
    turn_id: str
    request_id: str
    outcome: str
    detail: str
    prev_hash: str
    hash: str


class Taken(Struct, frozen=True):
    """A session as its new writer has it: under the lease `token`, after the event at `position`.

    `parts` counts the pieces of its transcript; `unfinished` are its turns that have no end yet.
    """

    row: SessionRow
    token: int
    position: tuple[int, int]
    parts: int
    unfinished: tuple[TurnRow, ...]


class Anchor(Struct, frozen=True):
    """An end of the audit log: `head` is its last row, `base` the last one that was removed."""

    name: str
    seq: int
    hash: str
    mac: str


class AuditQuery(Struct, frozen=True):
    """Which rows of the audit log; `action` is how it begins, `after` the last one of the page before."""

    descending: bool = True
    limit: int = 50
    after: int | None = None
    tenant: str = ""
    actor: str = ""
    action: str = ""
    session_id: str = ""
    since: float | None = None
    before: float | None = None


class AuditPage(Struct, frozen=True):
    """Some rows as they stand in the table, with its ends; `lowest` is the least seq that there is."""

    head: Anchor | None
    rows: list[AuditRow]
    base: Anchor | None
    lowest: int | None


class CredentialRow(Struct, frozen=True):
    """A stored model credential. Times are seconds since the epoch; None: never.

    `sealed` is what is secret of it, `revision` another one whenever that is another. `claimed_until` is when
    somebody else may refresh it, `failure` why it could not be refreshed last time.
    """

    tenant: str
    name: str
    kind: str
    sealed: str
    is_default: bool
    scopes: tuple[str, ...]
    subscription_type: str
    note: str
    created_at: float
    updated_at: float
    expires_at: float | None
    revision: str
    refreshed_at: float | None = None
    claimed_until: float = 0.0
    failure: str = ""
