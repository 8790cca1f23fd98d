"""The command `warmline`: the service's own commands, and those of other installed parts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, NoReturn

# gRPC's fork support loses child processes under load; it is read when grpc is imported.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

import typer
from pydantic import ValidationError
from rich.console import Console

from warmline_service.config import Settings, load
from warmline_service.doctor import examine
from warmline_service.egress import serve_loopback
from warmline_service.errors import WarmlineError
from warmline_service.host import adopt_orphans, hide_memory, run_service, settle_memory, share_time
from warmline_service.server import Service, Unsafe
from warmline_service.telemetry import configure_logging
from warmline_service.tenants import hash_key, new_key
from warmline_service.worker import SlotsInUse

app = typer.Typer(
    help="Claude Code over gRPC, from a pool of warm processes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_err = Console(stderr=True, highlight=False)

# sysexits.h: the configuration is wrong.
_EX_CONFIG = 78

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", envvar="WARMLINE_CONFIG", help="Settings file (TOML)."),
]


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
    data_dir: Annotated[Path | None, typer.Option(help="Where slots live.")] = None,
    sandbox: Annotated[
        str | None,
        typer.Option(help="`strict`, `network`, or `none`: what is around CLI processes. [strict]"),
    ] = None,
) -> None:
    """Run the service. SIGTERM or Ctrl-C drains it and stops; a second one stops at once."""
    settings = _settings(
        config, listen=listen, data_dir=data_dir, provider=provider, sandbox=sandbox
    )
    configure_logging(settings.log)
    try:
        run_service(_serve(settings))
    except WarmlineError as error:
        _fail(error.message, _EX_CONFIG)
    except (Unsafe, SlotsInUse, ValueError) as error:
        _fail(str(error), _EX_CONFIG)
    except OSError as error:
        _fail(str(error), 1)


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
    host = settings.listen.rpartition(":")[0]
    print(f"warmline: serving on {host}:{service.port}", flush=True)  # noqa: T201  # for scripts
    await stopped
    _err.print("warmline: draining; once more to stop at once")
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
    _err.print(text, markup=False, soft_wrap=True)


@app.command()
def loopback(
    listen: Annotated[str, typer.Option(help="HOST:PORT.")] = "127.0.0.1:8089",
) -> None:
    """Serve the built-in model alone, in the Anthropic wire format, for tests of your own."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit():
        _fail(f"--listen {listen!r} is not HOST:PORT", 2)

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        runner = await serve_loopback(host.strip("[]"), int(port))
        print(f"warmline: loopback model on http://{listen}", flush=True)  # noqa: T201  # for scripts
        try:
            await stop.wait()
        finally:
            await runner.cleanup()

    asyncio.run(run())


@app.command()
def doctor(config: ConfigFile = None) -> None:
    """Say what is installed, what is missing, and what to do about it."""
    findings = examine(_settings(config))
    for finding in findings:
        mark = "[green]ok [/]" if finding.ok else "[red]no [/]"
        _err.print(f"{mark} {finding.what}: {finding.found}")
        if finding.advice:
            _err.print(f"    {finding.advice}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


@app.command("new-key")
def create_key(
    tenant: Annotated[str, typer.Argument(help="The tenant that the key is for.")],
) -> None:
    """Make an API key. It is shown once; the settings get only its hash."""
    identifier, key = new_key()
    _err.print("The key, for its owner; it is not stored anywhere:")
    print(key)  # noqa: T201  # the command's output
    _err.print("\nFor the settings file:\n")
    print(  # noqa: T201  # the command's output
        f'[[tenants]]\nid = "{tenant}"\n\n[[tenants.keys]]\nid = "{identifier}"\n'
        f'sha256 = "{hash_key(key)}"'
    )


@app.command("hash-key")
def print_hash() -> None:
    """Read an API key from standard input and print its hash for the settings."""
    print(hash_key(sys.stdin.readline().strip()))  # noqa: T201  # the command's output


def _settings(
    config: Path | None,
    *,
    listen: str | None = None,
    data_dir: Path | None = None,
    provider: str | None = None,
    sandbox: str | None = None,
) -> Settings:
    if config is None and Path("warmline.toml").is_file():
        config = Path("warmline.toml")
    given: dict[str, object] = {"listen": listen, "data_dir": data_dir}
    overrides = {name: value for name, value in given.items() if value is not None}
    try:
        if provider is not None:
            overrides["provider"] = {"kind": provider}
        if sandbox is not None:
            overrides["sandbox"] = {"level": sandbox}
        return load(config, **overrides)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(str(part) for part in each['loc'])}: {each['msg']}"
            for each in error.errors(include_input=False, include_url=False)
        ]
        _fail("The settings are not valid:\n" + "\n".join(lines), _EX_CONFIG)
    except (OSError, ValueError) as error:
        _fail(f"The settings cannot be read: {error}", _EX_CONFIG)


def _fail(message: str, code: int) -> NoReturn:
    _err.print(f"warmline: {message}", markup=False)
    raise typer.Exit(code)


def main() -> None:
    """Run the command line with the commands of every installed part."""
    for entry in entry_points(group="warmline.commands"):
        part = entry.load()
        app.registered_commands += part.registered_commands
        app.registered_groups += part.registered_groups
    app()
