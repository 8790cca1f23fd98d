"""The client's commands of `warmline`: chat, ask, models."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.duration_pb2 import Duration
from rich.console import Console
from rich.table import Table
from warmline.v1 import events_pb2 as pb

from warmline_client import Client, Conversation, Turn, WarmlineError, connect

app = typer.Typer(no_args_is_help=True)
_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False)

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
Session = Annotated[str, typer.Option("--session", "-s", help="Go on with this session.")]
Receipts = Annotated[bool, typer.Option(help="Show where each turn's time went.")]

_DEFAULT_TARGET = "127.0.0.1:50051"
# A longer line from a pipe is more than a message can be.
_LINE_BYTES = 128 * 1024 * 1024


@app.command()
def chat(
    target: Target = _DEFAULT_TARGET,
    api_key: ApiKey = None,
    tls: Tls = False,
    ca: CaFile = None,
    model: Model = "",
    system: System = "",
    session: Session = "",
    receipts: Receipts = True,
) -> None:
    """Converse. Ctrl-C interrupts the turn; Ctrl-D, or Ctrl-C at the prompt, ends."""

    async def run() -> None:
        async with (
            connect(target, api_key=api_key, tls=tls, ca_file=ca) as client,
            client.chat(session_id=session, model=model, system=system) as conversation,
        ):
            _err.print(f"[dim]session {conversation.session_id} · {conversation.opened.model}[/]")
            await _converse(conversation, receipts)

    _run(run)


@app.command()
def ask(
    text: Annotated[str, typer.Argument(help="What to say; `-` reads it from standard input.")],
    target: Target = _DEFAULT_TARGET,
    api_key: ApiKey = None,
    tls: Tls = False,
    ca: CaFile = None,
    model: Model = "",
    system: System = "",
    session: Session = "",
    receipts: Receipts = False,
) -> None:
    """One turn: the answer goes to standard output as it is written."""
    said = sys.stdin.read() if text == "-" else text

    async def run() -> None:
        async with connect(target, api_key=api_key, tls=tls, ca_file=ca) as client:
            events = client.ask(said, session_id=session, model=model, system=system)
            await _print(events, receipts)

    _run(run)


@app.command()
def models(
    target: Target = _DEFAULT_TARGET, api_key: ApiKey = None, tls: Tls = False, ca: CaFile = None
) -> None:
    """List the models that you may use."""

    async def run() -> None:
        async with connect(target, api_key=api_key, tls=tls, ca_file=ca) as client:
            _out.print(await _table(client))

    _run(run)


async def _table(client: Client) -> Table:
    table = Table("id", "aliases", "provider", "description", box=None)
    for model in await client.models():
        mark = " (default)" if model.is_default else ""
        table.add_row(model.id + mark, ", ".join(model.aliases), model.provider, model.description)
    return table


async def _converse(conversation: Conversation, receipts: bool) -> None:
    async with _prompting() as prompt:
        while (line := await prompt()) is not None:
            if not line.strip():
                continue
            turn = await conversation.send(line)
            async with _interrupting(conversation):
                try:
                    await _print(_events(turn), receipts)
                except WarmlineError as error:
                    if not turn.id or conversation.broken:
                        raise
                    _err.print(f"[red]{error}[/]")


async def _events(turn: Turn) -> AsyncIterator[pb.Event]:
    async for event in turn:
        yield event


@asynccontextmanager
async def _prompting() -> AsyncIterator[Callable[[], Awaitable[str | None]]]:
    """Gives what reads a line of the user's, or None at the end of the input."""
    if not _is_own_pipe(sys.stdin.fileno()):
        yield _prompt
        return
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(_LINE_BYTES)
    # A duplicate: the transport closes what it was given.
    pipe = os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)

    async def line() -> str | None:
        data = await reader.readline()
        text = data.decode(sys.stdin.encoding, sys.stdin.errors or "strict")
        return text.replace("\r\n", "\n") or None

    try:
        yield line
    finally:
        transport.close()
        # Whoever else reads from the pipe shares this flag, which the transport has changed.
        os.set_blocking(sys.stdin.fileno(), True)


