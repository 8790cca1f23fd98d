"""Whatever a caller sends is taken whole or refused by its field, and what is taken survives."""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, cast

import pytest
from hostile import MARK, messages
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import session_config_pb2 as pb
from warmline.v1 import session_service_pb2 as session_pb
from warmline_service.chat._keys import acceptable_keys
from warmline_service.config import RetentionSettings
from warmline_service.errors import Reason, WarmlineError
from warmline_service.quota import Quota
from warmline_service.rpc._parse import ask_opening_of, message_of, names_of, opening_of
from warmline_service.rpc._parse_answers import decision_of, tool_answer_of
from warmline_service.rpc._parse_config import config_of
from warmline_service.rpc._wire_config import wire_config
from warmline_service.sessions import McpServer, Secrets, SessionConfig
from warmline_service.sessions import config_of as stored_config_of
from warmline_service.sessions._sessions import Sessions
from warmline_service.store import Store
from warmline_service.vault import Vault
from warmline_service.worker import Capabilities
from warmline_service.worker._argv import Files, build_argv
from warmline_service.worker._control import encode_line

S = TypeVar("S", bound=Secrets)

_LIMIT = 100_000
_ABLE = Capabilities("1", (), True, True, True, True, True, True, True, True)
_BINARY = Path("/opt/claude")
_FILES = Files(
    Path("/slot/system-prompt"),
    Path("/slot/agents.json"),
    debug=Path("/slot/debug.log"),
    plugins=(Path("/slot/plugins/0"),),
)
_VAULT = Vault(bytes(32))
_SESSIONS = Sessions(cast("Store", None), cast("Quota", None), RetentionSettings(), _VAULT)
SEEDS = range(10)
EACH = 1000


def _taken(config: pb.SessionConfig) -> SessionConfig | None:
    """The configuration, or None where it is refused as it should be."""
    try:
        return config_of(config, "open.config", existing=False)
    except WarmlineError as error:
        refused = error
    assert refused.reason is Reason.FIELD_INVALID
    fields = [violation.field for violation in refused.violations]
    assert len(fields) == 1
    assert fields[0].startswith("open.config.")
    assert fields[0].isprintable()
    return None


def _accepted(seed: int) -> Iterator[SessionConfig]:
    for config in messages(pb.SessionConfig, f"config{seed}", EACH):
        taken = _taken(config)
        if taken is not None:
            yield taken


def _check_kept(config: SessionConfig) -> None:
    """It comes back from the store and from the wire as it was, however deep it is in an answer."""
    row = _SESSIONS.new_row("dev", config, "")
    stored = stored_config_of(row)
    opened = replace(stored, mcp_servers=_opened(stored), credential=_given(stored.credential))
    assert opened == config
    assert not any(secret in row.config for secret in _secrets(config))
    sent = session_pb.ListSessionsResponse(
        sessions=[session_pb.Session(config=wire_config(config))]
    )
    received = session_pb.ListSessionsResponse.FromString(sent.SerializeToString())
    told = received.sessions[0].config
    assert not any(secret in str(told) for secret in _secrets(config))
    _give_again(told, config)
    assert config_of(told, "config", existing=False) == config


def _opened(config: SessionConfig) -> dict[str, McpServer]:
    """The servers as they were given, out of what is stored of them."""
    return {
        name: replace(server, secrets=_given(server.secrets))
        for name, server in config.mcp_servers.items()
    }


def _given(secrets: S) -> S:
    values = secrets.values(_VAULT, "dev")
    return replace(secrets, given=values, sealed="") if values else secrets


def _secrets(config: SessionConfig) -> set[str]:
    holders = [config.credential, *(each.secrets for each in config.mcp_servers.values())]
    values = {value for each in holders for value in (each.given or {}).values()}
    return {value for value in values if value.startswith("Bearer")}


def _give_again(told: pb.SessionConfig, config: SessionConfig) -> None:
    """What is told to nobody, so that the rest can be compared."""
    for kind, secret in (config.credential.given or {}).items():
        setattr(told.credential, kind, secret)
    for name, server in config.mcp_servers.items():
        values, each = server.secrets.given or {}, told.mcp_servers[name]
        if server.kind == "stdio":
            each.stdio.environment.update(values)
        else:
            getattr(each, server.kind).headers.update(values)


def _check_command(config: SessionConfig, can: Capabilities) -> None:
    """Every argument is one of ours or a flag of ours, on one line, without a word for the model."""
    for key in acceptable_keys(can, config, config.model, Path("/workspaces/dev")):
        binary, *arguments = build_argv(_BINARY, key, _FILES, mirror=True)
        assert binary == str(_BINARY)
        for argument in arguments:
            assert argument == "-p" or argument.startswith("--")
            assert not any(unicodedata.category(letter) == "Cc" for letter in argument)
            assert MARK not in argument


def _check_lines(config: SessionConfig) -> None:
    """What is told over standard input is one line each."""
    for told in (config.options.first, config.options.settings):
        assert encode_line(told).count(b"\n") == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_a_hostile_config_is_refused_by_field_or_survives(seed: int) -> None:
    """Of a thousand a good part is taken; none raises anything else, none gets into the command."""
    taken = list(_accepted(seed))
    assert EACH // 6 < len(taken) < EACH * 4 // 5
    for config in taken:
        _check_kept(config)
        _check_command(config, _ABLE)
        _check_command(config, Capabilities("1"))
        _check_lines(config)


def test_every_field_of_a_config_is_among_those_that_are_taken() -> None:
    """Otherwise the test above says nothing about it."""
    seen: set[str] = set()
    for config in _accepted(0):
        seen |= {field.name for field, _ in wire_config(config).ListFields()}
    assert seen == set(pb.SessionConfig.DESCRIPTOR.fields_by_name)


def _frame_of(frame: chat_pb.ChatRequest) -> object:
    match frame.WhichOneof("frame"):
        case "open":
            return opening_of(frame.open)
        case "message":
            return message_of(frame.message, "message", _LIMIT)
        case "approval_decision":
            return decision_of(frame.approval_decision, "approval_decision", _LIMIT)
        case "client_tool_result":
            return tool_answer_of(frame.client_tool_result, "client_tool_result")
        case "checkpoint":
            return names_of(frame.checkpoint, "checkpoint")
    return None


def _ask_of(request: chat_pb.AskRequest) -> object:
    return message_of(request.message, "message", _LIMIT), ask_opening_of(request)


def _outcomes(requests: Sequence[object], parse: Callable[..., object]) -> list[Reason | None]:
    """What each is refused with; None for what is taken."""
    outcomes: list[Reason | None] = []
    for request in requests:
        try:
            parse(request)
            outcomes.append(None)
        except WarmlineError as error:
            outcomes.append(error.reason)
    return outcomes


@pytest.mark.parametrize("kind", [chat_pb.ChatRequest, chat_pb.AskRequest])
def test_a_hostile_frame_is_refused_by_field_or_by_size(
    kind: type[chat_pb.ChatRequest | chat_pb.AskRequest],
) -> None:
    """Every kind of frame: taken, or FIELD_INVALID, or MESSAGE_TOO_LARGE."""
    parse: Callable[..., object] = _frame_of if kind is chat_pb.ChatRequest else _ask_of
    outcomes = _outcomes(list(messages(kind, "frame", 2000)), parse)
    assert set(outcomes) == {None, Reason.FIELD_INVALID, Reason.MESSAGE_TOO_LARGE}
    assert outcomes.count(None) > 200
