"""The command `warmline sessions show`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from rich.table import Table
from rich.text import Text
from warmline.v1 import events_pb2
from warmline.v1 import session_service_pb2 as pb

from warmline_client._client import Client, connect
from warmline_client._errors import WarmlineError
from warmline_client.terminal._options import (
    DEFAULT_TARGET,
    PATIENCE,
    ApiKey,
    CaFile,
    SessionId,
    Target,
    Tls,
    tables,
)
from warmline_client.terminal._pick import picked
from warmline_client.terminal._render import cell, plain, start_of, word
from warmline_client.terminal._run import run

_KINDS = ("turn_queued", "turn_completed", "turn_failed")


@dataclass
class _Turn:
    """A turn, as far as its events tell."""

    id: str
    text: str = ""
    outcome: str = "running"
    usage: events_pb2.Usage | None = None
    start: str = ""


def show(
    session: SessionId,
    target: Target = DEFAULT_TARGET,
    api_key: ApiKey = None,
    tls: Tls = False,
    ca: CaFile = None,
) -> None:
    """Say what a session is, and list its turns: what was said, what came of it, what it took.

    Turns whose events are not kept any more are not listed.
    """

    async def describe() -> None:
        async with connect(target, api_key=api_key, tls=tls, ca_file=ca) as client:
            found = await client.session(await picked(client, session), retry_timeout=PATIENCE)
            turns = await _turns(client, found.id)
        tables.print(_details(found))
        tables.print()
        tables.print(_table(turns))

    run(describe)


async def _turns(client: Client, session_id: str) -> list[_Turn]:
    found: dict[str, _Turn] = {}
    async for event in _ends(client, session_id):
        turn = found.setdefault(event.turn_id, _Turn(event.turn_id))
        match event.WhichOneof("kind"):
            case "turn_queued":
                turn.text = event.turn_queued.text
            case "turn_completed":
                done = event.turn_completed
                turn.outcome = word(events_pb2.StopReason, done.stop_reason, "STOP_REASON_")
                turn.usage, turn.start = done.usage, start_of(done.latency)
            case "turn_failed":
                failed = event.turn_failed
                error = WarmlineError(failed.status)
                turn.outcome = error.reason or error.code.name
                turn.usage, turn.start = failed.usage, start_of(failed.latency)
    return list(found.values())


def _ends(client: Client, session_id: str) -> AsyncIterator[events_pb2.Event]:
    return client.watch(session_id, kinds=_KINDS, replay_only=True)


def _details(session: pb.Session) -> Table:
    config = session.config
    facts = {
        "id": session.id,
        "state": word(pb.SessionState, session.state, "SESSION_STATE_"),
        "title": plain(session.title, 80),
        "model": config.model or "(the service's default)",
        "system prompt": plain(config.system_prompt.replace, 60)
        or plain(config.system_prompt.append, 60),
        "workspace": config.workspace.name,
        "created": _moment(session.create_time.seconds),
        "updated": _moment(session.update_time.seconds),
        "turns": str(session.turn_count),
        "last event": f"{session.last_seq} (epoch {session.epoch})",
        "forked from": session.forked_from_session_id,
        "forked at": session.forked_at_turn_id,
    }
    table = Table(box=None, show_header=False)
    for name, value in facts.items():
        if value:
            table.add_row(Text(name, "dim"), Text(value))
    return table


def _table(turns: list[_Turn]) -> Table:
    table = Table(box=None)
    table.add_column("turn", no_wrap=True)
    table.add_column("said", min_width=10)
    table.add_column("outcome", no_wrap=True)
    table.add_column("start", no_wrap=True)
    for name in ("in", "out", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    for turn in turns:
        usage = turn.usage
        counts = ("", "", "")
        if usage is not None:
            read = usage.input_tokens + usage.cache_read_input_tokens
            read += usage.cache_creation_input_tokens
            counts = (str(read), str(usage.output_tokens), f"${usage.cost_usd:.4f}")
        table.add_row(turn.id, cell(turn.text, 60), turn.outcome, turn.start, *counts)
    return table


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
