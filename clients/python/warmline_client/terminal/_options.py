"""Options that several commands have, and where commands write."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

DEFAULT_TARGET = "127.0.0.1:50051"
# For so many seconds a command tries again by itself; whoever waits at a terminal decides then.
PATIENCE = 3.0

# Into a pipe a table goes whole.
_PIPE_WIDTH = 200

out = Console(highlight=False, soft_wrap=True)
tables = Console(highlight=False, width=None if out.is_terminal else _PIPE_WIDTH)
err = Console(stderr=True, highlight=False)

Target = Annotated[
    str, typer.Option("--target", "-t", envvar="WARMLINE_TARGET", help="HOST:PORT of the service.")
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        envvar="WARMLINE_API_KEY",
        help="API key. Better in the environment: others can read a command line.",
    ),
]
CaFile = Annotated[
    Path | None, typer.Option("--ca", help="PEM file that verifies the server: turns TLS on.")
]
Tls = Annotated[bool, typer.Option("--tls", help="Use TLS with the system's certificates.")]
Model = Annotated[str, typer.Option("--model", "-m", help="Model id or alias; see `models`.")]
System = Annotated[str, typer.Option(help="System prompt, in place of the CLI's own.")]
Session = Annotated[
    str,
    typer.Option(
        "--session", "-s", help="Go on with this session: its id, or the beginning of it."
    ),
]
Receipts = Annotated[bool, typer.Option(help="Show where each turn's time went.")]
SessionId = Annotated[
    str, typer.Argument(metavar="ID", help="The session: its id, or the beginning of it.")
]
