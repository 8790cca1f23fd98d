"""`warmline audit`: the audit log looked at, verified and taken elsewhere, with the service or without it.

They read the database of the settings, so that they need no key and no running service, and are
believed where the service is not.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from warmline_service.options import ConfigFile, DataDir, fail, settings_of

app = typer.Typer(
    help="Who did what: the audit log, read from the database of the settings.",
    no_args_is_help=True,
)

# As many as the API gives at a time.
_PAGE = 1000

Tenant = Annotated[str, typer.Option(help="Only this tenant's.")]
Action = Annotated[str, typer.Option(help="Only what begins so: `tool.`, `session.deleted`.")]
Since = Annotated[
    str, typer.Option(help="Only from this moment on: 2026-01-31 or 2026-01-31T12:00:00Z.")
]
Until = Annotated[str, typer.Option(help="Only before this moment.")]


@app.command("verify")
def verify_log(config: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Read every event from the first to the last and say whether each is as it was written.

    Exits with 1 where one is not, and names it. The service may run meanwhile.
    """
    settings = settings_of(config, data_dir=data_dir)
    from warmline_service.audit_reading import tell_verdict

    tell_verdict(settings)


@app.command("list")
def list_events(
    config: ConfigFile = None,
    data_dir: DataDir = None,
    tenant: Tenant = "",
    action: Action = "",
    session: Annotated[str, typer.Option(help="Only what is about this session.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=_PAGE, help="At most so many.")] = 20,
) -> None:
    """The latest events, one a line: number, moment, tenant, actor, action, outcome, and the rest."""
    settings = settings_of(config, data_dir=data_dir)
    from warmline_service.audit_reading import show_latest
    from warmline_service.store import AuditQuery

    query = AuditQuery(tenant=tenant, action=action, session_id=session, limit=limit)
    show_latest(settings, query)


@app.command("export")
def export_events(
    config: ConfigFile = None,
    data_dir: DataDir = None,
    since: Since = "",
    until: Until = "",
    tenant: Tenant = "",
    action: Action = "",
) -> None:
    """Write events to standard output as JSON lines, the oldest first, with their hashes."""
    first, end = _moment(since, "--since"), _moment(until, "--until")
    settings = settings_of(config, data_dir=data_dir)
    from warmline_service.audit_reading import export
    from warmline_service.store import AuditQuery

    query = AuditQuery(
        descending=False, limit=_PAGE, tenant=tenant, action=action, since=first, before=end
    )
    export(settings, query)


def _moment(text: str, option: str) -> float | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        fail(f"{option} {text!r} is no moment, such as 2026-01-31T12:00:00Z", 2)
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
