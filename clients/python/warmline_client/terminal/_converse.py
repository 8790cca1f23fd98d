"""The commands that converse: chat and ask; and the models to converse with."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Annotated

import typer
from rich.table import Table
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import events_pb2 as pb

from warmline_client._client import Client, connect
from warmline_client._conversation import Conversation
from warmline_client._errors import WarmlineError
from warmline_client._turn import Turn
from warmline_client.terminal._options import (
    DEFAULT_TARGET,
    ApiKey,
    CaFile,
    Model,
    Receipts,
    Session,
    System,
    Target,
    Tls,
    err,
    out,
)
from warmline_client.terminal._pick import picked
from warmline_client.terminal._prompt import interrupting, prompting
from warmline_client.terminal._render import print_turn
from warmline_client.terminal._run import complain, run


def chat(
    target: Target = DEFAULT_TARGET,
    api_key: ApiKey = None,
    tls: Tls = False,
    ca: CaFile = None,
    model: Model = "",
    system: System = "",
    session: Session = "",
    latest: Annotated[
        bool, typer.Option("--continue", "-c", help="Go on with the session that was used last.")
    ] = False,
    fork: Annotated[
        str,
        typer.Option(metavar="ID", help="Begin with the conversation of this session; it stays."),
    ] = "",
    receipts: Receipts = True,
) -> None:
    """Converse. Ctrl-C interrupts the turn; Ctrl-D, or Ctrl-C at the prompt, ends."""
    if sum((bool(session), latest, bool(fork))) > 1:
        raise typer.BadParameter("give one of --session, --continue and --fork")

    async def talk() -> None:
        async with connect(target, api_key=api_key, tls=tls, ca_file=ca) as client:
            source = chat_pb.ForkFrom(session_id=await picked(client, fork)) if fork else None
            async with client.chat(
                session_id=await picked(client, session) if session else "",
                continue_latest=latest,
                fork=source,
                model=model,
                system=system,
            ) as conversation:
                err.print(
                    f"[dim]session {conversation.session_id} · {conversation.opened.model}[/]"
                )
                await _converse(conversation, receipts)
            err.print(f"[dim]to go on: warmline chat --session {conversation.session_id}[/]")

    run(talk)


def ask(
    text: Annotated[str, typer.Argument(help="What to say; `-` reads it from standard input.")],
    target: Target = DEFAULT_TARGET,
    api_key: ApiKey = None,
    tls: Tls = False,
    ca: CaFile = None,
    model: Model = "",
    system: System = "",
    session: Session = "",
    key: Annotated[
        str,
        typer.Option(help="Names the message: asked again under it, the same turn is told."),
    ] = "",
    receipts: Receipts = False,
) -> None:
    """One turn: the answer goes to standard output as it is written."""
    said = sys.stdin.read() if text == "-" else text

    async def talk() -> None:
        async with connect(target, api_key=api_key, tls=tls, ca_file=ca) as client:
            session_id = await picked(client, session) if session else ""
            events = client.ask(said, session_id=session_id, model=model, system=system, key=key)
            await print_turn(events, receipts=receipts)

    run(talk)


def models(
    target: Target = DEFAULT_TARGET, api_key: ApiKey = None, tls: Tls = False, ca: CaFile = None
) -> None:
    """List the models that you may use."""

    async def show() -> None:
        async with connect(target, api_key=api_key, tls=tls, ca_file=ca) as client:
            out.print(await _table(client))

    run(show)


async def _table(client: Client) -> Table:
    table = Table("id", "aliases", "provider", "description", box=None)
    for model in await client.models():
        mark = " (default)" if model.is_default else ""
        table.add_row(model.id + mark, ", ".join(model.aliases), model.provider, model.description)
    return table


async def _converse(conversation: Conversation, receipts: bool) -> None:
    async with prompting() as prompt:
        while (line := await prompt()) is not None:
            if not line.strip():
                continue
            turn = await conversation.send(line)
            async with interrupting(conversation):
                try:
                    await print_turn(_events(turn), receipts=receipts)
                except WarmlineError as error:
                    if not turn.id or conversation.broken:
                        raise
                    complain(error)


async def _events(turn: Turn) -> AsyncIterator[pb.Event]:
    async for event in turn:
        yield event
