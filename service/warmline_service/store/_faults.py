"""What can go wrong with stored content."""

from __future__ import annotations

from warmline_service.errors import Reason, WarmlineError

_RETRY_AFTER = 5.0


class BlobMissing(KeyError):  # noqa: N818  # named for what is the case
    """There is no blob under this key."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class StoreMisconfigured(ValueError):  # noqa: N818  # named for what is the case
    """A setting leads nowhere, and no retry will help."""


def content_unavailable() -> WarmlineError:
    """STORAGE_UNAVAILABLE for content; what is behind it is for the log, as its cause."""
    return WarmlineError(
        Reason.STORAGE_UNAVAILABLE,
        "Stored content cannot be reached at the moment.",
        retry_after=_RETRY_AFTER,
    )
