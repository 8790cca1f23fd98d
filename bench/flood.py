"""A tenant that asks for more than it may have, as fast as it can; in a process of its own.

Begins when it is started and says `flooding` then; ends by SIGTERM. Its key comes by standard input.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

# Read when grpc is imported; with fork support it can lose child processes.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

from warmline_client import Client, WarmlineError, connect

_STREAMS = 20
_OPENERS = 5


async def _talk(client: Client) -> None:
    """Messages without a pause, taken or not."""
    async with client.chat() as chat:
        while True:
            async for _ in await chat.send("!deltas 20 5"):
                pass


async def _open(client: Client) -> None:
    """Streams without a pause."""
    while True:
        try:
            async with client.chat():
                pass
        except WarmlineError:
            continue


async def _flood(address: str, key: str) -> None:
    async with connect(address, api_key=key) as client:
        works = [_talk(client) for _ in range(_STREAMS)] + [_open(client) for _ in range(_OPENERS)]
        tasks = [asyncio.create_task(each) for each in works]
        asyncio.get_running_loop().add_signal_handler(
            signal.SIGTERM, lambda: [task.cancel() for task in tasks]
        )
        print("flooding", flush=True)  # for who started it
        await asyncio.wait(tasks)


if __name__ == "__main__":
    # A tenant has a machine of its own: it takes the service's time, and not this machine's from the service.
    os.nice(19)
    asyncio.run(_flood(sys.argv[1], sys.stdin.readline().strip()))
