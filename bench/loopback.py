"""The loopback model at a unix socket, for those who reach it without the service.

python -m bench.loopback SOCKET
"""

from __future__ import annotations

import asyncio
import signal
import sys

from aiohttp import web
from warmline_service.egress import LoopbackModel


async def main(path: str) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner = web.ServerRunner(web.Server(LoopbackModel().handle, access_log=None))
    await runner.setup()
    try:
        await web.UnixSite(runner, path).start()
        print("ready", flush=True)
        await stop.wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
