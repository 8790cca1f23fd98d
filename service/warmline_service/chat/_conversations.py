"""All conversations of the service: opened by a stream, kept while the session lives, drained together."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from warmline_service.chat._conversation import Conversation
from warmline_service.chat._ports import Runtime
from warmline_service.errors import Reason, WarmlineError
from warmline_service.sessions import Session, SessionConfig, Sessions


class Conversations:
    """Many conversations by session; owns the tasks in which their turns run."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._sessions = Sessions(
            runtime.limits.sessions_per_tenant,
            runtime.limits.session_bytes_per_tenant,
            self._forget,
        )
        self._live: dict[str, Conversation] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining: WarmlineError | None = None
        self._drain_began = asyncio.Event()

    def open(self, tenant: str, session_id: str, config: SessionConfig) -> Conversation:
        """A new session's conversation, or that of `session_id`.

        Raises DRAINING, SESSION_NOT_FOUND, MODEL_NOT_FOUND and QUOTA_EXCEEDED, before anything starts.
        """
        if self._draining is not None:
            raise self._draining
        if session_id:
            return self._live[self._sessions.get(tenant, session_id).id]
        self._runtime.catalog.resolve(config.model)
        session = self._sessions.create(tenant, config)
        conversation = Conversation(session, self._runtime, self._spawn)
        self._live[session.id] = conversation
        return conversation

    async def drain(self, grace: float) -> None:
        """Refuse what is new, give running turns `grace` seconds, then end the rest by DRAINING."""
        error = WarmlineError(
            Reason.DRAINING, "The service is shutting down; connect again.", retry_after=2.0
        )
        self._draining = error
        self._drain_began.set()
        for conversation in self._live.values():
            conversation.begin_drain(error)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        if self._tasks:
            cuts = [asyncio.create_task(c.cut(error)) for c in self._live.values()]
            await asyncio.wait(cuts, timeout=2 * self._runtime.cli.interrupt_timeout)
            for cut in cuts:
                cut.cancel()
            await asyncio.gather(*cuts, return_exceptions=True)

    async def draining(self) -> WarmlineError:
        """Wait until the service drains; says so as an error."""
        await self._drain_began.wait()
        assert self._draining is not None
        return self._draining

    async def aclose(self) -> None:
        """Cancel what still runs and wait for it."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=10.0)

    @property
    def running(self) -> int:
        """How many sessions have a turn that runs or waits."""
        return len(self._tasks)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _forget(self, session: Session) -> None:
        del self._live[session.id]
        self._runtime.pool.forget(session.id)
