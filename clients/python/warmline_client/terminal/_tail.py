"""The command `warmline sessions tail`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import typer
from google.protobuf import json_format
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import events_pb2 as pb

from warmline_client._backoff import Backoff
from warmline_client._call import passes
from warmline_client._client import Client, connect
from warmline_client._errors import WarmlineError
from warmline_client.terminal._options import (
    DEFAULT_TARGET,
    PATIENCE,
    ApiKey,
    CaFile,
    Receipts,
    SessionId,
    Target,
    Tls,
    err,
)
from warmline_client.terminal._pick import picked
from warmline_client.terminal._render import print_event
from warmline_client.terminal._run import run

# For so many seconds what was followed already is looked for again, after a failure that passes.
_RECONNECT_TIMEOUT = 60.0


def tail(
    session: SessionId,
    target: Target = DEFAULT_TARGET,
    api_key: ApiKey = None,
    tls: Tls = False,
    ca: CaFile = None,
    after: Annotated[
        int,
        typer.Option(
            metavar="SEQ", min=0, help="Begin after this event; 0: with the first that is kept."
        ),
    ] = 0,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", "-f", help="Wait for what happens next.")
    ] = True,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw",
            help="Every event as a JSON object, one a line; the CLI's own lines are among them.",
        ),
    ] = False,
    receipts: Receipts = False,
) -> None:
    """Tell what has happened in a session, and go on telling until Ctrl-C.

    Answers go to standard output; all else goes to standard error.

    It neither holds nor slows the session, and survives a restart of the service.
    """

    async def tell() -> None:
        async with connect(target, api_key=api_key, tls=tls, ca_file=ca) as client:
            session_id = await picked(client, session)
            detail = chat_pb.DETAIL_RAW if raw else chat_pb.DETAIL_BLOCKS
            async for event in _events(client, session_id, after, detail, follow):
                if raw:
                    print(json_format.MessageToJson(event, indent=None), flush=True)  # noqa: T201  # the command's output
                else:
                    _show(event, receipts)

    run(tell, interrupted=0)


async def _events(
    client: Client,
    session_id: str,
    after: int,
    detail: chat_pb.Detail.ValueType,
    follow: bool,
) -> AsyncIterator[pb.Event]:
    """What is told of a session, each event once, over any number of streams."""
    backoff = Backoff(PATIENCE)
    while True:
        try:
            async for event in client.watch(
                session_id,
                after=chat_pb.Cursor(seq=after) if after else None,
                detail=detail,
                replay_only=not follow,
            ):
                backoff = Backoff(_RECONNECT_TIMEOUT)
                after = max(after, event.seq)
                yield event
        except WarmlineError as error:
            if not (passes(error) and await backoff.wait(error.retry_after)):
                raise
        else:
            if not (follow and await backoff.wait()):
                return


def _show(event: pb.Event, receipts: bool) -> None:
    match event.WhichOneof("kind"):
        case "turn_queued":
            err.print(f"> {event.turn_queued.text.rstrip()}", style="bold", markup=False)
        case "turn_failed":
            print_event(event, receipts=receipts)
            status = WarmlineError(event.turn_failed.status)
            err.print(str(status), style="red", markup=False)
        case _:
            print_event(event, receipts=receipts)
