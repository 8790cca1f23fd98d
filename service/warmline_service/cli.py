"""The command `warmline`: the service's own commands, and those of other installed parts.

What a command needs is imported when it runs: all that the service needs takes ten times as long as the
client's commands, which need none of it.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import entry_points
from typing import Annotated

# gRPC's fork support loses child processes under load; it is read when grpc is imported.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

import typer

from warmline_service.audit_commands import app as audit
from warmline_service.options import ConfigFile, DataDir, err, fail, settings_of

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
    from warmline_service.serving import serve as run

    run(settings)


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

    from warmline_service.serving import serve_model

    serve_model(host, int(port))


@app.command()
def doctor(config: ConfigFile = None) -> None:
    """Say what is installed, what is missing, and what to do about it."""
    from warmline_service.doctor import examine

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
    from warmline_service.tenants import hash_key, new_key

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
    from warmline_service.tenants import hash_key

    print(hash_key(sys.stdin.readline().strip()))  # noqa: T201  # the command's output


def main() -> None:
    """Run the command line with the commands of every installed part."""
    for entry in entry_points(group="warmline.commands"):
        part = entry.load()
        app.registered_commands += part.registered_commands
        app.registered_groups += part.registered_groups
    app()
