"""The commands `warmline sessions ...`, and those that go on with a session, as a user types them."""

import asyncio
import io
import json
import os
import signal
import sys
import tarfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pexpect
import pytest
from running import events_of, faking, running_service
from warmline_client import Client, connect
from warmline_client.terminal._render import plain
from warmline_client.terminal._sessions import ago

# The client's part of `warmline` alone, which is up in a fifth of the time.
COMMAND = [sys.executable, "-c", "from warmline_client.terminal import app; app()"]
WARMLINE = str(Path(sys.executable).parent / "warmline")
NOBODYS = "01234567-89ab-cdef-0123-456789abcdef"


class Shell:
    """Types commands for one service."""

    def __init__(self, port: int, directory: Path) -> None:
        self.env = os.environ | {"WARMLINE_TARGET": f"127.0.0.1:{port}", "TERM": "dumb"}
        self.directory = directory

    async def begin(self, *arguments: str) -> Process:
        """Begin a command."""
        return await asyncio.create_subprocess_exec(
            *COMMAND,
            *arguments,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=self.env,
            cwd=self.directory,
        )

    async def run(self, *arguments: str, said: bytes = b"") -> tuple[int, bytes, str]:
        """Run one: its exit code, output and errors."""
        process = await self.begin(*arguments)
        out, err = await asyncio.wait_for(process.communicate(said), 60)
        assert process.returncode is not None
        assert b"Traceback" not in err, err.decode()
        return process.returncode, out, err.decode()

    async def output(self, *arguments: str, said: bytes = b"") -> str:
        """The output of one that succeeds."""
        code, out, err = await self.run(*arguments, said=said)
        assert code == 0, err
        return out.decode()

    async def sessions(self, *arguments: str, said: bytes = b"") -> str:
        """The output of one of `sessions`."""
        return await self.output("sessions", *arguments, said=said)

    def terminal(self, *arguments: str) -> Any:
        """The same in a terminal."""
        return pexpect.spawn(
            COMMAND[0],
            [*COMMAND[1:], *arguments],
            timeout=30,
            encoding="utf-8",
            env=self.env,
            cwd=str(self.directory),
        )


@asynccontextmanager
async def shell(directory: Path) -> AsyncIterator[tuple[Shell, Client]]:
    """A shell beside a service, and a client to look behind the commands."""
    async with running_service(cli=faking(directory)) as service:
        async with connect(f"127.0.0.1:{service.port}") as client:
            yield Shell(service.port, directory), client


async def said(client: Client, *texts: str) -> str:
    """A session in which this was said."""
    async with client.chat() as chat:
        for text in texts:
            await events_of(chat, text)
        return chat.session_id


async def test_sessions_are_listed(tmp_path: Path) -> None:
    """For people as a table, for scripts as JSON; titles are shown as they are, without their effects."""
    async with shell(tmp_path) as (sh, client):
        first = await said(client, "alpha [bold]one[/]", "more")
        second = await said(client, "beta \x1b[31mtwo")
        lines = (await sh.sessions("list")).splitlines()
        assert lines[0].split() == ["id", "state", "title", "turns", "updated"]
        assert [line.split()[0] for line in lines[1:]] == [second, first]
        assert "alpha [bold]one[/]" in lines[2]
        assert "hot" in lines[2]
        assert "\x1b" not in lines[1]
        rows = [json.loads(line) for line in (await sh.sessions("list", "--json")).splitlines()]
        assert [row["id"] for row in rows] == [second, first]
        assert [row["turnCount"] for row in rows] == [1, 2]
        assert rows[1]["title"] == "alpha [bold]one[/]"
        assert first not in await sh.sessions("list", "-n", "1")
        assert second not in await sh.sessions("list", "--contains", "ALPHA")
        oldest = await sh.sessions("list", "--json", "-n", "1", "--order", "create_time")
        assert json.loads(oldest)["id"] == first
        code, _, err = await sh.run("sessions", "list", "--order", "beauty")
        assert code == 1
        assert "order_by" in err


async def test_a_session_is_shown_with_its_turns(tmp_path: Path) -> None:
    """What was said, what came of it, what it took; by the beginning of its id."""
    async with shell(tmp_path) as (sh, client):
        session_id = await said(client, "hello [there]", "!error 400")
        shown = await sh.sessions("show", session_id[:8])
        assert session_id in shown
        good, bad = [line for line in shown.splitlines() if line.strip()][-2:]
        for word in ("hello [there]", "end_turn", "warm", "10", "$0.0010"):
            assert word in good
        assert "FIELD_INVALID" in bad
        assert "hot" in bad


