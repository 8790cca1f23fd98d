"""A bounded set of processes, lent fairly to sessions: hot, warm or cold, kept and replaced."""

from warmline_service.pool._actions import Why
from warmline_service.pool._budget import capacity, default_memory_budget
from warmline_service.pool._events import PoolEvents, SilentEvents
from warmline_service.pool._first_spares import FirstSpares
from warmline_service.pool._lease import Lease
from warmline_service.pool._pool import Pool
from warmline_service.pool._process import Measure, PooledProcess, measure_in_thread
from warmline_service.pool._stats import PoolStats
from warmline_service.pool._want import LeaseExpired, SessionHasLease, Share, Start, Want

__all__ = [
    "FirstSpares",
    "Lease",
    "LeaseExpired",
    "Measure",
    "Pool",
    "PoolEvents",
    "PoolStats",
    "PooledProcess",
    "SessionHasLease",
    "Share",
    "SilentEvents",
    "Start",
    "Want",
    "Why",
    "capacity",
    "default_memory_budget",
    "measure_in_thread",
]
