"""Compare the API with its last released form, or make today's form the released one.

contract.py check [--root DIR]    exit 1 where DIR/proto breaks the released contract
contract.py release               write proto/baseline.binpb; part of making a release
"""

import argparse
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BASELINE = ROOT / "proto" / "baseline.binpb"


def buf(root: Path, *words: str | Path) -> int:
    """Run buf in `root`; its exit status. What it finds goes to stdout."""
    program = Path(sysconfig.get_path("scripts")) / "buf"
    command = [str(program), *map(str, words)]
    return subprocess.run(command, cwd=root, check=False).returncode


def build(root: Path, image: Path) -> int:
    """Compile the API below `root` into `image`, without comments; buf's exit status."""
    # As an image: against a workspace of two modules buf takes no single image as a baseline.
    return buf(root, "build", "--path", "proto/warmline", "--exclude-source-info", "-o", image)


def check(root: Path) -> int:
    """Say how the API below `root` breaks the released one; 0 where it does not."""
    with tempfile.TemporaryDirectory(prefix="warmline-contract-") as folder:
        image = Path(folder) / "current.binpb"
        return build(root, image) or buf(
            root, "breaking", image, "--against", BASELINE, "--exclude-imports"
        )


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description="Keep the API compatible.")
    parser.add_argument("command", choices=["check", "release"])
    parser.add_argument("--root", type=Path, default=ROOT, help="the tree to check")
    arguments = parser.parse_args()
    if arguments.command == "release":
        return build(ROOT, BASELINE)
    return check(arguments.root)


if __name__ == "__main__":
    sys.exit(main())