def _is_own_pipe(stdin: int) -> bool:
    """Whether it is a pipe or socket that nothing is written to, so that it may be non-blocking."""
    kind = os.fstat(stdin)
    if not (stat.S_ISFIFO(kind.st_mode) or stat.S_ISSOCK(kind.st_mode)):
        return False
    return not any(os.path.samestat(kind, os.fstat(out)) for out in (1, 2))


async def _prompt() -> str | None:
    """A line from a terminal, which gives one at a time, or from a file."""
    loop = asyncio.get_running_loop()
    line: asyncio.Future[str] = loop.create_future()

    def read() -> None:
        if not line.done():
            line.set_result(sys.stdin.readline())

    if sys.stdin.isatty():
        _err.print("[bold]>[/] ", end="")
    os.set_blocking(sys.stdin.fileno(), True)
    try:
        loop.add_reader(sys.stdin, read)
    except PermissionError:  # A regular file cannot be watched, and never blocks.
        return sys.stdin.readline() or None
    try:
        return await line or None
    finally:
        loop.remove_reader(sys.stdin)


@asynccontextmanager
async def _interrupting(conversation: Conversation) -> AsyncIterator[None]:
    """Ctrl-C stops the turn, not the program."""
    loop = asyncio.get_running_loop()
    interrupts: set[asyncio.Task[Any]] = set()

    def interrupt() -> None:
        if all(task.done() for task in interrupts):
            interrupts.add(asyncio.create_task(conversation.interrupt()))

    with _signal(loop, interrupt):
        yield
        if interrupts:
            await asyncio.wait(interrupts, timeout=10)


@contextmanager
def _signal(loop: asyncio.AbstractEventLoop, handler: Callable[[], None]) -> Any:
    loop.add_signal_handler(signal.SIGINT, handler)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.default_int_handler)


async def _print(events: AsyncIterator[pb.Event], receipts: bool) -> None:
    async for event in events:
        match event.WhichOneof("kind"):
            case "text_delta":
                sys.stdout.write(event.text_delta.text)
                sys.stdout.flush()
            case "tool_call":
                _err.print(f"[cyan]tool {event.tool_call.name}[/]")
            case "notice":
                _err.print(f"[yellow]{event.notice.message}[/]")
            case "turn_queued" if event.turn_queued.position:
                _err.print(f"[dim]waiting behind {event.turn_queued.position}[/]")
            case "turn_failed":
                print(flush=True)  # noqa: T201  # ends the line of the answer
                raise WarmlineError(event.turn_failed.status)
            case "turn_completed":
                print(flush=True)  # noqa: T201  # ends the line of the answer
                if receipts:
                    _err.print(f"[dim]{receipt(event.turn_completed)}[/]")


def receipt(turn: pb.TurnCompleted) -> str:
    """A turn's latency receipt and usage in one line."""
    latency, usage = turn.latency, turn.usage
    parts = [pb.StartKind.Name(latency.start).removeprefix("START_KIND_").lower()]
    parts += [
        f"{field.name} {duration.ToNanoseconds() / 1e6:.0f} ms"
        for field, duration in latency.ListFields()
        if isinstance(duration, Duration)
    ]
    if latency.misses:
        parts.append(f"missed: {', '.join(latency.misses)}")
    parts.append(f"{usage.input_tokens} in, {usage.output_tokens} out, ${usage.cost_usd:.4f}")
    return " · ".join(parts)


def _run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        asyncio.run(main())
    except WarmlineError as error:
        _err.print(f"[red]{error}[/]")
        for field, description in error.fields.items():
            _err.print(f"[red]  {field}: {description}[/]")
        if error.code.name == "UNAVAILABLE" and not error.reason:
            _err.print("Is the service running? `warmline serve` starts one.")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
