"""The command line, as a user types it."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pexpect
import pytest
from running import running_service
from warmline_service.tenants import hash_key

WARMLINE = str(Path(sys.executable).parent / "warmline")
pytestmark = pytest.mark.real_cli


async def warmline(*arguments: str, said: str = "", **env: str) -> tuple[int, str, str]:
    """Run the command; its exit code, output and errors."""
    process = await asyncio.create_subprocess_exec(
        WARMLINE, *arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=os.environ | env
    )
    out, err = await asyncio.wait_for(process.communicate(said.encode()), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_ask_prints_the_answer_and_nothing_else() -> None:
    """The answer is on standard output, so that it can be piped."""
    async with running_service() as service:
        target = f"127.0.0.1:{service.port}"
        assert await warmline("ask", "::say hello", "-t", target) == (0, "hello\n", "")
        code, out, _ = await warmline("ask", "-", "-t", target, said="::say from stdin")
        assert (code, out) == (0, "from stdin\n")
        code, out, err = await warmline("ask", "::error 400", "-t", target)
        assert (code, out.strip()) == (1, "")
        assert "FIELD_INVALID" in err


async def test_models_are_listed() -> None:
    """A table with ids and aliases."""
    async with running_service() as service:
        code, out, _ = await warmline("models", WARMLINE_TARGET=f"127.0.0.1:{service.port}")
    assert code == 0
    assert "claude-opus-5-5 (default)" in out
    assert "haiku" in out


async def test_without_a_service_the_error_says_what_to_do() -> None:
    """No traceback: what is wrong, and the command that mends it."""
    code, _, err = await warmline("models", "-t", "127.0.0.1:1")
    assert code == 1
    assert "warmline serve" in err
    assert "Traceback" not in err


async def test_chat_reads_lines_and_keeps_the_conversation() -> None:
    """Piped lines are turns of one session; the end of the input ends it."""
    async with running_service() as service:
        lines = "::say one\n\n::echo messages\n"
        code, out, err = await warmline("chat", "-t", f"127.0.0.1:{service.port}", said=lines)
    assert code == 0, err
    assert out.startswith("one\n")
    assert "one" in out[4:]
    assert "warm" in err
    assert "hot" in err


async def test_ctrl_c_interrupts_the_turn_and_not_the_chat() -> None:
    """In a terminal Ctrl-C stops the answer; Ctrl-D ends the program."""
    async with running_service() as service:
        target = f"127.0.0.1:{service.port}"
        await asyncio.to_thread(_chat_in_a_terminal, target)


def _chat_in_a_terminal(target: str) -> None:
    env = os.environ | {"TERM": "dumb"}
    arguments = ["chat", "-t", target]
    child: Any = pexpect.spawn(WARMLINE, arguments, timeout=30, encoding="utf-8", env=env)
    child.expect("session")
    child.expect("> ")
    child.sendline('::tool Bash {"command": "sleep 60"}')
    child.expect("tool Bash\r\n")
    child.kill(signal.SIGINT)
    child.expect("> ")
    child.sendline("::say after")
    child.expect("after\r\n.*hot")
    child.expect("> ")
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


_HEARD_BY_A_THREAD = """
import asyncio, signal, threading
from warmline_client.terminal._run import run

def interrupt():
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)

async def main():
    asyncio.get_running_loop().call_soon(threading.Timer(0.5, interrupt).start)
    await asyncio.sleep(100)

run(main, interrupted=7)
"""


async def test_ctrl_c_wakes_a_sleeping_loop() -> None:
    """Also where the kernel gives the signal to a thread of gRPC's: nothing else would wake the loop."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _HEARD_BY_A_THREAD, stdout=PIPE, stderr=PIPE
    )
    async with asyncio.timeout(60):
        _, err = await child.communicate()
    # What typer makes an exit code of.
    assert b"Exit: 7" in err


async def test_a_new_key_fits_the_settings() -> None:
    """The printed hash is that of the printed key."""
    code, out, _ = await warmline("new-key", "acme")
    key, settings = out.split("\n", 1)
    assert code == 0
    assert hash_key(key) in settings
    code, out, _ = await warmline("hash-key", said=key + "\n")
    assert (code, out.strip()) == (0, hash_key(key))


async def test_doctor_says_what_is_missing(tmp_path: Path) -> None:
    """Everything in order for the loopback model; without a credential it says what to set."""
    here = {"WARMLINE_DATA_DIR": str(tmp_path), "WARMLINE_LISTEN": "127.0.0.1:0"}
    code, _, err = await warmline("doctor", WARMLINE_PROVIDER__KIND="loopback", **here)
    assert code == 0, err
    code, _, err = await warmline("doctor", ANTHROPIC_API_KEY="", **here)
    assert code == 1
    assert "ANTHROPIC_API_KEY" in err
    code, _, err = await warmline("doctor", WARMLINE_CLI__PATH="/nonexistent", **here)
    assert code == 1
    assert "/nonexistent" in err
