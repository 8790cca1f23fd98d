"""`make chaos`: break things while conversations run, check every promise, print a table.

python -m chaos --faults N --seed N --store sqlite|postgres
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

# Read when grpc is imported; with fork support it can lose child processes.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

from chaos.checks import Violation
from chaos.database import own_disk, release_disk
from chaos.report import show
from chaos.run import make_home, remove_home, run
from chaos.world import Options, World


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=500, help="how many [500]")
    parser.add_argument("--seed", type=int, help="of the schedule [a new one, which is printed]")
    parser.add_argument("--store", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--sessions", type=int, default=4, help="at once [4]")
    parser.add_argument("--real-cli", action="store_true", help="the real CLI, not the fake one")
    parser.add_argument("--keep", action="store_true", help="keep the directory and the log")
    return parser.parse_args()


def _say(text: str) -> None:
    print(f"chaos: {time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


async def _run(options: Options, home: Path) -> tuple[World, Sequence[Violation]]:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run(options, home, _say)


def main() -> int:
    """1 where a promise was not kept, 130 where it was interrupted."""
    arguments = _arguments()
    seed = random.SystemRandom().randrange(2**31) if arguments.seed is None else arguments.seed
    home = make_home()
    # Before there is a second thread: the disk is this process's and its children's alone.
    disk = arguments.store == "sqlite"
    refused = own_disk(home / "d") if disk else ""
    if refused:
        _say(f"no faults of the disk on this machine: {refused}")
    options = Options(
        arguments.faults,
        seed,
        arguments.store,
        arguments.sessions,
        arguments.real_cli,
        disk and not refused,
    )
    _say(f"seed {seed}; the same again: {options.command}")
    keep = arguments.keep
    try:
        world, violations = asyncio.run(_run(options, home))
        show(world, violations)
        keep = keep or bool(violations)
    except (KeyboardInterrupt, asyncio.CancelledError):
        _say("interrupted: everything that was started has ended")
        return 130
    finally:
        if options.disk and not keep:
            release_disk(home / "d")
        if keep:
            _say(f"what is left of the run is in {home}")
        else:
            remove_home(home)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
