"""A tenant that asks for more than it may have, as fast as it can; in a process of its own.

Begins when it is started and says `flooding` then; ends by SIGTERM, and says how often it has asked. What is
not a refusal ends it with an error. Its key comes by standard input.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter

# Read when grpc is imported; with fork support it can lose child processes.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

from warmline_client import Client, WarmlineError, connect

_STREAMS = 20
_OPENERS = 5


async def _talk(client: Client, asked: Counter[str]) -> None:
    """Messages without a pause, taken or not."""
    async with client.chat() as chat:
        while True:
            asked["messages"] += 1
            async for _ in await chat.send("!deltas 20 5"):
                pass


async def _open(client: Client, asked: Counter[str]) -> None:
    """Streams without a pause."""
    while True:
        asked["streams"] += 1
        try:
            async with client.chat():
                pass
        except WarmlineError:
            continue


async def _flood(address: str, key: str) -> None:
    async with connect(address, api_key=key) as client:
        asked: Counter[str] = Counter()
        works = [_talk(client, asked) for _ in range(_STREAMS)]
        works += [_open(client, asked) for _ in range(_OPENERS)]
        tasks = [asyncio.create_task(each) for each in works]
        asyncio.get_running_loop().add_signal_handler(
            signal.SIGTERM, lambda: [task.cancel() for task in tasks]
        )
        print("flooding", flush=True)  # for who started it
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if not task.cancelled():
                task.result()
        print(asked["messages"], asked["streams"], flush=True)


if __name__ == "__main__":
    # A tenant has a machine of its own: it takes the service's time, and not this machine's from the service.
    os.nice(19)
    asyncio.run(_flood(sys.argv[1], sys.stdin.readline().strip()))
