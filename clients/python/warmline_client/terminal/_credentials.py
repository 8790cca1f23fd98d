"""The commands `warmline credentials ...`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf import json_format
from rich.table import Table
from warmline.v1 import admin_service_pb2 as pb

from warmline_client.terminal._operate import Json, KeyFile, as_json, operating, when
from warmline_client.terminal._options import DEFAULT_TARGET, CaFile, Target, Tls, tables
from warmline_client.terminal._render import cell, word
from warmline_client.terminal._run import fail, run

app = typer.Typer(no_args_is_help=True, help="For operators: what pays for tenants' sessions.")

_MOST = 64 * 1024
_Tenant = Annotated[str, typer.Argument(metavar="TENANT", help="Whose it is.")]
_Name = Annotated[str, typer.Argument(metavar="NAME", help="Its name among the tenant's.")]


@app.command("set")
def set_(
    tenant: _Tenant,
    name: _Name,
    target: Target = DEFAULT_TARGET,
    key_file: KeyFile = None,
    tls: Tls = False,
    ca: CaFile = None,
    file: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="A file with the secret. Otherwise: standard input."),
    ] = None,
    oauth: Annotated[
        bool,
        typer.Option(
            "--oauth",
            help=(
                "The secret is no API key but a JSON object: `access_token`, `refresh_token`, `expire_time`, "
                "`scopes`, `subscription_type`."
            ),
        ),
    ] = False,
    default: Annotated[
        bool, typer.Option("--default", help="Sessions that name none use it.")
    ] = False,
    note: Annotated[str, typer.Option(metavar="TEXT", help="For people.")] = "",
    json: Json = False,
) -> None:
    """Store a model credential, in place of the one by its name. Nobody can read it back."""
    request = pb.SetCredentialRequest(tenant_id=tenant, name=name, is_default=default, note=note)
    secret = _secret(file)
    if oauth:
        request.oauth.CopyFrom(_tokens(secret))
    else:
        request.api_key = secret

    async def store() -> None:
        async with operating(target, key_file, tls=tls, ca=ca) as admin:
            _show([await admin.set_credential(request)], json=json)

    run(store)


@app.command("list")
def list_(
    tenant: _Tenant,
    target: Target = DEFAULT_TARGET,
    key_file: KeyFile = None,
    tls: Tls = False,
    ca: CaFile = None,
    json: Json = False,
) -> None:
    """List a tenant's credentials: what they are and when they expire."""

    async def show_list() -> None:
        async with operating(target, key_file, tls=tls, ca=ca) as admin:
            _show([credential async for credential in admin.credentials(tenant)], json=json)

    run(show_list)


@app.command()
def delete(
    tenant: _Tenant,
    name: _Name,
    target: Target = DEFAULT_TARGET,
    key_file: KeyFile = None,
    tls: Tls = False,
    ca: CaFile = None,
) -> None:
    """Forget a credential. Sessions that name it fail until there is one by its name again."""

    async def remove() -> None:
        async with operating(target, key_file, tls=tls, ca=ca) as admin:
            await admin.delete_credential(tenant, name)

    run(remove)


def _secret(file: Path | None) -> str:
    """What is never on a command line, which others can read."""
    if file is None and sys.stdin.isatty():
        return str(typer.prompt("Secret", hide_input=True, err=True)).strip()
    try:
        with sys.stdin if file is None else file.open(encoding="ascii") as source:
            text = source.read(_MOST + 1)
    except (OSError, ValueError):
        # Without the error, which may hold what was read.
        fail("The secret cannot be read: it has to be a file of ASCII.")
    if len(text) > _MOST:
        fail("The secret is longer than any is.")
    return text.strip()


def _tokens(text: str) -> pb.OAuthTokens:
    try:
        return json_format.Parse(text, pb.OAuthTokens())
    except (json_format.ParseError, RecursionError):
        fail("The tokens are no JSON object with the fields that `--help` names.")


def _show(credentials: list[pb.StoredCredential], *, json: bool) -> None:
    if json:
        for credential in credentials:
            print(as_json(credential))  # noqa: T201  # the command's output
        return
    table = Table(box=None)
    for name in ("name", "kind", "default", "expires", "updated", "plan", "scopes", "note"):
        table.add_column(name, no_wrap=name not in ("scopes", "note"))
    for each in credentials:
        table.add_row(
            each.name,
            word(pb.StoredCredential.Kind, each.kind, "KIND_"),
            "yes" if each.is_default else "",
            when(each.expire_time),
            when(each.update_time),
            cell(each.subscription_type, 40),
            cell(" ".join(each.scopes), 80),
            cell(each.note, 80),
        )
    tables.print(table)
