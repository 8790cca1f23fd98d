"""The loopback model as a server of its own."""

from __future__ import annotations

from aiohttp import web

from warmline_service.egress.loopback._model import LoopbackBehaviour, LoopbackModel


async def serve_loopback(
    host: str, port: int, behaviour: LoopbackBehaviour | None = None
) -> web.ServerRunner:
    """Serve the model at a TCP port (0: a free one); the runner has `addresses` and `cleanup()`.

    Takes any credential. Raises OSError where the port cannot be had.
    """
    model = LoopbackModel(behaviour)
    server = web.Server(model.handle, handler_cancellation=True, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except BaseException:
        await runner.cleanup()
        raise
    return runner
