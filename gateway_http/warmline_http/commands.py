"""The command `warmline http`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from warmline_http._settings import HttpSettings

app = typer.Typer(no_args_is_help=True)

# sysexits.h: the configuration is wrong.
_EX_CONFIG = 78


@app.command()
def http(
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", envvar="WARMLINE_CONFIG", help="Settings file (TOML)."),
    ] = None,
    listen: Annotated[
        str | None, typer.Option(help="HOST:PORT; port 0 takes a free one. [127.0.0.1:8080]")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="The gRPC service: HOST:PORT, or unix:PATH. [127.0.0.1:50051]"),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option(
            hidden=True,
            help="Take the settings, a line of JSON, from standard input; stop when it is closed.",
        ),
    ] = False,
) -> None:
    """Serve HTTP, SSE and WebSocket in front of a running service. Ctrl-C stops it."""
    settings = _settings(config, follow=follow, listen=listen, target=target)
    try:
        # Late: whoever has installed Warmline without the extra `http` has every other command.
        import uvloop

        from warmline_http._serve import configure_logging, run
    except ImportError as error:
        _fail(f"{error.name} is missing: install `warmline[http]`.", 1)
    configure_logging()
    try:
        started = uvloop.run(run(settings, follow=follow))
    except OSError as error:
        _fail(f"cannot listen on {settings.listen}: {error.strerror or error}", 1)
    if not started:
        _fail("the HTTP server did not start; the reason is above", 1)


def _settings(
    config: Path | None, *, follow: bool, listen: str | None, target: str | None
) -> HttpSettings:
    # Late: every command of `warmline` would wait for these.
    from pydantic import ValidationError

    from warmline_http._settings import checked, load

    if not follow and config is None and Path("warmline.toml").is_file():
        config = Path("warmline.toml")
    try:
        if follow:
            return checked(_told(), listen=listen, target=target)
        return load(config, listen=listen, target=target)
    except ValidationError as error:
        lines = [
            f"  http.{'.'.join(str(part) for part in each['loc'])}: {each['msg']}"
            for each in error.errors(include_input=False, include_url=False)
        ]
        _fail("The settings are not valid:\n" + "\n".join(lines), _EX_CONFIG)
    except (OSError, ValueError) as error:
        _fail(f"The settings cannot be read: {error}", _EX_CONFIG)


def _told() -> dict[str, Any]:
    """The table that whoever started us has read; after it nothing comes but the end."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(0, 65536)
        if not piece:
            raise ValueError("standard input was closed before they came")
        line += piece
    table = json.loads(line)
    if not isinstance(table, dict):
        raise ValueError("they are no JSON object")  # noqa: TRY004  # told as any other bad setting
    return table


def _fail(message: str, code: int) -> NoReturn:
    print(f"warmline: {message}", file=sys.stderr)  # noqa: T201  # for people
    raise typer.Exit(code)
