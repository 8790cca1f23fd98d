"""What outlives the process: rows in SQL, content by key in files or S3, workspaces as archives."""

from warmline_service.store._api_keys import key_not_found
from warmline_service.store._archive import Archives
from warmline_service.store._archive_bounds import (
    ArchiveLimits,
    ArchiveRefused,
    ArchiveStats,
    ArchiveTooLarge,
)
from warmline_service.store._audit_store import BASE, HEAD, AuditStore
from warmline_service.store._blob_key import archive_name, archive_size, blob_key, blob_prefix
from warmline_service.store._blobs import Blobs
from warmline_service.store._credential_store import CredentialStore
from warmline_service.store._credentials import credential_not_found
from warmline_service.store._database import (
    Database,
    PostgresDatabase,
    SqliteDatabase,
    open_database,
)
from warmline_service.store._faults import BlobMissing, StoreMisconfigured, content_unavailable
from warmline_service.store._leases import elsewhere
from warmline_service.store._ledger import (
    Amount,
    Bounds,
    Granted,
    Ledger,
    Reservation,
    UsageRow,
    new_batch,
)
from warmline_service.store._roots import Roots
from warmline_service.store._rows import (
    TURN_ENDS,
    Anchor,
    AuditPage,
    AuditQuery,
    AuditRow,
    Claim,
    Claimed,
    CredentialRow,
    EventRow,
    KeyRow,
    PartRow,
    Query,
    SessionRow,
    Taken,
    TenantRow,
    TurnRow,
    TurnState,
    follows,
)
from warmline_service.store._store import Store, event_name, part_name
from warmline_service.store._tenant_store import TenantStore
from warmline_service.store._tenants import tenant_exists, tenant_not_found

__all__ = [
    "BASE",
    "HEAD",
    "TURN_ENDS",
    "Amount",
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
    "Bounds",
    "Claim",
    "Claimed",
    "CredentialRow",
    "CredentialStore",
    "Database",
    "EventRow",
    "Granted",
    "KeyRow",
    "Ledger",
    "PartRow",
    "PostgresDatabase",
    "Query",
    "Reservation",
    "Roots",
    "SessionRow",
    "SqliteDatabase",
    "Store",
    "StoreMisconfigured",
    "Taken",
    "TenantRow",
    "TenantStore",
    "TurnRow",
    "TurnState",
    "UsageRow",
    "archive_name",
    "archive_size",
    "blob_key",
    "blob_prefix",
    "content_unavailable",
    "credential_not_found",
    "elsewhere",
    "event_name",
    "follows",
    "key_not_found",
    "new_batch",
    "open_database",
    "part_name",
    "tenant_exists",
    "tenant_not_found",
]
