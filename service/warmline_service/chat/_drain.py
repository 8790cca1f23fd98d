"""Whether the service is shutting down, known to all who must refuse what is new then."""

from __future__ import annotations

import asyncio

from warmline_service.errors import WarmlineError


class Drain:
    """Begins once; from then on `error` says so to callers."""

    def __init__(self) -> None:
        self.error: WarmlineError | None = None
        self._began = asyncio.Event()

    def begin(self, error: WarmlineError) -> None:
        """From now on what is new is refused with this error."""
        self.error = error
        self._began.set()

    def check(self) -> None:
        """Raise DRAINING once it has begun."""
        if self.error is not None:
            raise self.error

    async def began(self) -> WarmlineError:
        """Wait until it begins; says so as an error."""
        await self._began.wait()
        assert self.error is not None
        return self.error
