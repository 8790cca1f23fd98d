"""The commands `warmline keys ...`."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table
from warmline.v1 import admin_service_pb2 as pb
from warmline.v1 import options_pb2

from warmline_client.terminal._operate import (
    Json,
    KeyFile,
    as_json,
    moment_of,
    operating,
    span_of,
    when,
)
from warmline_client.terminal._options import DEFAULT_TARGET, CaFile, Target, Tls, err, tables
from warmline_client.terminal._render import cell, word
from warmline_client.terminal._run import run

app = typer.Typer(no_args_is_help=True, help="For operators: the API keys of tenants.")


class _Scope(StrEnum):
    """What a key may allow."""

    CHAT = "chat"
    READ = "read"
    ADMIN = "admin"


_Key = Annotated[
    str, typer.Argument(metavar="KEY_ID", help="The id of the key, as `list` shows it.")
]
_Expires = Annotated[
    str | None,
    typer.Option(metavar="WHEN", help="`90d`, `12h`, or a moment such as 2030-01-31T12:00Z."),
]


@app.command("list")
def list_(
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="Whose keys.")],
    target: Target = DEFAULT_TARGET,
    key_file: KeyFile = None,
    tls: Tls = False,
    ca: CaFile = None,
    json: Json = False,
) -> None:
    """List a tenant's keys, the newest last: when they were made, used, and end."""

    async def show_list() -> None:
        async with operating(target, key_file, tls=tls, ca=ca) as admin:
            found = [key async for key in admin.keys(tenant)]
        found.sort(key=lambda key: key.create_time.ToNanoseconds())
        if json:
            for key in found:
                print(as_json(key))  # noqa: T201  # the command's output
        else:
            tables.print(_table(found))

    run(show_list)


@app.command()
def create(
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="Whom it is for.")],
    target: Target = DEFAULT_TARGET,
    key_file: KeyFile = None,
    tls: Tls = False,
    ca: CaFile = None,
    scope: Annotated[
        list[_Scope] | None,
        typer.Option(help="What it allows; may be given several times. [chat and read]"),
    ] = None,
    note: Annotated[str, typer.Option(metavar="TEXT", help="For people.")] = "",
    expires: _Expires = None,
    json: Json = False,
) -> None:
    """Make a key and print it, this once."""
    ends = moment_of(expires) if expires is not None else None
    scopes = [options_pb2.Scope.Value(f"SCOPE_{each.name}") for each in scope or ()]

    async def make() -> None:
        async with operating(target, key_file, tls=tls, ca=ca) as admin:
            made = await admin.create_key(tenant, scopes=scopes, note=note, expires=ends)
        _hand_out(made, json=json)

    run(make)


@app.command()
def rotate(
    key_id: _Key,
    target: Target = DEFAULT_TARGET,
    key_file: KeyFile = None,
    tls: Tls = False,
    ca: CaFile = None,
    overlap: Annotated[
        str, typer.Option(metavar="SPAN", help="The old key goes on for so long.")
    ] = "24h",
    expires: _Expires = None,
    json: Json = False,
) -> None:
    """Make a key in place of another, which goes on for a while, and print it, this once."""
    ends = moment_of(expires) if expires is not None else None
    both = span_of(overlap)

    async def replace() -> None:
        async with operating(target, key_file, tls=tls, ca=ca) as admin:
            made = await admin.rotate_key(key_id, overlap=both, expires=ends)
        _hand_out(made, json=json)
        if not json:
            err.print(f"{key_id} ends {when(made.replaced.expire_time)}.", markup=False)

    run(replace)


@app.command()
def revoke(
    key_id: _Key,
    target: Target = DEFAULT_TARGET,
    key_file: KeyFile = None,
    tls: Tls = False,
    ca: CaFile = None,
    json: Json = False,
) -> None:
    """End a key now. Other services on the same database know within a few seconds."""

    async def end() -> None:
        async with operating(target, key_file, tls=tls, ca=ca) as admin:
            key = await admin.revoke_key(key_id)
        if json:
            print(as_json(key))  # noqa: T201  # the command's output

    run(end)


def _hand_out(made: pb.CreateApiKeyResponse | pb.RotateApiKeyResponse, *, json: bool) -> None:
    """The key on standard output, so that it can be piped to its owner."""
    if json:
        print(as_json(made))  # noqa: T201  # the command's output
        return
    err.print(f"Key {made.api_key.id}; it is not shown again:", markup=False)
    print(made.secret)  # noqa: T201  # the command's output


def _table(keys: list[pb.ApiKey]) -> Table:
    table = Table(box=None)
    for name in ("id", "state", "scopes", "made", "last use", "ends", "note"):
        table.add_column(name, no_wrap=name != "note")
    for each in keys:
        scopes = " ".join(word(options_pb2.Scope, scope, "SCOPE_") for scope in each.scopes)
        moments = [when(each.create_time), when(each.last_use_time), when(each.expire_time)]
        table.add_row(each.id, _state(each), scopes, *moments, cell(each.note, 80))
    return table


def _state(key: pb.ApiKey) -> str:
    if key.HasField("revoke_time"):
        return "revoked"
    if key.HasField("expire_time") and key.expire_time.ToNanoseconds() <= time.time_ns():
        return "expired"
    return "settings" if key.fixed else "active"
