"""What is common to answers that speak ASGI themselves."""

from __future__ import annotations

from starlette.types import Receive


async def gone(receive: Receive) -> None:
    """Wait until the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
