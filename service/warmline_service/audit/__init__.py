"""Who did what: a log that is only added to, chained so that it shows where it was changed."""

from warmline_service.audit._caller import SERVICE, UNKNOWN, Caller, caller, set_caller
from warmline_service.audit._chain import KEY_PURPOSE, Chain
from warmline_service.audit._head_file import HeadFile, head_file
from warmline_service.audit._log import AuditLog
from warmline_service.audit._redact import redacted, redacted_text
from warmline_service.audit._tally import network_of
from warmline_service.audit._verify import Broken, Verdict, verify

__all__ = [
    "KEY_PURPOSE",
    "SERVICE",
    "UNKNOWN",
    "AuditLog",
    "Broken",
    "Caller",
    "Chain",
    "HeadFile",
    "Verdict",
    "caller",
    "head_file",
    "network_of",
    "redacted",
    "redacted_text",
    "set_caller",
    "verify",
]
