"""Settings of the audit log."""

from __future__ import annotations

from pydantic import Field

from warmline_service.config._base import Section


class AuditSettings(Section):
    """Who did what, in a table that shows when it was changed."""

    enabled: bool = Field(
        True, description="Whether who did what is kept, in a log that shows where it was changed."
    )
    retention_days: float = Field(
        365.0, ge=0, le=36500, description="Days that an event is kept. 0: for ever."
    )
    request_bodies: bool = Field(
        False,
        description="Whether it has the text of messages: redacted, at most 16 KiB of each.",
    )
    response_bodies: bool = Field(False, description="The same for what turns came to.")
