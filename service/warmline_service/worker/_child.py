"""The operating system's side of one process: its pipes, its signals, its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import PIPE, Process, SubprocessStreamProtocol
from collections.abc import Mapping, Sequence
from pathlib import Path

from warmline_service.worker._output import READ_BYTES, Output


class _Protocol(SubprocessStreamProtocol):
    """Tells when the process itself has ended, even if a descendant still holds its pipes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=READ_BYTES, loop=loop)
        self.reaped: asyncio.Future[None] = loop.create_future()

    def process_exited(self) -> None:
        super().process_exited()
        if not self.reaped.done():
            self.reaped.set_result(None)


class Child:
    """A spawned process that leads a session, and so a process group, of its own."""

    def __init__(
        self,
        process: Process,
        transport: asyncio.SubprocessTransport,
        reaped: asyncio.Future[None],
        output: Output,
    ) -> None:
        self._process = process
        self._transport = transport
        self._reaped = reaped
        self.output = output
        self.pid = process.pid

    @classmethod
    async def spawn(cls, argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> Child:
        """Start it. Call from the event loop's own thread: it dies with the thread that spawned it.

        Raises OSError.
        """
        loop = asyncio.get_running_loop()
        ours, its = os.pipe()
        output = Output(ours)
        try:
            transport, protocol = await loop.subprocess_exec(
                lambda: _Protocol(loop),
                *argv,
                stdin=PIPE,
                stdout=its,
                stderr=PIPE,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
            )
        except BaseException:
            output.close()
            raise
        finally:
            os.close(its)
        return cls(Process(transport, protocol, loop), transport, protocol.reaped, output)

    @property
    def returncode(self) -> int | None:
        """The exit code, or minus the signal; None while it runs."""
        return self._transport.get_returncode()

    @property
    def stderr(self) -> asyncio.StreamReader:
        """What it complains about."""
        assert self._process.stderr is not None  # spawned with PIPE
        return self._process.stderr

    @property
    def _stdin(self) -> asyncio.StreamWriter:
        assert self._process.stdin is not None  # spawned with PIPE
        return self._process.stdin

    async def write(self, data: bytes, timeout: float) -> None:
        """Write all of `data`; raises TimeoutError or OSError, after which the pipe is no good."""
        self._stdin.write(data)
        async with asyncio.timeout(timeout):
            await self._stdin.drain()

    def close_stdin(self) -> None:
        """Let it see the end of its input."""
        self._stdin.close()

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
        """Close this end of the pipes."""
        self.output.close()
        self._transport.close()
