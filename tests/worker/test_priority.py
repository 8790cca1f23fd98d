"""A CLI process has less of a claim on the CPU than the service."""

import os
from pathlib import Path

import fake_cli
import leaks
import pytest
from running import running_service
from warmline_service.worker._priority import give_way


@pytest.mark.parametrize("nice", [0, 7])
async def test_processes_run_at_the_priority_that_is_set(tmp_path: Path, nice: int) -> None:
    """The process, what it starts, and its session where the kernel groups sessions."""
    own = os.getpriority(os.PRIO_PROCESS, 0)
    cli = {"path": fake_cli.install(tmp_path / "fake"), "nice": nice}
    async with running_service(cli=cli, pool={"warm_up": False}):
        children = leaks.children()
        assert children
        for child in children:
            assert os.getpriority(os.PRIO_PROCESS, child.pid) == nice
            group = Path(f"/proc/{child.pid}/autogroup")
            assert not group.exists() or group.read_text().split()[-1] == str(nice)
    assert os.getpriority(os.PRIO_PROCESS, 0) == own


def test_a_process_that_has_ended_is_passed_over() -> None:
    """It needs no priority any more."""
    give_way(2**22 - 1, 5)
