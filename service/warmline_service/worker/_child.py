"""The operating system's side of one process: its pipes, its signals, its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from warmline_service.worker._input import Input
from warmline_service.worker._output import Output

# A descendant may hold the output open; what the process itself wrote is there by then.
_LAST_WORDS = 0.5


class Child:
    """A spawned process that leads a session, and so a process group, of its own.

    Not asyncio's own: that needs a watcher, or a thread, for its end, and uvloop's forks, which stops the
    loop for as long as it takes to copy the tables of all the service's memory.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], pipes: tuple[Input, Output, Output]
    ) -> None:
        self._process = process
        self._input, self.output, self.errors = pipes
        self._loop = asyncio.get_running_loop()
        self._reaped: asyncio.Future[None] = self._loop.create_future()
        self.pid = process.pid
        # Readable when it has ended.
        self._pidfd = os.pidfd_open(process.pid)
        self._loop.add_reader(self._pidfd, self._on_end)

    @classmethod
    async def spawn(
        cls,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: Path,
        *,
        fds: Sequence[int] = (),
        umask: int = -1,
    ) -> Child:
        """Start it. Call from the event loop's own thread: it dies with the thread that spawned it.

        `fds` are descriptors that it inherits beside its pipes; `umask`: -1 for the service's own.

        Raises OSError.
        """
        pipes: list[int] = []
        try:
            for _ in range(3):
                pipes += os.pipe()
            # By vfork: the loop waits for the exec, a millisecond or two, and copies nothing.
            process = subprocess.Popen(  # noqa: ASYNC220  # see above
                argv,
                stdin=pipes[0],
                stdout=pipes[3],
                stderr=pipes[5],
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
                pass_fds=fds,
                umask=umask,
            )
        except BaseException:
            for fd in pipes:
                os.close(fd)
            raise
        for its in pipes[0], pipes[3], pipes[5]:
            os.close(its)
        return cls(process, (Input(pipes[1]), Output(pipes[2]), Output(pipes[4])))

    @property
    def returncode(self) -> int | None:
        """The exit code, or minus the signal; None while it runs."""
        return self._process.returncode

    async def write(self, data: bytes, timeout: float) -> None:
        """Write all of `data`; raises TimeoutError or OSError, after which the pipe is no good."""
        async with asyncio.timeout(timeout):
            await self._input.write(data)

    def close_stdin(self) -> None:
        """Let it see the end of its input."""
        self._input.close()

    def signal_group(self, number: signal.Signals) -> None:
        """Signal the process and what stayed in its group; nothing once it has been reaped."""
        # The number is ours only until it is reaped.
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    async def gone(self, timeout: float) -> bool:
        """Whether it has been reaped, waiting for that at most `timeout` seconds."""
        await asyncio.wait({self._reaped}, timeout=timeout)
        return self._reaped.done()

    @property
    def reaped(self) -> asyncio.Future[None]:
        """Done when it has ended and been waited for."""
        return self._reaped

    def close(self) -> None:
        """Close this end of the pipes. Idempotent."""
        self._input.abort()
        self.output.close()
        self.errors.close()
        if not self._reaped.done():
            # It would not die; whoever asked for that has said so.
            self._forget()

    def _on_end(self) -> None:
        if self._process.poll() is not None:
            self._forget()
            self._reaped.set_result(None)

    def _forget(self) -> None:
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1


async def ended(
    argv: Sequence[str], env: Mapping[str, str], timeout: float
) -> tuple[int | None, bytes]:
    """Run something to its end: its exit code and what it wrote to stdout; None where it took longer.

    Nothing of its group is left then. Raises OSError.
    """
    child = await Child.spawn(argv, env, Path("/"))
    said = bytearray()
    child.output.listen(said.extend)
    child.errors.listen(lambda _: None)
    child.close_stdin()
    try:
        in_time = await child.gone(timeout)
        await asyncio.wait({child.output.ended}, timeout=_LAST_WORDS if in_time else 0)
        return (child.returncode if in_time else None), bytes(said)
    finally:
        child.signal_group(signal.SIGKILL)
        await child.gone(timeout)
        child.close()
