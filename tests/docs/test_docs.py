"""The docs say what the code does."""

import runpy
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner
from warmline.v1 import admin_service_pb2, chat_service_pb2, model_service_pb2, session_service_pb2
from warmline_service.cli import app
from warmline_service.errors import Reason
from warmline_service.rpc._status import CODES

ROOT = Path(__file__).resolve().parents[2]


def test_the_settings_page_is_current() -> None:
    """docs/settings.md is what the code makes of the settings (`make generate`)."""
    page = runpy.run_path(str(ROOT / "scripts" / "settings_doc.py"))["render"]()
    assert (ROOT / "docs" / "settings.md").read_text() == page


@pytest.mark.parametrize("reason", list(Reason))
def test_each_reason_is_explained_with_its_status(reason: Reason) -> None:
    """docs/errors.md has a line for every reason, with the status that carries it."""
    page = (ROOT / "docs" / "errors.md").read_text()
    assert f"| `{reason.value}` | {CODES[reason].name} |" in page


def test_the_readme_names_every_method() -> None:
    """Each RPC of each service is in the README."""
    readme = (ROOT / "README.md").read_text()
    for file in (admin_service_pb2, chat_service_pb2, model_service_pb2, session_service_pb2):
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                assert f"{service.name}/{method.name}" in readme or f"`{method.name}`" in readme


def test_every_package_is_in_the_architecture() -> None:
    """docs/architecture.md has every package of the service."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    for package in (ROOT / "service" / "warmline_service").glob("*/__init__.py"):
        assert f"`{package.parent.name}/`" in page


def test_every_decision_is_numbered_once() -> None:
    """Decisions are numbered without a gap."""
    names = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("*.md"))
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))


@pytest.mark.parametrize("command", ["serve", "loopback", "doctor", "new-key", "hash-key"])
def test_every_command_has_help(command: str) -> None:
    """`--help` works and says what the command does; the README names it."""
    result = CliRunner().invoke(app, shlex.split(f"{command} --help"))
    assert result.exit_code == 0
    assert len(result.output) > 100
    assert f"warmline {command}" in (ROOT / "README.md").read_text()
