"""The tables. A change here comes with a migration; a test compares the two."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
    }
)

# SQLite counts rows in 64 bits for INTEGER only.
_Big = BigInteger().with_variant(Integer, "sqlite")
_ID = String(36)


def _of_session() -> Column[str]:
    return Column("session_id", _ID, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False)


# Times are seconds since the epoch (Unix), as the service that wrote them saw it.
sessions = Table(
    "sessions",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("title", String(80), nullable=False),
    Column("config", Text, nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("updated_at", Float(53), nullable=False),
    # As of the last turn's beginning or end; events may have gone further.
    Column("epoch", _Big, nullable=False),
    Column("last_seq", _Big, nullable=False),
    Column("turn_count", Integer, nullable=False),
    Column("forked_from", _ID, nullable=False),
    Column("forked_at", _ID, nullable=False),
    # The slot of the process that has the workspace; empty where it is archived, or there is none.
    Column("slot_id", String(64), nullable=False),
    Column("workspace_key", Text, nullable=False),
    Index(None, "tenant", "updated_at", "id"),
    Index(None, "tenant", "created_at", "id"),
)

# Who may write a session's events: only what comes with the epoch of this row.
leases = Table(
    "leases",
    metadata,
    Column("session_id", _ID, ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("node_id", _ID, nullable=False),
    Column("epoch", _Big, nullable=False),
    Index(None, "node_id"),
)

# A node renews one row for all of its leases. By the database's clock.
nodes = Table(
    "nodes",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("expires_at", Float(53), nullable=False),
)

# Names by which callers find a session again.
continuations = Table(
    "continuations",
    metadata,
    Column("session_id", _ID, ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("given_at", Float(53), nullable=False),
    Index("ix_continuations_tenant_name_given_at", "tenant", "name", "given_at"),
)

turns = Table(
    "turns",
    metadata,
    Column("id", _ID, primary_key=True),
    _of_session(),
    # Counts a session's turns in the order of their messages, from 1.
    Column("number", Integer, nullable=False),
    Column("key", String(128), nullable=False),
    Column("state", String(16), nullable=False),
    Column("first_seq", _Big, nullable=False),
    Column("last_seq", _Big, nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("ended_at", Float(53), nullable=True),
    # Of its events, while they are kept; 0 when they are not any more.
    Column("bytes", _Big, nullable=False),
    Index(None, "session_id", "number", unique=True),
    Index(None, "ended_at"),
)
# What a key of a tenant stands for: a message, or a session that was made by it.
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("key", String(128), primary_key=True),
    Column("content_hash", String(64), nullable=False),
    _of_session(),
    Column("turn_id", _ID, nullable=False),
    Column("expires_at", Float(53), nullable=False),
    Index(None, "expires_at"),
    Index(None, "session_id"),
)

events = Table(
    "events",
    metadata,
    Column("session_id", _ID, ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", _Big, primary_key=True),
    Column("epoch", _Big, nullable=False),
    Column("turn_id", _ID, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("time", Float(53), nullable=False),
    Column("parent", Text, nullable=False),
    Column("size", _Big, nullable=False),
    Column("spilled", Boolean, nullable=False),
    # The body as JSON; empty where it is in a blob.
    Column("body", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

# What the CLI keeps of the conversation, piece by piece as it came.
transcripts = Table(
    "transcripts",
    metadata,
    Column("session_id", _ID, ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("part", Integer, primary_key=True),
    Column("turn_id", _ID, nullable=False),
    Column("size", _Big, nullable=False),
    Column("spilled", Boolean, nullable=False),
    # JSON lines, compressed; empty where it is in a blob.
    Column("lines", LargeBinary, nullable=False),
)

tenants = Table(
    "tenants",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("display_name", String(200), nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("policy", Text, nullable=False),
)

# Client certificates that stand for a tenant.
identities = Table(
    "identities",
    metadata,
    Column("name", String(512), primary_key=True),
    Column("tenant", String(64), ForeignKey("tenants.id", ondelete="CASCADE"), nullable=False),
    Index(None, "tenant"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("tenant", String(64), ForeignKey("tenants.id", ondelete="CASCADE"), nullable=False),
    # Of the whole key, in hex: the key itself is nowhere.
    Column("sha256", String(64), nullable=False),
    # Names with spaces in between.
    Column("scopes", String(200), nullable=False),
    Column("note", String(200), nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("expires_at", Float(53), nullable=True),
    Column("revoked_at", Float(53), nullable=True),
    Column("last_used_at", Float(53), nullable=True),
    Index(None, "tenant", "id"),
)

# Model credentials that operators have stored for a tenant, which may be one of the settings file.
credentials = Table(
    "credentials",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),
    # What is secret of it, by the vault; its owner is the tenant.
    Column("sealed", Text, nullable=False),
    Column("is_default", Boolean, nullable=False),
    # Names with spaces in between.
    Column("scopes", Text, nullable=False),
    Column("subscription_type", String(64), nullable=False),
    Column("note", String(200), nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("updated_at", Float(53), nullable=False),
    Column("expires_at", Float(53), nullable=True),
    # Another one whenever the secret is another.
    Column("revision", String(32), nullable=False),
    Column("refreshed_at", Float(53), nullable=True),
    # Until then one service alone refreshes it; or, where `failure` says why one could not, nobody does.
    Column("claimed_until", Float(53), nullable=False),
    Column("failure", String(16), nullable=False),
)
Index(
    "ix_credentials_default",
    credentials.c.tenant,
    unique=True,
    sqlite_where=credentials.c.is_default,
    postgresql_where=credentials.c.is_default,
)

# What a tenant has used of a model on a day (UTC); a budget's month is a sum of its days.
usage = Table(
    "usage",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("model", String(128), primary_key=True),
    Column("turns", _Big, nullable=False),
    Column("requests", _Big, nullable=False),
    Column("input", _Big, nullable=False),
    Column("output", _Big, nullable=False),
    Column("cache_read", _Big, nullable=False),
    Column("cache_creation", _Big, nullable=False),
    Column("micro_usd", _Big, nullable=False),
)

# What is kept for turns that run; that of a service that was killed expires.
reservations = Table(
    "reservations",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("tokens", _Big, nullable=False),
    Column("micro_usd", _Big, nullable=False),
    Column("expires_at", Float(53), nullable=False),
    Index(None, "tenant"),
    Index(None, "expires_at"),
)

# The last batch of usage that each node has counted: one that is given again is not counted twice.
settlements = Table(
    "settlements",
    metadata,
    Column("node_id", _ID, primary_key=True),
    Column("batch", _ID, nullable=False),
)

# The vault's root key, sealed with the master key: one row.
vault_roots = Table(
    "vault_roots",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("wrapped", LargeBinary, nullable=False),
)

# Who did what, in the order in which it was stored; `seq` counts without gaps. Nothing here is ever
# changed, and only the oldest is removed.
audit_events = Table(
    "audit_events",
    metadata,
    Column("seq", _Big, primary_key=True, autoincrement=False),
    Column("time", Float(53), nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("actor", String(128), nullable=False),
    Column("action", String(64), nullable=False),
    Column("session_id", _ID, nullable=False),
    Column("turn_id", _ID, nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("outcome", String(64), nullable=False),
    # A JSON object.
    Column("detail", Text, nullable=False),
    # Hex: of the row before, and of this one with it.
    Column("prev_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Index(None, "time"),
    Index(None, "tenant", "seq"),
    Index(None, "session_id", "seq"),
)

# The two ends of the table above: `head` is its last row, `base` the last one that was removed.
audit_anchors = Table(
    "audit_anchors",
    metadata,
    Column("name", String(8), primary_key=True),
    Column("seq", _Big, nullable=False),
    Column("hash", String(64), nullable=False),
    # Of name, seq and hash, with the key of the log.
    Column("mac", String(64), nullable=False),
)