async def test_a_beginning_names_one_session_or_none(tmp_path: Path) -> None:
    """What is ambiguous or unknown is refused with what would help; a whole id is the service's to judge."""
    async with shell(tmp_path) as (sh, client):
        ids = [await said(client, "hello") for _ in range(2)]
        while len({each[0] for each in ids}) == len(ids):
            ids.append((await client.fork(ids[0])).id)
        twice = next(each[0] for each in ids if sum(other[0] == each[0] for other in ids) > 1)
        for name, help_ in (
            (twice, ids[-1]),
            ("x", "sessions list"),
            ("", "not empty"),
            (NOBODYS, "SESSION_NOT_FOUND"),
            (NOBODYS.upper(), "lower case"),
        ):
            code, out, err = await sh.run("sessions", "show", name)
            assert (code, out) == (1, b"")
            assert help_ in err.replace("\n", " ")


async def test_what_happened_is_told(tmp_path: Path) -> None:
    """Answers on standard output, all else beside it; raw, every event is a line of JSON."""
    async with shell(tmp_path) as (sh, client):
        session_id = await said(client, "one", "!error 400", "two")
        code, out, err = await sh.run("sessions", "tail", session_id[:10], "--no-follow")
        assert code == 0
        assert out == b"echo: one\n\necho: two\n"
        assert err.startswith("> one\n")
        assert "FIELD_INVALID" in err
        raw = await sh.sessions("tail", session_id, "--no-follow", "--raw")
        events = [json.loads(line) for line in raw.splitlines()]
        assert sum("turnCompleted" in event for event in events) == 2
        last = (await client.session(session_id)).last_seq
        assert await sh.sessions("tail", session_id, "--no-follow", "--after", str(last)) == ""


async def test_what_happens_is_told_until_ctrl_c(tmp_path: Path) -> None:
    """It follows, and Ctrl-C is the way to end it: exit code 0."""
    async with shell(tmp_path) as (sh, client), client.chat() as chat:
        await events_of(chat, "before")
        tail = await sh.begin("sessions", "tail", chat.session_id)
        assert tail.stdout is not None
        assert await asyncio.wait_for(tail.stdout.readline(), 90) == b"echo: before\n"
        await events_of(chat, "after")
        assert await asyncio.wait_for(tail.stdout.readline(), 90) == b"echo: after\n"
        tail.send_signal(signal.SIGINT)
        _, err = await asyncio.wait_for(tail.communicate(), 90)
        assert (tail.returncode, b"Traceback" in err) == (0, False)


async def test_a_session_is_forked_at_a_turn(tmp_path: Path) -> None:
    """The id of the fork is all of the output."""
    async with shell(tmp_path) as (sh, client):
        async with client.chat() as chat:
            turn = (await events_of(chat, "one"))[-1].turn_id
            await events_of(chat, "two")
        for options, history in (
            ([], ["one", "two", "!bound"]),
            (["--turn", turn], ["one", "!bound"]),
        ):
            fork = (await sh.sessions("fork", chat.session_id[:9], *options)).strip()
            answer = json.loads(await sh.output("ask", "!bound", "--session", fork))
            assert answer["history"] == history
        code, _, err = await sh.run("sessions", "fork", chat.session_id, "--turn", NOBODYS)
        assert code == 1
        assert "TURN_NOT_FOUND" in err


async def test_a_session_is_carried_as_a_file(tmp_path: Path) -> None:
    """By name or by pipe; what is no export is refused, and a missing file is named."""
    async with shell(tmp_path) as (sh, client):
        session_id = await said(client, "hello")
        assert await sh.sessions("export", session_id[:8], "-o", "file.tar") == ""
        _, piped, _ = await sh.run("sessions", "export", session_id, "--no-workspace")
        with tarfile.open(fileobj=io.BytesIO(piped)) as tar:
            assert tar.getnames() == ["session.json", "transcript.jsonl"]
        made = [
            (await sh.sessions("import", "file.tar")).strip(),
            (await sh.sessions("import", "-", said=piped)).strip(),
        ]
        for each in made:
            answer = json.loads(await sh.output("ask", "!bound", "-s", each))
            assert answer["history"] == ["hello", "!bound"]
        for arguments, help_ in (
            (("import", "missing.tar"), "No such file"),
            (("import", "fake/claude"), "no export"),
            (("export", session_id, "-o", "nowhere/x"), "cannot be written"),
        ):
            code, out, err = await sh.run("sessions", *arguments)
            assert (code, out) == (1, b"")
            assert help_ in err.replace("\n", " ")


