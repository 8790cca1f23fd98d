"""Fail where a file or a function is longer than anybody likes to read.

check_size.py PATH...    each a Python file or a folder of them
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FILE_LINES = 500
FUNCTION_LINES = 60


def long_parts(path: Path) -> Iterator[str]:
    """Each limit that the file at `path` exceeds, as `path:line: reason`."""
    source = path.read_text(encoding="utf-8")
    lines = source.count("\n")
    if lines > FILE_LINES:
        yield f"{path}:1: {lines} lines, at most {FILE_LINES} are allowed in a file"
    for node in ast.walk(ast.parse(source, str(path))):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > FUNCTION_LINES:
            yield (
                f"{path}:{node.lineno}: `{node.name}` has {length} lines, "
                f"at most {FUNCTION_LINES} are allowed in a function"
            )


def python_files(arguments: list[str]) -> Iterator[Path]:
    """The Python files that the arguments name or hold; a folder that does not exist holds none."""
    for path in map(Path, arguments):
        yield from sorted(path.rglob("*.py")) if not path.is_file() else [path]


def main() -> int:
    """Print what is too long; 1 where anything is."""
    found = [line for path in python_files(sys.argv[1:]) for line in long_parts(path)]
    print(*found, sep="\n", end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
