"""A whole service that the tests of a module share: on a loop of its own, in a thread of its own."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from conversing import Model
from running import running_service
from warmline_service.server import Service

_UP, _DOWN = 60.0, 60.0


class ServiceThread:
    """A service with these settings; whoever uses it marks the module `shared_service`."""

    def __init__(self, **changes: Any) -> None:
        self._changes = changes
        self._ready: threading.Event = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._main(),))
        self._service: Service | None = None

    @property
    def service(self) -> Service:
        """The service itself, to look at."""
        assert self._service is not None
        return self._service

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.service.port

    def start(self) -> None:
        """Start; it is up on return."""
        self._thread.start()
        assert self._ready.wait(_UP)
        assert self.port

    def stop(self) -> None:
        """Drain, stop, and wait for the thread."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(_DOWN)
        assert not self._thread.is_alive()

    async def _main(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with running_service(**self._changes) as service:
                self._service = service
                self._ready.set()
                await self._stopping.wait()
        finally:
            self._ready.set()


@contextmanager
def shared_service(model: Model, **changes: Any) -> Iterator[ServiceThread]:
    """One with this model, while the context lasts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warmline_service.server.make_provider", lambda *_: model.provider)
        thread = ServiceThread(**changes)
        thread.start()
    yield thread
    thread.stop()
