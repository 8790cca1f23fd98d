"""How often a tenant may ask, in a minute that slides: counted here, or in a Redis for all services."""

from __future__ import annotations

import asyncio
import time

import structlog
from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import StorageError
from redis.asyncio import ConnectionPool

from warmline_service.errors import Reason, WarmlineError

_log = structlog.get_logger(__name__)

_SCHEMES = ("redis://", "rediss://", "redis+unix://")
_TIMEOUT = 1.0
# While a Redis cannot be asked, calls are counted here, and it is asked again after so many seconds.
_ASK_AGAIN = 5.0


class Rates:
    """Counts the calls of each tenant; `aclose` at the end."""

    def __init__(self, url: str) -> None:
        """`url` is a Redis's, or empty for this service's own memory. Raises ValueError."""
        if url and not url.startswith(_SCHEMES):
            raise ValueError(f"limits.rates_url: must begin with one of {', '.join(_SCHEMES)}")
        self._here = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._shared: SlidingWindowCounterRateLimiter | None = None
        self._pool: ConnectionPool | None = None
        self._ask_at = 0.0
        if url:
            self._pool = ConnectionPool.from_url(
                url.replace("redis+unix", "unix", 1),
                socket_timeout=_TIMEOUT,
                socket_connect_timeout=_TIMEOUT,
                # Otherwise it looks its own version up on the disk, for each connection.
                driver_info=None,
            )
            shared = RedisStorage(
                f"async+{url}",
                wrap_exceptions=True,
                implementation="redispy",
                key_prefix="WARMLINE",
                connection_pool=self._pool,  # type: ignore[arg-type]  # as its documentation has it
            )
            self._shared = SlidingWindowCounterRateLimiter(shared)

    async def hit(self, tenant: str, per_minute: int) -> None:
        """Count one call of a tenant; raises RATE_LIMITED where it is one too many."""
        wait = await self._hit(RateLimitItemPerMinute(per_minute), tenant)
        if wait is None:
            return
        raise WarmlineError(
            Reason.RATE_LIMITED,
            f"This tenant may make {per_minute} requests a minute.",
            metadata={"limit": str(per_minute), "quota": "requests_per_minute"},
            retry_after=wait,
        )

    async def aclose(self) -> None:
        """Close the connections to the Redis."""
        if self._pool is not None:
            await self._pool.disconnect()

    async def _hit(self, item: RateLimitItemPerMinute, tenant: str) -> float | None:
        """None where the call is counted; otherwise in how many seconds it may be."""
        if self._shared is not None and time.monotonic() >= self._ask_at:
            try:
                async with asyncio.timeout(_TIMEOUT):
                    return await _counted(self._shared, item, tenant)
            except (StorageError, TimeoutError, OSError) as error:
                self._ask_at = time.monotonic() + _ASK_AGAIN
                _log.warning("rates are counted by each service alone", error=repr(error))
        return await _counted(self._here, item, tenant)


async def _counted(
    limiter: SlidingWindowCounterRateLimiter, item: RateLimitItemPerMinute, tenant: str
) -> float | None:
    if await limiter.hit(item, tenant):
        return None
    stats = await limiter.get_window_stats(item, tenant)
    return min(60.0, max(0.1, stats.reset_time - time.time()))
