"""The command `warmline usage`."""

from __future__ import annotations

from typing import Annotated

import typer
from google.protobuf import json_format
from rich.table import Table
from warmline.v1 import usage_service_pb2 as pb

from warmline_client._client import connect
from warmline_client.terminal._operate import when
from warmline_client.terminal._options import DEFAULT_TARGET, ApiKey, CaFile, Target, Tls, tables
from warmline_client.terminal._run import run

_Day = Annotated[str, typer.Option(metavar="DAY", help="Such as 2026-11-26, in UTC.")]
_COUNTS = ("turns", "requests", "input", "output", "cache read", "cache made", "USD")


def usage(
    target: Target = DEFAULT_TARGET,
    api_key: ApiKey = None,
    tls: Tls = False,
    ca: CaFile = None,
    since: _Day = "",
    until: _Day = "",
    tenant: Annotated[
        str, typer.Option(metavar="ID", help="Another tenant's; for keys with the scope `admin`.")
    ] = "",
    json: Annotated[
        bool, typer.Option("--json", help="The whole answer as one JSON object, for scripts.")
    ] = False,
) -> None:
    """What you have used, by day and model, and what is left of your budgets; by default this month."""

    async def show() -> None:
        async with connect(target, api_key=api_key, tls=tls, ca_file=ca) as client:
            found = await client.usage(since, until, tenant_id=tenant)
        if json:
            print(json_format.MessageToJson(found, indent=None))  # noqa: T201  # the command's output
            return
        tables.print(_days(found))
        if found.budgets:
            tables.print(_budgets(found))

    run(show)


def _days(found: pb.GetUsageResponse) -> Table:
    table = Table("day", "model", box=None)
    for name in _COUNTS:
        table.add_column(name, justify="right")
    for each in found.days:
        table.add_row(each.day, each.model, *_counts(each))
    table.add_row("total", "", *_counts(found.total))
    return table


def _counts(each: pb.ModelUsage) -> list[str]:
    used = each.usage
    tokens = (
        *(used.input_tokens, used.output_tokens),
        *(used.cache_read_input_tokens, used.cache_creation_input_tokens),
    )
    counts = (each.turns, each.model_requests, *tokens)
    return [*(f"{count:,}" for count in counts), f"{used.cost_usd:.4f}"]


def _budgets(found: pb.GetUsageResponse) -> Table:
    table = Table("budget", "used", "of", "begins anew", box=None)
    for each in found.budgets:
        table.add_row(each.name, f"{each.used:,.2f}", f"{each.limit:,.2f}", when(each.reset_time))
    return table
