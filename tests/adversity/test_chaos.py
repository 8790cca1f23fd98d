"""A short run of the fault harness; `make chaos` is a long one."""

import asyncio
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import pytest

_TESTS = Path(__file__).parents[1]
_FAULTS = 11


@pytest.mark.parametrize(("store", "seed"), [("sqlite", 12), ("postgres", 14)])
async def test_every_promise_is_kept_while_things_break(store: str, seed: int) -> None:
    """Processes, connections and the database are killed; each message has its one end, all the same."""
    given = ("--faults", str(_FAULTS), "--seed", str(seed), "--store", store, "--sessions", "2")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "chaos", *given), cwd=_TESTS, stdout=PIPE, stderr=STDOUT
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), 280)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode == 0, said.decode()
    assert f"{_FAULTS}  fault\n" in said.decode()
