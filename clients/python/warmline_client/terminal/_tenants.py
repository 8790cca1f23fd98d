"""The commands `warmline tenants ...`."""

from __future__ import annotations

import sys
from json import loads
from typing import Annotated

import typer
from google.protobuf.json_format import ParseDict, ParseError
from rich.table import Table
from warmline.v1 import admin_service_pb2 as pb

from warmline_client.terminal._operate import Json, KeyFile, as_json, operating, when
from warmline_client.terminal._options import DEFAULT_TARGET, CaFile, Target, Tls, tables
from warmline_client.terminal._render import cell
from warmline_client.terminal._run import fail, run

app = typer.Typer(no_args_is_help=True, help="For operators: who may use the service.")

_Id = Annotated[str, typer.Argument(metavar="ID", help="The tenant.")]
_Policy = Annotated[
    str | None,
    typer.Option(
        "--policy",
        metavar="JSON",
        help='What it may have and use, as a whole: \'{"usd_per_day": 5, "models": ["haiku"]}\'.',
    ),
]
_Name = Annotated[str | None, typer.Option("--name", metavar="TEXT", help="For people.")]


@app.command("list")
def list_(
    target: Target = DEFAULT_TARGET,
    key_file: KeyFile = None,
    tls: Tls = False,
    ca: CaFile = None,
    json: Json = False,
) -> None:
    """List the tenants, those of the settings file too."""

    async def show_list() -> None:
        async with operating(target, key_file, tls=tls, ca=ca) as admin:
            _show([tenant async for tenant in admin.tenants()], json=json)

    run(show_list)


@app.command()
def create(
    tenant: _Id,
    target: Target = DEFAULT_TARGET,
    key_file: KeyFile = None,
    tls: Tls = False,
    ca: CaFile = None,
    name: _Name = None,
    identity: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A client certificate that stands for it: SPIFFE id, DNS name or e-mail address.",
        ),
    ] = None,
    policy: _Policy = None,
    json: Json = False,
) -> None:
    """Make a tenant."""
    wanted = pb.Tenant(id=tenant, display_name=name or "", identities=identity or ())
    if policy is not None:
        wanted.policy.CopyFrom(_policy(policy))

    async def make() -> None:
        async with operating(target, key_file, tls=tls, ca=ca) as admin:
            _show([await admin.create_tenant(wanted)], json=json)

    run(make)


@app.command()
def update(
    tenant: _Id,
    target: Target = DEFAULT_TARGET,
    key_file: KeyFile = None,
    tls: Tls = False,
    ca: CaFile = None,
    name: _Name = None,
    disable: Annotated[
        bool | None, typer.Option("--disable/--enable", help="Shut it out, or let it in again.")
    ] = None,
    add_identity: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A client certificate that stands for it from now on."),
    ] = None,
    remove_identity: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="One that does so no more.")
    ] = None,
    policy: _Policy = None,
    json: Json = False,
) -> None:
    """Change a tenant: its name, its identities, its policy, whether it is let in."""
    wanted, fields = pb.Tenant(id=tenant), []
    if name is not None:
        wanted.display_name = name
        fields.append("display_name")
    if disable is not None:
        wanted.disabled = disable
        fields.append("disabled")
    if policy is not None:
        wanted.policy.CopyFrom(_policy(policy))
        fields.append("policy")
    if add_identity or remove_identity:
        fields.append("identities")
    if not fields:
        fail("Say what to change; `--help` shows what can be.")

    async def change() -> None:
        async with operating(target, key_file, tls=tls, ca=ca) as admin:
            if "identities" in fields:
                kept = set((await admin.tenant(tenant)).identities) | set(add_identity or ())
                wanted.identities.extend(sorted(kept - set(remove_identity or ())))
            _show([await admin.update_tenant(wanted, fields)], json=json)

    run(change)


@app.command()
def rm(
    tenant: _Id,
    target: Target = DEFAULT_TARGET,
    key_file: KeyFile = None,
    tls: Tls = False,
    ca: CaFile = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Shut a tenant out for good: its keys are revoked. Its sessions stay until their time is over."""
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Shut {tenant} out for good?", abort=True, err=True)

    async def remove() -> None:
        async with operating(target, key_file, tls=tls, ca=ca) as admin:
            await admin.delete_tenant(tenant)

    run(remove)


def _policy(text: str) -> pb.TenantPolicy:
    """A policy as the settings have it, where a list is a list."""
    try:
        given = loads(text)
    except ValueError as error:
        fail(f"--policy: {error}")
    if not isinstance(given, dict):
        fail("--policy: must be a JSON object")
    lists = {name: {"names": value} for name, value in given.items() if isinstance(value, list)}
    try:
        return ParseDict(given | lists, pb.TenantPolicy())
    except ParseError as error:
        fail(f"--policy: {error}")


def _show(tenants: list[pb.Tenant], *, json: bool) -> None:
    if json:
        for tenant in tenants:
            print(as_json(tenant))  # noqa: T201  # the command's output
        return
    table = Table(box=None)
    for name in ("id", "state", "made", "identities", "name"):
        table.add_column(name, no_wrap=name in ("id", "state", "made"))
    for each in tenants:
        state = "disabled" if each.disabled else "settings" if each.fixed else "active"
        identities = cell(", ".join(each.identities), 200)
        made = when(each.create_time)
        table.add_row(each.id, state, made, identities, cell(each.display_name, 80))
    tables.print(table)
