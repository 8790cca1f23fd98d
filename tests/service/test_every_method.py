"""Every method of every service, as reflection tells of them: nobody calls one that is not his to call."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_cli
import grpc
import pytest
from conversing import Model
from reflected import Method, reflected
from shared import ServiceThread, shared_service
from tenancies import tenant
from warmline.v1 import (
    admin_service_pb2,
    audit_service_pb2,
    chat_service_pb2,
    model_service_pb2,
    session_service_pb2,
    usage_service_pb2,
)
from warmline.v1 import chat_service_pb2_grpc as chat_grpc
from warmline_service.rpc._scopes import scopes_of
from warmline_service.tenants import new_key

pytestmark = pytest.mark.shared_service

_FILES = (
    admin_service_pb2,
    audit_service_pb2,
    chat_service_pb2,
    model_service_pb2,
    session_service_pb2,
    usage_service_pb2,
)
_SERVICES = [service for file in _FILES for service in file.DESCRIPTOR.services_by_name.values()]
SCOPES = scopes_of(_SERVICES)
# What names no session; a new method has to come into one of the two.
_WITHOUT_SESSION = {
    "ModelService/ListModels",
    "ModelService/GetModel",
    "ModelService/CountTokens",
    "ModelService/GetRouting",
    "AuditService/ListAuditEvents",
    "UsageService/GetUsage",
    "SessionService/ListSessions",
    "SessionService/ImportSession",
}
# Where a session is named, and what else the method wants before it looks for one.
_APPROVAL = {"approvalId": "00000000-0000-4000-8000-000000000000", "allow": {}}
_NAMED: dict[str, list[Any]] = {
    "ChatService/Chat": [{"open": {"session_id": "ID"}}, {"open": {"fork": {"session_id": "ID"}}}],
    "ChatService/Ask": [{"session_id": "ID", "message": {"text": "hi"}}],
    "SessionService/AnswerApproval": [{"session_id": "ID", "decision": _APPROVAL}],
    "SessionService/ReadFile": [{"session_id": "ID", "path": "a"}],
}


class Doors:
    """A service with a key for each case."""

    def __init__(self) -> None:
        self.keys: dict[str, str] = {}
        self.tenants = [
            self._tenant("acme", scopes=["chat", "read"]),
            self._tenant("other", scopes=["chat", "read", "admin"]),
            self._tenant(
                "late", scopes=["chat", "read", "admin"], expires_at="2020-01-01T00:00:00Z"
            ),
        ]
        for scope in ("chat", "read", "admin"):
            others = [each for each in ("chat", "read", "admin") if each != scope]
            self.tenants.append(self._tenant(f"not-{scope}", scopes=others))

    def _tenant(self, name: str, **key: Any) -> dict[str, Any]:
        made, self.keys[name] = tenant(name, **key)
        return made

    def header(self, name: str) -> dict[str, str]:
        """Metadata with a key."""
        return {"authorization": f"Bearer {self.keys[name]}"}


@pytest.fixture(scope="module")
def doors() -> Doors:
    """The keys."""
    return Doors()


@pytest.fixture(scope="module")
def service(doors: Doors) -> Iterator[ServiceThread]:
    """The service."""
    with tempfile.TemporaryDirectory() as folder:
        cli = {"path": fake_cli.install(Path(folder) / "fake")}
        with shared_service(Model(), tenants=doors.tenants, cli=cli) as thread:
            yield thread


@pytest.fixture
def channel(service: ServiceThread) -> Iterator[grpc.Channel]:
    """A connection to it."""
    with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        yield channel


@pytest.fixture
def methods(channel: grpc.Channel) -> list[Method]:
    """All that can be called."""
    return reflected(channel)


def test_the_walk_misses_nothing(methods: list[Method]) -> None:
    """Reflection tells of every service of the contract, and each method of them has its scope."""
    assert {method.path for method in methods} == set(SCOPES)
    assert {each.name for each in _SERVICES} == {
        "AdminService",
        "AuditService",
        "ChatService",
        "ModelService",
        "SessionService",
        "UsageService",
    }


def test_nobody_unknown_calls_any(
    methods: list[Method], channel: grpc.Channel, doors: Doors
) -> None:
    """Without a key, with one that nobody has, with one that is past its expiry."""
    _, unknown = new_key()
    for method in methods:
        request = method.request()
        assert method.refusal(channel, request) == "KEY_INVALID", method.name
        stranger = {"authorization": f"Bearer {unknown}"}
        assert method.refusal(channel, request, **stranger) == "KEY_INVALID", method.name
        late = doors.header("late")
        assert method.refusal(channel, request, **late) == "KEY_EXPIRED", method.name


def test_a_scope_opens_its_methods_alone(
    methods: list[Method], channel: grpc.Channel, doors: Doors
) -> None:
    """A key with the two other scopes is refused by name, before its request is looked at."""
    for method in methods:
        header = doors.header(f"not-{SCOPES[method.path]}")
        assert method.refusal(channel, method.request(), **header) == "POLICY_DENIED", method.name


def test_anothers_session_is_none(
    methods: list[Method], channel: grpc.Channel, doors: Doors
) -> None:
    """Whatever one tenant does with another's id, there is no such session; its owner still has it."""
    session_id = _new_session(channel, doors)
    stranger, walked = doors.header("other"), set()
    for method in methods:
        named = _NAMED.get(method.name)
        if named is None and "session_id" in method.descriptor.input_type.fields_by_name:
            named = [{"session_id": "ID"}]
        for body in named or ():
            request = method.request(**_filled(body, session_id))
            assert method.refusal(channel, request, **stranger) == "SESSION_NOT_FOUND", method.name
            walked.add(method.name)
    theirs = {method.name for method in methods if "AdminService" not in method.name}
    assert walked == theirs - _WITHOUT_SESSION
    (watch,) = [method for method in methods if method.name == "SessionService/GetSession"]
    watch.call(channel, watch.request(session_id=session_id), **doors.header("acme"))


def _new_session(channel: grpc.Channel, doors: Doors) -> str:
    request = chat_service_pb2.AskRequest(message=chat_service_pb2.UserMessage(text="hi"))
    header = tuple(doors.header("acme").items())
    for response in chat_grpc.ChatServiceStub(channel).Ask(request, metadata=header, timeout=30):
        session_id: str = response.events[0].session_id
    return session_id


def _filled(body: Any, session_id: str) -> Any:
    if isinstance(body, dict):
        return {name: _filled(value, session_id) for name, value in body.items()}
    return session_id if body == "ID" else body
