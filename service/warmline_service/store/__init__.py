"""What outlives the process: rows in SQL, content by key in files or S3, workspaces as archives."""

from warmline_service.store._archive import Archives
from warmline_service.store._archive_bounds import (
    ArchiveLimits,
    ArchiveRefused,
    ArchiveStats,
    ArchiveTooLarge,
)
from warmline_service.store._audit_store import BASE, HEAD, AuditStore
from warmline_service.store._blob_key import blob_key, blob_prefix
from warmline_service.store._blobs import Blobs
from warmline_service.store._database import (
    Database,
    PostgresDatabase,
    SqliteDatabase,
    open_database,
)
from warmline_service.store._faults import BlobMissing, StoreMisconfigured, content_unavailable
from warmline_service.store._leases import elsewhere
from warmline_service.store._rows import (
    TURN_ENDS,
    Anchor,
    AuditPage,
    AuditQuery,
    AuditRow,
    Claim,
    Claimed,
    EventRow,
    PartRow,
    Query,
    SessionRow,
    TurnRow,
    TurnState,
)
from warmline_service.store._store import Store, event_name, part_name

__all__ = [
    "BASE",
    "HEAD",
    "TURN_ENDS",
    "Anchor",
    "ArchiveLimits",
    "ArchiveRefused",
    "ArchiveStats",
    "ArchiveTooLarge",
    "Archives",
    "AuditPage",
    "AuditQuery",
    "AuditRow",
    "AuditStore",
    "BlobMissing",
    "Blobs",
    "Claim",
    "Claimed",
    "Database",
    "EventRow",
    "PartRow",
    "PostgresDatabase",
    "Query",
    "SessionRow",
    "SqliteDatabase",
    "Store",
    "StoreMisconfigured",
    "TurnRow",
    "TurnState",
    "blob_key",
    "blob_prefix",
    "content_unavailable",
    "elsewhere",
    "event_name",
    "open_database",
    "part_name",
]
