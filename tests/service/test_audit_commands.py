"""The commands `warmline audit ...`, as an operator types them: with a service and without one."""

import asyncio
import json
import sqlite3
import sys
from asyncio.subprocess import PIPE
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from parking import client_of, say
from running import data_directory, faking, service_in

COMMAND = [sys.executable, "-c", "from warmline_service.audit_commands import app; app()"]


async def audit(*arguments: str) -> tuple[int, str, str]:
    """Run one: its exit code, output and errors."""
    process = await asyncio.create_subprocess_exec(*COMMAND, *arguments, stdout=PIPE, stderr=PIPE)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert b"Traceback" not in err, err.decode()
    assert process.returncode is not None
    return process.returncode, out.decode(), " ".join(err.decode().split())


async def exported(data: Path, *options: str) -> list[dict[str, Any]]:
    """The events that `export` writes."""
    code, out, err = await audit("export", "--data-dir", str(data), *options)
    lines = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, f"warmline: {len(lines)} events")
    return lines


def tamper(data: Path, statement: str) -> None:
    """Change the database of a service that is not running."""
    with closing(sqlite3.connect(data / "warmline.db")) as connection, connection:
        connection.execute(statement)


async def test_an_operator_verifies_and_exports(tmp_path: Path) -> None:
    """While the service runs and when it does not; a change is named, and the exit code says so."""
    with data_directory() as data:
        async with service_in(data, cli=faking(tmp_path)) as service, client_of(service) as client:
            async with client.chat() as chat:
                await say(chat, "hi")
                session = chat.session_id
            assert service._audit is not None
            assert await service._audit.written()
            code, _, err = await audit("verify", "--data-dir", str(data))
            assert (code, err) == (
                0,
                "warmline: the audit log is whole: 4 events, up to seq 4",
            )
            code, out, _ = await audit("list", "--data-dir", str(data), "--session", session)
            words = [line.split()[4] for line in out.splitlines()]
            assert words == ["turn.model_usage", "turn.submitted", "session.created"]
        events = await exported(data)
        assert [event["action"] for event in events] == [
            "service.started",
            "session.created",
            "turn.submitted",
            "turn.model_usage",
            "service.stopped",
        ]
        assert [event["prev_hash"] for event in events[1:]] == [e["hash"] for e in events[:-1]]
        assert events[0]["detail"]["node"]
        await asyncio.to_thread(
            tamper, data, "UPDATE audit_events SET actor = 'somebody' WHERE seq = 3"
        )
        code, _, err = await audit("verify", "--data-dir", str(data))
        assert code == 1
        assert "broken at seq 3: the row was changed" in err


async def test_the_log_on_postgres(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands find it by the settings, as the service does."""
    store = {"url": postgres_url, "blob_url": f"file://{tmp_path}/blobs"}
    with data_directory() as data:
        async with service_in(data, cli=faking(tmp_path), store=store):
            pass
        monkeypatch.setenv("WARMLINE_STORE__URL", postgres_url)
        code, _, err = await audit("verify", "--data-dir", str(data))
        assert (code, err) == (0, "warmline: the audit log is whole: 2 events, up to seq 2")
        actions = [event["action"] for event in await exported(data)]
        assert actions == ["service.started", "service.stopped"]


async def test_a_line_does_nothing_to_a_terminal(tmp_path: Path) -> None:
    """Whatever somebody has written into the table."""
    with data_directory() as data:
        async with service_in(data, cli=faking(tmp_path)):
            pass
        await asyncio.to_thread(
            tamper, data, "UPDATE audit_events SET actor = char(27, 155) || 'x'"
        )
        code, out, _ = await audit("list", "--data-dir", str(data))
        assert code == 0
        assert [line.split()[3] for line in out.splitlines()] == ["??x", "??x"]
        code, out, _ = await audit("export", "--data-dir", str(data))
        assert out.isascii()
        assert "\\u009bx" in out


async def test_a_cut_end_is_named(tmp_path: Path) -> None:
    """Also where the head was set back to what it once was: a copy of it is kept outside."""
    with data_directory() as data:
        async with service_in(data, cli=faking(tmp_path)):
            pass
        await asyncio.to_thread(tamper, data, "DELETE FROM audit_events")
        await asyncio.to_thread(tamper, data, "DELETE FROM audit_anchors")
        code, _, err = await audit("verify", "--data-dir", str(data))
        assert (code, err) == (
            1,
            "warmline: the audit log is broken at seq 1: the rows up to 2 are missing",
        )


async def test_events_are_exported_by_what_they_are(tmp_path: Path) -> None:
    """By time, tenant and action."""
    with data_directory() as data:
        async with service_in(data, cli=faking(tmp_path)) as service, client_of(service) as client:
            async with client.chat() as chat:
                await say(chat, "hi")
        (started,) = await exported(data, "--action", "service.started")
        moment = datetime.fromtimestamp(started["time"], UTC) + timedelta(microseconds=1)
        later = await exported(data, "--since", moment.isoformat())
        assert [event["seq"] for event in later] == [2, 3, 4, 5]
        assert await exported(data, "--until", moment.isoformat()) == [started]
        assert {event["tenant"] for event in await exported(data, "--tenant", "dev")} == {"dev"}
        tomorrow = (datetime.now(UTC) + timedelta(days=1)).date().isoformat()
        assert await exported(data, "--since", tomorrow) == []


@pytest.mark.parametrize("command", ["verify", "list", "export"])
async def test_where_there_is_no_log_nothing_is_made(tmp_path: Path, command: str) -> None:
    """A wrong directory is an error that says so, and stays empty."""
    code, _, err = await audit(command, "--data-dir", str(tmp_path))
    assert code == 78
    assert "there is no database" in err
    assert not list(tmp_path.iterdir())


async def test_a_bad_moment_is_refused(tmp_path: Path) -> None:
    """Before anything is read."""
    code, _, err = await audit("export", "--data-dir", str(tmp_path), "--since", "yesterday")
    assert code == 2
    assert "is no moment" in err


async def test_another_key_verifies_nothing(tmp_path: Path) -> None:
    """Nor does none."""
    with data_directory() as data:
        async with service_in(data, cli=faking(tmp_path)):
            pass
        key = data / "vault.key"
        await asyncio.to_thread(key.write_text, "00" * 32)
        code, _, err = await audit("verify", "--data-dir", str(data))
        assert code == 78
        assert "another master key" in err
        key.unlink()
        code, _, err = await audit("verify", "--data-dir", str(data))
        assert code == 78
        assert "No such file" in err
        assert "vault.key" in err
        assert not key.exists()
