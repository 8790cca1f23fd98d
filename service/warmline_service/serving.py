"""What `warmline serve` and `warmline loopback` run: up, told where, and down in good order."""

from __future__ import annotations

import asyncio
import contextlib
import signal

from warmline_service.config import Settings
from warmline_service.egress import serve_loopback
from warmline_service.errors import WarmlineError
from warmline_service.host import (
    adopt_orphans,
    be_prompt,
    hide_memory,
    open_many_files,
    run_service,
    settle_memory,
    share_time,
)
from warmline_service.options import EX_CONFIG, err, fail
from warmline_service.server import Service, Unsafe
from warmline_service.shim import NotStarted, Shim
from warmline_service.telemetry import configure_logging
from warmline_service.worker import SlotsInUse


def serve(settings: Settings) -> None:
    """Run the service until it is told to stop; ends the command where it cannot run."""
    configure_logging(settings.log)
    try:
        run_service(_serve(settings))
    except WarmlineError as error:
        fail(error.message, EX_CONFIG)
    except (Unsafe, SlotsInUse, ValueError) as error:
        fail(str(error), EX_CONFIG)
    except NotStarted as error:
        fail(str(error), error.code)
    except OSError as error:
        fail(str(error), 1)


def serve_model(host: str, port: int) -> None:
    """Run the loopback model until it is told to stop."""
    asyncio.run(_serve_model(host, port))


async def _serve(settings: Settings) -> None:
    hide_memory()
    open_many_files()
    if settings.sandbox.level != "none":
        adopt_orphans()
    service = Service(settings, _show_key)
    stopping, hurry = service.drain_asked, asyncio.Event()

    def stop() -> None:
        (hurry if stopping.is_set() else stopping).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    starting = asyncio.create_task(service.start())
    stopped = asyncio.create_task(stopping.wait())
    await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if stopped.done() and not starting.done():
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        return
    starting.result()
    settle_memory()
    share_time()
    be_prompt()
    host = settings.listen.rpartition(":")[0]
    print(f"warmline: serving on {host}:{service.port}", flush=True)  # noqa: T201  # for scripts
    shim = Shim(settings, service.private) if service.private else None
    try:
        if shim is not None:
            await _start_shim(shim, stopping)
        await stopped
        err.print("warmline: draining; once more to stop at once")
    finally:
        # Its streams are told of the drain, and end as those of the service do.
        await _stop(service, hurry)
        if shim is not None:
            await shim.stop()


async def _start_shim(shim: Shim, stopping: asyncio.Event) -> None:
    """Start it, unless it is time to stop already. Raises NotStarted and OSError."""
    starting = asyncio.create_task(shim.start())
    stopped = asyncio.create_task(stopping.wait())
    await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if starting.done():
        print(starting.result(), flush=True)  # noqa: T201  # for scripts
        return
    starting.cancel()
    await asyncio.wait({starting})


async def _stop(service: Service, hurry: asyncio.Event) -> None:
    draining = asyncio.create_task(service.stop())
    hurried = asyncio.create_task(hurry.wait())
    await asyncio.wait({draining, hurried}, return_when=asyncio.FIRST_COMPLETED)
    hurried.cancel()
    if not draining.done():
        draining.cancel()
        await asyncio.wait({draining})
        await service.stop(grace=0.0)
        return
    draining.result()


def _show_key(key: str) -> None:
    text = (
        "warmline: callers have to show an API key, and there was none. This is the first, with every scope; "
        "it is not shown again. `warmline tenants` and `warmline keys` make others with it.\n\n"
        f"    {key}\n"
    )
    err.print(text, markup=False, soft_wrap=True)


async def _serve_model(host: str, port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner = await serve_loopback(host.strip("[]"), port)
    taken = runner.addresses[0][1]
    print(f"warmline: loopback model on http://{host}:{taken}", flush=True)  # noqa: T201  # for scripts
    try:
        await stop.wait()
    finally:
        await runner.cleanup()
