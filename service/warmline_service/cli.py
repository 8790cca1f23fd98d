"""The command `warmline`: the service's own commands, and those of other installed parts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from importlib.metadata import entry_points
from typing import Annotated

# gRPC's fork support loses child processes under load; it is read when grpc is imported.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

import typer

from warmline_service.audit_commands import app as audit
from warmline_service.config import Settings
from warmline_service.doctor import examine
from warmline_service.egress import serve_loopback
from warmline_service.errors import WarmlineError
from warmline_service.host import (
    adopt_orphans,
    be_prompt,
    hide_memory,
    run_service,
    settle_memory,
    share_time,
)
from warmline_service.options import EX_CONFIG, ConfigFile, DataDir, err, fail, settings_of
from warmline_service.server import Service, Unsafe
from warmline_service.shim import NotStarted, Shim
from warmline_service.telemetry import configure_logging
from warmline_service.tenants import hash_key, new_key
from warmline_service.worker import SlotsInUse

app = typer.Typer(
    help="Claude Code over gRPC, from a pool of warm processes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(audit, name="audit")


@app.command()
def serve(
    config: ConfigFile = None,
    listen: Annotated[
        str | None, typer.Option(help="HOST:PORT; port 0 takes a free one. [127.0.0.1:50051]")
    ] = None,
    provider: Annotated[
        str | None,
        typer.Option(help="`anthropic`, or `loopback`: the built-in model. [anthropic]"),
    ] = None,
    data_dir: DataDir = None,
    sandbox: Annotated[
        str | None,
        typer.Option(help="`strict`, `network`, or `none`: what is around CLI processes. [strict]"),
    ] = None,
    http: Annotated[
        str | None,
        typer.Option(help="HOST:PORT: serve HTTP there as well; port 0 takes a free one."),
    ] = None,
) -> None:
    """Run the service. SIGTERM or Ctrl-C drains it and stops; a second one stops at once."""
    settings = settings_of(
        config, listen=listen, data_dir=data_dir, provider=provider, sandbox=sandbox, http=http
    )
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


async def _serve(settings: Settings) -> None:
    hide_memory()
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


@app.command()
def loopback(
    listen: Annotated[
        str, typer.Option(help="HOST:PORT; port 0 takes a free one.")
    ] = "127.0.0.1:8089",
) -> None:
    """Serve the built-in model alone, in the Anthropic wire format, for tests of your own."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit():
        fail(f"--listen {listen!r} is not HOST:PORT", 2)

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        runner = await serve_loopback(host.strip("[]"), int(port))
        taken = runner.addresses[0][1]
        print(f"warmline: loopback model on http://{host}:{taken}", flush=True)  # noqa: T201  # for scripts
        try:
            await stop.wait()
        finally:
            await runner.cleanup()

    asyncio.run(run())


@app.command()
def doctor(config: ConfigFile = None) -> None:
    """Say what is installed, what is missing, and what to do about it."""
    findings = examine(settings_of(config))
    for finding in findings:
        mark = "[green]ok [/]" if finding.ok else "[red]no [/]"
        err.print(f"{mark} {finding.what}: {finding.found}")
        if finding.advice:
            err.print(f"    {finding.advice}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


@app.command("new-key")
def create_key(
    tenant: Annotated[str, typer.Argument(help="The tenant that the key is for.")],
) -> None:
    """Make an API key. It is shown once; the settings get only its hash."""
    identifier, key = new_key()
    err.print("The key, for its owner; it is not stored anywhere:")
    print(key)  # noqa: T201  # the command's output
    err.print("\nFor the settings file:\n")
    print(  # noqa: T201  # the command's output
        f'[[tenants]]\nid = "{tenant}"\n\n[[tenants.keys]]\nid = "{identifier}"\n'
        f'sha256 = "{hash_key(key)}"'
    )


@app.command("hash-key")
def print_hash() -> None:
    """Read an API key from standard input and print its hash for the settings."""
    print(hash_key(sys.stdin.readline().strip()))  # noqa: T201  # the command's output


def main() -> None:
    """Run the command line with the commands of every installed part."""
    for entry in entry_points(group="warmline.commands"):
        part = entry.load()
        app.registered_commands += part.registered_commands
        app.registered_groups += part.registered_groups
    app()
