"""A short conversation with the built-in model through the real CLI: nothing to configure."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path

from warmline_client import Conversation, connect
from warmline_client.terminal import receipt

_START_TIMEOUT = 120.0
_STOP_TIMEOUT = 60.0

_TURNS = (
    "Hello! Who is there?",
    "::pace 20ms\n::text 60",
    "Do you remember what I said first?",
)


async def main() -> int:
    """Start the service, converse, stop it; its exit code is the demo's."""
    with tempfile.TemporaryDirectory(prefix="warmline-demo-") as data:
        print("Starting the service with the loopback model: no account, nothing to configure.")
        service = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).parent / "warmline"),
            *("serve", "--listen", "127.0.0.1:0", "--provider", "loopback", "--data-dir", data),
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | {"WARMLINE_LOG__LEVEL": "warning"},
            start_new_session=True,
        )
        try:
            assert service.stdout is not None
            line = await asyncio.wait_for(service.stdout.readline(), _START_TIMEOUT)
            address = line.decode().rpartition(" ")[2].strip()
            print(f"Serving on {address}.\n")
            await _show(address)
        finally:
            if service.returncode is None:
                service.send_signal(signal.SIGTERM)
            code = await asyncio.wait_for(service.wait(), _STOP_TIMEOUT)
        left = [entry for entry in os.scandir(Path(data) / "slots") if entry.is_dir()]
        print(f"\nThe service stopped with exit code {code}; slots left: {len(left)}.")
        return code or len(left)


async def _show(address: str) -> None:
    async with connect(address) as client:
        print("— A conversation of three turns —")
        async with client.chat() as conversation:
            for text in _TURNS:
                await _say(conversation, text)
        print(
            "— A new conversation, with a system prompt: a process from the pool is bound to it —"
        )
        async with client.chat(system="Answer in one line.") as conversation:
            await _say(conversation, "And who are you?")


async def _say(conversation: Conversation, text: str) -> None:
    print(f"\n> {text}")
    turn = await conversation.send(text)
    async for event in turn:
        if event.HasField("text_delta"):
            print(event.text_delta.text, end="", flush=True)
        elif event.HasField("turn_completed"):
            print(f"\n  [{receipt(event.turn_completed)}]")
        elif event.HasField("turn_failed"):
            raise RuntimeError(event.turn_failed.status.message)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
