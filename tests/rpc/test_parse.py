"""Requests are checked field by field."""

import contextlib

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import session_config_pb2 as pb
from warmline_service.errors import Reason, WarmlineError
from warmline_service.rpc._parse import (
    detail_of,
    message_of,
    session_id_of,
)
from warmline_service.rpc._parse_config import PROMPT_BYTES, config_of

BAD_CONFIGS = [
    (pb.SessionConfig(model="--dangerous"), "open.config.model"),
    (pb.SessionConfig(model="a b"), "open.config.model"),
    (pb.SessionConfig(model="x" * 200), "open.config.model"),
    (
        pb.SessionConfig(system_prompt=pb.SystemPrompt(replace=" ")),
        "open.config.system_prompt.replace",
    ),
    (
        pb.SessionConfig(system_prompt=pb.SystemPrompt(append="é" * PROMPT_BYTES)),
        "open.config.system_prompt.append",
    ),
    (
        pb.SessionConfig(limits=pb.Limits(turn_timeout=Duration(seconds=0))),
        "open.config.limits.turn_timeout",
    ),
    (
        pb.SessionConfig(limits=pb.Limits(stall_timeout=Duration(seconds=-(2**40)))),
        "open.config.limits.stall_timeout",
    ),
]


@pytest.mark.parametrize(("config", "field"), BAD_CONFIGS, ids=range(len(BAD_CONFIGS)))
def test_a_bad_field_is_named(config: pb.SessionConfig, field: str) -> None:
    """INVALID_ARGUMENT says which field, by its path in the request."""
    with pytest.raises(WarmlineError) as caught:
        config_of(config, "open.config", existing=False)
    assert [violation.field for violation in caught.value.violations] == [field]


def test_a_config_for_an_existing_session_is_refused() -> None:
    """What is fixed when a session begins cannot be set again."""
    with pytest.raises(WarmlineError, match="existing session"):
        config_of(pb.SessionConfig(model="opus"), "open.config", existing=True)


def test_an_empty_config_means_the_defaults() -> None:
    """Nothing set, nothing asked for."""
    config = config_of(pb.SessionConfig(), "open.config", existing=False)
    assert (config.model, config.system_prompt, config.turn_timeout) == (None, None, None)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_named_error(data: bytes) -> None:
    """Whatever decodes either passes or is refused by field."""
    config = pb.SessionConfig()
    with contextlib.suppress(DecodeError):
        config = pb.SessionConfig.FromString(data)
    refused = None
    try:
        config_of(config, "open.config", existing=False)
    except WarmlineError as error:
        refused = error
    assert refused is None or (refused.reason is Reason.FIELD_INVALID and refused.violations)


def test_unknown_detail_is_refused() -> None:
    """An enum value that this version does not know is an error, not a default."""
    with pytest.raises(WarmlineError, match="42"):
        detail_of(42, "open.detail")


@pytest.mark.parametrize("value", ["x", "../../etc", "0" * 36, "-" * 36, "\x00"])
def test_a_session_id_is_a_uuid(value: str) -> None:
    """Anything else is refused before it is looked up."""
    with pytest.raises(WarmlineError, match=r"open\.session_id"):
        session_id_of(value, "open.session_id")


def test_a_large_message_is_refused_by_its_limit() -> None:
    """The error says how much is allowed."""
    message = chat_pb.UserMessage(text="x" * 2000)
    with pytest.raises(WarmlineError) as caught:
        message_of(message, "message", 1024)
    assert caught.value.reason is Reason.MESSAGE_TOO_LARGE
    assert caught.value.metadata["limitBytes"] == "1024"
