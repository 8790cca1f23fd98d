"""Write every file that is made from proto/, or say whether the committed ones are current.

generate.py            write them into the tree
generate.py --check    make them elsewhere and compare; exit 1 where they differ
"""

import argparse
import filecmp
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
THIRD_PARTY = ROOT / "third_party" / "proto"
PYTHON = Path("clients/python/warmline/v1")
# Folders that hold generated files and nothing else.
OUTPUTS = (PYTHON, Path("clients/typescript/src/gen"), Path("clients/go/warmline/v1"))


def run(*command: str | Path) -> None:
    """Run one generator from the root with .venv's programs first, or exit with its status."""
    scripts = sysconfig.get_path("scripts")
    env = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    done = subprocess.run([str(word) for word in command], cwd=ROOT, env=env, check=False)
    if done.returncode:
        sys.exit(f"generate: {command[0]} failed with status {done.returncode}")


def protoc(*options: str, protos: list[Path]) -> None:
    """Run protoc over `protos` with `options`."""
    paths = (f"--proto_path={PROTO}", f"--proto_path={THIRD_PARTY}")
    names = [str(path.relative_to(PROTO)) for path in protos]
    run(sys.executable, "-m", "grpc_tools.protoc", *paths, *options, *names)


def generate_python(target: Path) -> None:
    """Write messages, stubs and their types below `target`; google/rpc comes from its own wheel."""
    out = target / PYTHON.parent.parent
    out.mkdir(parents=True)
    protos = sorted(PROTO.rglob("*.proto"))
    protoc(f"--python_out={out}", f"--mypy_out=quiet:{out}", protos=protos)
    # Only files that declare a service: protoc writes an empty module otherwise.
    services = [path for path in protos if path.stem.endswith("_service")]
    protoc(f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}", protos=services)
    (target / PYTHON / "py.typed").touch()


def generate(target: Path) -> None:
    """Write everything below `target`, laid out as in the tree."""
    generate_python(target)
    run("buf", "generate", "--template", "buf.gen.yaml", "--output", target)


def files(folder: Path) -> Iterator[Path]:
    """Every file below `folder`, relative to it, apart from Python's caches."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(folder)


def differences(made: Path, kept: Path) -> Iterator[str]:
    """What must be done to `kept` to make it what `made` is, one line each."""
    wanted, present = set(files(made)), set(files(kept))
    yield from (f"missing: {path}" for path in sorted(wanted - present))
    yield from (f"left over: {path}" for path in sorted(present - wanted))
    for path in sorted(wanted & present):
        if not filecmp.cmp(made / path, kept / path, shallow=False):
            yield f"outdated: {path}"


def check(target: Path) -> int:
    """Print how the tree differs from `target`; 1 where it does."""
    found = [
        f"{folder}: {line}"
        for folder in OUTPUTS
        for line in differences(target / folder, ROOT / folder)
    ]
    if found:
        print("Generated files are not current; run `make generate`.", *found, sep="\n")
    return bool(found)


def install(target: Path) -> int:
    """Replace the generated folders of the tree by those of `target`."""
    for folder in OUTPUTS:
        shutil.rmtree(ROOT / folder, ignore_errors=True)
        shutil.copytree(target / folder, ROOT / folder)
        print(f"{folder}: {sum(1 for _ in files(ROOT / folder))} files")
    return 0


def main() -> int:
    """Generate into a temporary folder, then compare or install."""
    parser = argparse.ArgumentParser(description="Generate the stubs of the API.")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="warmline-generate-") as folder:
        target = Path(folder)
        generate(target)
        return check(target) if arguments.check else install(target)


if __name__ == "__main__":
    sys.exit(main())
