"""Settings of the audit log."""

from __future__ import annotations

from pydantic import Field

from warmline_service.config._base import Section


class AuditSettings(Section):
    """Who did what, in a table that shows when it was changed."""

    enabled: bool = Field(True, description="Whether it is kept.")
    retention_days: float = Field(
        365.0, ge=0, le=36500, description="Days that it is kept. 0: for ever."
    )
    request_bodies: bool = Field(
        False,
        description="Whether the text of messages is kept in it: redacted, at most 16 KiB of each.",
    )
    response_bodies: bool = Field(False, description="The same for what turns came to.")
