"""Runs a transaction of an asyncio engine where it may block: in a thread, on a loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool


def run_apart(
    url: sa.URL, options: Mapping[str, Any], work: Callable[[sa.Connection], None]
) -> None:
    """Run `work` in a transaction that is committed on return. Blocks."""

    async def run() -> None:
        engine = create_async_engine(
            url, poolclass=NullPool, hide_parameters=True, connect_args=dict(options)
        )
        async with engine.begin() as connection:
            await connection.run_sync(work)
        await engine.dispose()

    asyncio.run(run())
