"""How generate.py compares what it made with what is committed."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """scripts/generate.py, which is in no package."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "scripts" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """What was made and what is kept: the same file in both."""
    made, kept = tmp_path / "made", tmp_path / "kept"
    for folder in (made, kept):
        folder.mkdir()
        (folder / "a.py").write_text("1\n")
    return made, kept


def test_equal_folders_do_not_differ(generate: ModuleType, folders: tuple[Path, Path]) -> None:
    """Python's caches do not count."""
    (folders[1] / "__pycache__").mkdir()
    (folders[1] / "__pycache__" / "a.pyc").touch()
    assert list(generate.differences(*folders)) == []


def test_each_difference_is_named(generate: ModuleType, folders: tuple[Path, Path]) -> None:
    """A file that is missing, left over or outdated is told apart."""
    made, kept = folders
    (made / "b.py").touch()
    (kept / "c.py").touch()
    (kept / "a.py").write_text("2\n")
    assert list(generate.differences(made, kept)) == [
        "missing: b.py",
        "left over: c.py",
        "outdated: a.py",
    ]


def test_generated_python_is_a_namespace_package() -> None:
    """Other distributions may add to `warmline`, and type checkers find the stubs' types."""
    stubs = ROOT / "clients" / "python" / "warmline"
    assert not list(stubs.rglob("__init__.py"))
    assert (stubs / "v1" / "py.typed").exists()
    modules = {path.stem for path in (stubs / "v1").glob("*.py")}
    assert {path.stem for path in (stubs / "v1").glob("*.pyi")} == modules


def test_only_services_have_grpc_stubs() -> None:
    """A file without a service gets no empty stub."""
    stubs = ROOT / "clients" / "python" / "warmline" / "v1"
    for path in stubs.glob("*_pb2_grpc.py"):
        assert path.name.endswith("_service_pb2_grpc.py")
