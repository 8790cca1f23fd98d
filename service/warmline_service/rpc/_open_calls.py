"""Calls that are being served: one whose caller is let in no more is ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from warmline_service.errors import Reason, WarmlineError
from warmline_service.tenants import Principal

_log = structlog.get_logger(__name__)

# What another service on the same database has changed ends calls here after so many seconds.
_EVERY = 5.0
# That it cannot be said at this moment is no reason to end anything.
_REASONS = (Reason.KEY_INVALID, Reason.KEY_EXPIRED, Reason.TENANT_DISABLED)


@dataclass(eq=False)
class OpenCall:
    """One call; `ended` says why it was ended from outside."""

    task: asyncio.Task[object]
    ended: WarmlineError | None = None

    def end(self, error: WarmlineError) -> None:
        """Cancel it, once."""
        if self.ended is None:
            self.ended = error
            self.task.cancel()


@dataclass
class _Caller:
    principal: Principal
    calls: set[OpenCall] = field(default_factory=set)


class OpenCalls:
    """Counts calls in and out, and looks at their callers again. `start` first, `aclose` last.

    `changed` is set when somebody may have been shut out here.
    """

    def __init__(self, changed: asyncio.Event) -> None:
        self._changed = changed
        self._callers: dict[tuple[str, str], _Caller] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    @contextmanager
    def one_more(self, principal: Principal | None) -> Iterator[OpenCall]:
        """The call that the current task serves, while the context lasts; nobody's is never ended."""
        task = asyncio.current_task()
        assert task is not None
        call = OpenCall(task)
        if principal is None or principal.still is None:
            yield call
            return
        name = principal.tenant, principal.by
        caller = self._callers.setdefault(name, _Caller(principal))
        caller.calls.add(call)
        try:
            yield call
        finally:
            caller.calls.discard(call)
            if not caller.calls and self._callers.get(name) is caller:
                del self._callers[name]

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_EVERY):
                    await self._changed.wait()
            self._changed.clear()
            for caller in list(self._callers.values()):
                await self._look_at(caller)

    async def _look_at(self, caller: _Caller) -> None:
        still = caller.principal.still
        assert still is not None
        try:
            await still()
        except WarmlineError as error:
            if error.reason in _REASONS and caller.calls:
                tenant, by, calls = caller.principal.tenant, caller.principal.by, len(caller.calls)
                _log.info(
                    "calls ended", tenant=tenant, by=by, calls=calls, reason=error.reason.value
                )
                for call in list(caller.calls):
                    call.end(error)
        except Exception:  # noqa: BLE001  # the next look may do better, and others have to be looked at
            _log.exception("caller not looked at again", tenant=caller.principal.tenant)
