"""`make bench`: measure, print a table, write JSON."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.metadata
import json
import os
import platform
import signal
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

# Read when grpc is imported; with fork support it can lose child processes.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

import psutil
from rich.console import Console
from warmline_service.config import CliSettings
from warmline_service.worker import find_cli, read_version

from bench import (
    fan_out,
    first_text,
    http,
    idle,
    journal,
    litellm,
    machine,
    memory,
    sandbox,
    tenants,
    throughput,
)
from bench.figures import Report
from bench.load import build_reader
from bench.plan import Plan
from bench.table import show

_PARTS = {
    "machine": machine.run,
    "first-text": first_text.run,
    "sandbox": sandbox.run,
    "throughput": throughput.run,
    "fan-out": fan_out.run,
    "journal": journal.run,
    "memory": memory.run,
    "idle": idle.run,
    "tenants": tenants.run,
    "http": http.run,
}
# All that the benchmark's children may see of the caller's environment.
_KEPT = ("PATH", "LANG", "TERM", "COLUMNS", "NO_COLOR")
_RESULT = Path("build") / "bench.json"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few samples: figures only indicate")
    parser.add_argument(
        "--only", choices=_PARTS, action="append", metavar="NAME", help=", ".join(_PARTS)
    )
    parser.add_argument("--runs", type=int, metavar="N", help="rounds of first-text [20, quick 4]")
    parser.add_argument("--output", type=Path, default=_RESULT, help=f"JSON file [{_RESULT}]")
    return parser.parse_args()


async def _about(binary: Path) -> dict[str, object]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cli": await read_version(binary),
        "packages": {
            name: importlib.metadata.version(name)
            for name in ("warmline", "grpcio", "protobuf", "aiohttp", "claude-agent-sdk")
        },
        "load_before": [round(each, 2) for each in os.getloadavg()],
    }


async def _measure(arguments: argparse.Namespace, home: Path, report: Report) -> None:
    """Run the parts one after another; a cancellation ends what runs and keeps what there is."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    binary = find_cli(CliSettings())
    quick = arguments.quick
    plan = Plan(home, binary, arguments.runs or (4 if quick else 20), quick)
    report.about = await _about(binary) | {"quick": quick, "rounds": plan.rounds}
    for name in arguments.only or _PARTS:
        begun = time.monotonic()
        print(f"bench: {name} ...", file=sys.stderr, flush=True)
        await _PARTS[name](plan, report)
        took = time.monotonic() - begun
        print(f"bench: {name} took {took:.0f} s", file=sys.stderr, flush=True)
    report.about["load_after"] = [round(each, 2) for each in os.getloadavg()]


def main() -> int:
    """130 where it was interrupted: what was measured until then is shown all the same."""
    arguments = _arguments()
    if "fan-out" in (arguments.only or _PARTS):
        build_reader()
    if "http" in (arguments.only or _PARTS):
        litellm.install()
    for name in set(os.environ) - set(_KEPT):
        del os.environ[name]
    report, interrupted = Report(), True
    # Short: the path of a slot's socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="wlb-", ignore_cleanup_errors=True) as home:
        os.environ["HOME"] = home
        with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
            asyncio.run(_measure(arguments, Path(home), report))
            interrupted = False
    if interrupted:
        report.remarks.append("interrupted: not everything was measured")
    show(report, Console())
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(report.as_json(), indent=1) + "\n", encoding="utf-8")
    print(f"bench: samples in {arguments.output}", file=sys.stderr)
    return 130 if interrupted else 0


if __name__ == "__main__":
    sys.exit(main())