async def test_sessions_are_removed(tmp_path: Path) -> None:
    """Several at once; what cannot be removed is named, and the others are all the same."""
    async with shell(tmp_path) as (sh, client):
        ids = [await said(client, text) for text in ("one", "two", "three")]
        code, _, err = await sh.run("sessions", "rm", ids[0][:12], NOBODYS, ids[1])
        assert code == 1
        assert NOBODYS in err
        assert [each.id async for each in client.sessions()] == [ids[2]]
        assert await sh.sessions("rm", "--yes", ids[2]) == ""
        assert await sh.sessions("list", "--json") == ""


async def test_on_a_terminal_removal_is_asked_for(tmp_path: Path) -> None:
    """It says what would go; without a yes nothing does."""
    async with shell(tmp_path) as (sh, client):
        session_id = await said(client, "precious")
        for answer, left in (("n", 1), ("y", 0)):
            await asyncio.to_thread(remove, sh, session_id, answer)
            assert len([each async for each in client.sessions()]) == left


def remove(sh: Shell, session_id: str, answer: str) -> None:
    """Remove a session in a terminal, or not."""
    child = sh.terminal("sessions", "rm", session_id[:8])
    child.expect("precious")
    child.expect("for good")
    child.sendline(answer)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == (answer != "y")


async def test_an_export_in_a_terminal_makes_a_file(tmp_path: Path) -> None:
    """Nobody wants to see one."""
    async with shell(tmp_path) as (sh, client):
        session_id = await said(client, "hello")

        def export() -> None:
            child = sh.terminal("sessions", "export", session_id)
            child.expect(rf"session-{session_id}.tar")
            child.expect(pexpect.EOF)
            child.close()
            assert child.exitstatus == 0

        await asyncio.to_thread(export)
        assert tarfile.is_tarfile(tmp_path / f"session-{session_id}.tar")


async def test_a_chat_goes_on_with_a_session(tmp_path: Path) -> None:
    """With one by its id, with the latest, or with a copy; at the end it says how to go on."""
    async with shell(tmp_path) as (sh, client):
        first = await said(client, "one")
        for options, session_id in ((["--session", first[:8]], first), (["--continue"], first)):
            code, out, err = await sh.run("chat", *options, said=b"!bound\n")
            assert code == 0
            assert json.loads(out)["history"][0] == "one"
            assert f"warmline chat --session {session_id}" in err.replace("\n", " ")
        code, out, err = await sh.run("chat", "--fork", first[:8], said=b"!bound\n")
        assert json.loads(out)["history"][0] == "one"
        assert first not in err
        code, _, err = await sh.run("chat", "--continue", "--fork", first)
        assert code == 2
        assert "--session" in err


async def test_a_question_has_a_key(tmp_path: Path) -> None:
    """Asked again under it, it is told again and not run again."""
    async with shell(tmp_path) as (sh, client):
        session_id = await said(client, "hello")
        for _ in range(2):
            answer = await sh.output("ask", "once", "-s", session_id[:8], "--key", "k")
            assert answer == "echo: once\n"
        assert (await client.session(session_id)).turn_count == 2
        code, _, err = await sh.run("ask", "something else", "--key", "k")
        assert code == 1
        assert "IDEMPOTENCY_CONFLICT" in err


async def test_every_command_explains_itself(tmp_path: Path) -> None:
    """`--help` says what it does."""
    sh = Shell(1, tmp_path)
    page = await sh.sessions("--help")
    whole = await asyncio.create_subprocess_exec(WARMLINE, "sessions", "--help", stdout=PIPE)
    out, _ = await asyncio.wait_for(whole.communicate(), 60)
    assert out.decode().split("Commands")[1] == page.split("Commands")[1]
    for command in ("list", "show", "tail", "fork", "export", "import", "rm"):
        assert f" {command} " in page
        assert len(await sh.sessions(command, "--help")) > 500


async def test_without_a_service_the_error_says_what_to_do(tmp_path: Path) -> None:
    """After a moment's patience."""
    code, _, err = await Shell(1, tmp_path).run("sessions", "list")
    assert code == 1
    assert "warmline serve" in err


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "now"), (5.6, "6 s ago"), (61, "1 min ago"), (7300, "2 h ago"), (9e5, "10 d ago")],
)
def test_times_are_told_in_their_largest_unit(seconds: float, shown: str) -> None:
    """Whoever needs them to the second asks for JSON."""
    assert ago(seconds) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\nb", "a b"), ("\x1b[31mred\x07", "[31mred"), ("x" * 20, "x" * 9 + "…"), ("", "")],
)
def test_texts_of_others_obey_nobody(text: str, shown: str) -> None:
    """One line, cut, and nothing that a terminal would act on."""
    assert plain(text, 10) == shown
