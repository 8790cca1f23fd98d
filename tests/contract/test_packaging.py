"""What is built and committed: nothing is missing, nothing says where packages come from."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# In pieces, so that this file passes its own test.
REGISTRIES = tuple(
    ".".join(parts).encode()
    for parts in (
        ("pypi", "org"),
        ("files", "pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("registry", "yarnpkg", "com"),
        ("proxy", "golang", "org"),
        ("sum", "golang", "org"),
        ("deb", "debian", "org"),
        ("buf", "build/"),
        ("conda", "anaconda", "org"),
    )
)


def committed() -> list[Path]:
    """Every file that is in the repository or will be."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=30)
    names = done.stdout.decode().split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def test_no_file_names_a_registry() -> None:
    """Where packages come from is each machine's own affair."""
    found = [
        f"{path.relative_to(ROOT)}: {name.decode()}"
        for path in committed()
        for name in REGISTRIES
        if name in path.read_bytes()
    ]
    assert not found


def test_every_development_package_is_pinned() -> None:
    """Two machines that are set up on different days run the same code."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert lines
    assert [line for line in lines if "==" not in line.split(";")[0]] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_each_package(wheel: Path) -> None:
    """One distribution: the service, the client and the generated stubs with their types."""
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "warmline_service/__init__.py",
        "warmline_client/__init__.py",
        "warmline_http/__init__.py",
        "warmline/v1/chat_service_pb2.py",
        "warmline/v1/chat_service_pb2_grpc.pyi",
        "warmline/v1/py.typed",
    } <= names


def test_the_wheel_holds_the_pages(wheel: Path) -> None:
    """All that is in the source: the shim serves its pages from what is installed."""
    folder = ROOT / "gateway_http" / "warmline_http" / "pages"
    pages = {f"warmline_http/pages/{path.name}" for path in folder.iterdir()}
    assert "warmline_http/pages/chat.html" in pages
    assert pages <= set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_holds_nothing_else(wheel: Path) -> None:
    """No tests, scripts or stubs for other languages."""
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "warmline",
        "warmline_client",
        "warmline_http",
        "warmline_service",
    }


def test_commands_do_not_wait_for_what_only_the_service_needs() -> None:
    """What `warmline` imports before it knows the command; all of the service takes ten times as long."""
    code = (
        "import sys\n"
        "from importlib.metadata import entry_points\n"
        "import warmline_service.cli\n"
        "for entry in entry_points(group='warmline.commands'): entry.load()\n"
        "print(*{'sqlalchemy', 'aiohttp', 'pydantic', 'fastapi', 'redis'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
