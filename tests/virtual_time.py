"""An event loop whose clock jumps to the next deadline, so that an hour of timeouts takes no time.

Threads of the loop's executor are waited for in real time. Sockets and children are not: a test
that uses them belongs on the stock loop.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeAlias, TypeVar, TypeVarTuple

# Far beyond any setting; a periodic task under a test that waits for ever ends here.
HORIZON = 30 * 24 * 3600.0
# Real seconds that a thread of the executor may take.
THREAD_PATIENCE = 20.0

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Ready: TypeAlias = list[tuple[selectors.SelectorKey, int]]


class _JumpingSelector(selectors.DefaultSelector):
    """Waits for nothing but threads: where nothing is ready, time moves on instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.threads = 0

    def select(self, timeout: float | None = None) -> Ready:
        """What is ready now; else move the clock by `timeout` seconds."""
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if self.threads:
            return self._wait_for_thread()
        if timeout is None:
            raise RuntimeError("every task is blocked and no deadline is pending")
        self.now += timeout
        if self.now > HORIZON:
            raise RuntimeError(f"nothing ended within {HORIZON:.0f} s of virtual time")
        return []

    def _wait_for_thread(self) -> Ready:
        ready = super().select(THREAD_PATIENCE)
        if not ready:
            raise RuntimeError(f"a thread did not end within {THREAD_PATIENCE:.0f} s")
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop whose `time()` starts at 0 and is as late as the last deadline that was reached."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._jumping.now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """As the stock loop's; the clock stands still until the call has ended."""
        future = super().run_in_executor(executor, func, *args)
        self._jumping.threads += 1
        future.add_done_callback(self._thread_ended)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """As the stock loop's, which joins the executor's threads from one more thread."""
        self._jumping.threads += 1
        try:
            await super().shutdown_default_executor()
        finally:
            self._jumping.threads -= 1

    def _thread_ended(self, _: object) -> None:
        self._jumping.threads -= 1


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` on a loop of its own with virtual time, and give back what it returns."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
