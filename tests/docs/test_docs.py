"""The docs say what the code does."""

import re
import runpy
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner
from warmline.v1 import (
    admin_service_pb2,
    audit_service_pb2,
    chat_service_pb2,
    model_service_pb2,
    session_service_pb2,
    usage_service_pb2,
)
from warmline_http._app import routes
from warmline_http._settings import HttpSettings
from warmline_service.cli import app
from warmline_service.errors import Reason
from warmline_service.rpc._status import CODES

ROOT = Path(__file__).resolve().parents[2]


def test_the_settings_page_is_current() -> None:
    """docs/settings.md is what the code makes of the settings (`make generate`)."""
    made = runpy.run_path(str(ROOT / "scripts" / "settings_doc.py"))
    assert (ROOT / "docs" / "settings.md").read_text() == made["render"]()
    page = (ROOT / "docs" / "http.md").read_text()
    assert page == made["render_http"](page)


def test_every_route_is_in_the_page_about_http() -> None:
    """docs/http.md has each route of the API's page, by its method and path."""
    page = (ROOT / "docs" / "http.md").read_text()
    for path, methods in routes(HttpSettings()).openapi()["paths"].items():
        for method in methods:
            assert f"`{method.upper()} {path}`" in page


def test_the_shims_own_reasons_are_explained() -> None:
    """docs/http.md has a line for each reason that is not the service's."""
    page = (ROOT / "docs" / "http.md").read_text()
    code = "".join(path.read_text() for path in (ROOT / "gateway_http").rglob("*.py"))
    said = set(re.findall(r'\d{3}, "([A-Z_]+)"', code))
    assert {"HOST_NOT_ALLOWED", "TIMEOUT", "BODY_TIMEOUT"} <= said
    own = said - {reason.value for reason in Reason}
    assert [reason for reason in sorted(own) if f"| `{reason}` |" not in page] == []


@pytest.mark.parametrize("reason", list(Reason))
def test_each_reason_is_explained_with_its_status(reason: Reason) -> None:
    """docs/errors.md has a line for every reason, with the status that carries it."""
    page = (ROOT / "docs" / "errors.md").read_text()
    assert f"| `{reason.value}` | {CODES[reason].name} |" in page


def test_every_action_of_the_audit_log_is_explained() -> None:
    """docs/audit.md has each action that the code records, and each command."""
    page = (ROOT / "docs" / "audit.md").read_text()
    name = r'"((?:auth|policy|session|turn|tool|service|audit)\.[a-z_]+)"'
    code = (ROOT / "service" / "warmline_service").rglob("*.py")
    actions = {action for path in code for action in re.findall(name, path.read_text())}
    assert {"auth.failed", "tool.denied", "session.deleted", "audit.dropped"} <= actions
    actions.remove("session.config")  # A field of a request.
    assert [action for action in sorted(actions) if f"`{action}`" not in page] == []


def test_the_readme_names_every_method() -> None:
    """Each RPC of each service is in the README."""
    readme = (ROOT / "README.md").read_text()
    for file in (
        admin_service_pb2,
        audit_service_pb2,
        chat_service_pb2,
        model_service_pb2,
        session_service_pb2,
        usage_service_pb2,
    ):
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


@pytest.mark.parametrize("command", ["serve", "loopback", "doctor", "audit", "new-key", "hash-key"])
def test_every_command_has_help(command: str) -> None:
    """`--help` works and says what the command does; the README names it."""
    result = CliRunner().invoke(app, shlex.split(f"{command} --help"))
    assert result.exit_code == 0
    assert len(result.output) > 100
    assert f"warmline {command}" in (ROOT / "README.md").read_text()
