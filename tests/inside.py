"""Acting as a hostile tenant by the real CLI's Bash tool, and looking at the service afterwards."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
from parking import say
from running import text_of
from warmline.v1 import events_pb2 as pb
from warmline.v1 import session_config_pb2 as config_pb
from warmline_client import Client, Conversation

# Two tenants at once, and a spare for the next.
POOL = {"min_spares": 1, "max_spares": 1, "max_processes": 8}
# Inside, where its files can only be read.
PYTHON = str(Path(sys.executable).resolve())
_READABLE = [sys.base_prefix]


def sandboxed(**settings: Any) -> dict[str, Any]:
    """The settings of a service whose processes have Python."""
    return {"pool": POOL, "sandbox": {"readable": _READABLE} | settings}


@asynccontextmanager
async def tenant(client: Client, known: dict[str, str], name: str) -> AsyncIterator[Conversation]:
    """A session that asks for nothing before it acts; the same again where it is `known`."""
    free = config_pb.SessionConfig(permission_mode=config_pb.PERMISSION_MODE_BYPASS)
    begun = {"session_id": known[name]} if name in known else {"config": free}
    async with client.chat(**begun) as chat:
        if name not in known:
            assert await bash(chat, "echo here") == "here"
            known[name] = chat.session_id
        yield chat


async def bash(chat: Conversation, command: str) -> str:
    """What a command gave, its errors included."""
    return _said(await say(chat, f"::tool Bash {json.dumps({'command': command})}"))


async def python(chat: Conversation, program: str) -> str:
    """The same for a program in Python."""
    return await bash(chat, as_python(program))


def as_python(program: str) -> str:
    """The command that runs a program in Python."""
    return f"{PYTHON} -IS - <<'END'\n{program}\nEND"


def running(word: str) -> list[int]:
    """The processes of this machine that have a word in their command, as a word of its own."""
    return [each.pid for each in psutil.process_iter(["cmdline"]) if word in _command(each)]


def _command(process: psutil.Process) -> list[str]:
    return list(process.info["cmdline"] or [])


def crash(events: Sequence[pb.Event]) -> str:
    """Why the turn failed."""
    assert events[-1].HasField("turn_failed"), events[-1]
    return str(events[-1].turn_failed.status.message)


async def attack(chat: Conversation, command: str) -> list[pb.Event]:
    """All that a command led to, which may be its session's end."""
    return await say(chat, f"::tool Bash {json.dumps({'command': command})}")


async def assert_healthy(chat: Conversation) -> None:
    """A session gets its answer, and has what it had."""
    events = await say(chat, "::say all is well")
    assert text_of(events) == "all is well"
    assert events[-1].HasField("turn_completed")


def results(events: Sequence[pb.Event]) -> str:
    """What the tools of a turn gave."""
    return "".join(str(each.tool_result.text) for each in events if each.HasField("tool_result"))


def _said(events: Sequence[pb.Event]) -> str:
    assert events[-1].HasField("turn_completed"), events[-1]
    return results(events)
