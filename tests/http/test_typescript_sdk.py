"""The Anthropic Messages API by the official TypeScript SDK; the real CLI with the loopback model."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest
from shimming import running_shim

pytestmark = pytest.mark.real_cli

ROOT = Path(__file__).parents[2]
NODE = ROOT / "build" / "bin" / "node"
CLIENT = ROOT / "clients" / "typescript"
SCRIPT = CLIENT / "test" / "anthropic.ts"
TIMEOUT = 240.0


async def told_by_node(url: str) -> dict[str, Any]:
    """What the script says of the shim at this address."""
    installed = NODE.exists() and (CLIENT / "node_modules" / "@anthropic-ai").exists()
    assert installed, "node and the SDK are missing: run `make tools`"
    child = await asyncio.create_subprocess_exec(
        NODE, SCRIPT, url, stdout=PIPE, stderr=PIPE, env={}
    )
    try:
        async with asyncio.timeout(TIMEOUT):
            out, errors = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert child.returncode == 0, errors.decode()
    told: dict[str, Any] = json.loads(out)
    return told


async def test_the_typescript_sdk_works_unchanged() -> None:
    """Only its address is another: text, a stream, a loop of tools, a refusal, a stream that fails."""
    async with running_shim(pool={"bare_spares": True}) as shim:
        told = await told_by_node(shim.url)
    text = told["text"]
    assert text["text"] == "You said: hello (message 1 of this conversation)"
    assert (text["stop"], text["tokens"] > 0, bool(text["request"])) == ("end_turn", True, True)
    stream = told["stream"]
    assert (stream["pieces"] > 1, stream["whole"], stream["stop"]) == (True, True, "end_turn")
    assert stream["kinds"] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    # The results went on in the process that had called.
    assert told["tools"] == {"cities": ["Basel"], "sessions": 1, "text": "done"}
    error = told["error"]
    assert error.pop("request")
    assert error == {"name": "NotFoundError", "status": 404, "type": "not_found_error"}
    assert told["streamError"] == {"type": "invalid_request_error"}
