"""Run make targets in turn, one line each; what a target says is shown only if it fails.

steps.py TARGET...    exit 1 at the first that fails
"""

import os
import subprocess
import sys
import time


def passes(target: str, width: int) -> bool:
    """Run one target, print its line, and its output where it failed."""
    print(f"{target:<{width}}", end="  ", flush=True)
    started = time.monotonic()
    command = [os.environ.get("MAKE", "make"), "--no-print-directory", target]
    done = subprocess.run(
        command,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    good = done.returncode == 0
    print(f"{'ok' if good else 'FAILED':<6} {time.monotonic() - started:6.1f} s", flush=True)
    if not good:
        print(done.stdout, end="", flush=True)
    return good


def main() -> int:
    """Run the targets of the command line; 0 where all passed."""
    targets = sys.argv[1:]
    width = max(map(len, targets), default=0)
    return 0 if all(passes(target, width) for target in targets) else 1


if __name__ == "__main__":
    sys.exit(main())
