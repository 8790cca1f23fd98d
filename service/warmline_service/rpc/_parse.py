"""From the wire to the domain: every field of a request is checked here, and named when it is bad."""

from __future__ import annotations

import re

from google.protobuf.duration_pb2 import Duration
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import session_config_pb2 as config_pb

from warmline_service.chat import Detail
from warmline_service.errors import Reason, WarmlineError, field_invalid
from warmline_service.sessions import SessionConfig
from warmline_service.worker import SystemPrompt

PROMPT_BYTES = 256 * 1024
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@\[\]-]{0,127}")
_SESSION_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TURN_TIMEOUT = (1.0, 24 * 3600.0)
_STALL_TIMEOUT = (1.0, 3600.0)


def detail_of(value: int, field: str) -> Detail:
    """BLOCKS where it is not set."""
    if value == chat_pb.DETAIL_UNSPECIFIED:
        return Detail.BLOCKS
    try:
        return Detail(value)
    except ValueError:
        raise field_invalid(field, f"{value} is no value of Detail") from None


def session_id_of(value: str, field: str) -> str:
    """Empty, or a UUID in lower case."""
    if value and not _SESSION_ID.fullmatch(value):
        raise field_invalid(field, "a session id is a UUID in lower case, as the service gave it")
    return value


def message_of(message: chat_pb.UserMessage, field: str, limit: int) -> str:
    """The text to say: not empty, at most `limit` bytes."""
    if not message.text.strip():
        raise field_invalid(f"{field}.text", "must not be empty")
    size = message.ByteSize()
    if size > limit:
        raise WarmlineError(
            Reason.MESSAGE_TOO_LARGE,
            f"{field} has {size} bytes; {limit} are allowed.",
            metadata={"limitBytes": str(limit), "field": field},
        )
    return message.text


def config_of(config: config_pb.SessionConfig, field: str, *, session_id: str) -> SessionConfig:
    """A checked configuration; it must be empty where an existing session is meant."""
    if session_id and config.ByteSize():
        raise field_invalid(field, "must not be set together with session_id")
    if config.model and not _MODEL.fullmatch(config.model):
        raise field_invalid(f"{field}.model", "is not of the form of a model id")
    return SessionConfig(
        model=config.model or None,
        system_prompt=_prompt_of(config.system_prompt, f"{field}.system_prompt"),
        turn_timeout=_seconds(config.limits, "turn_timeout", f"{field}.limits", _TURN_TIMEOUT),
        stall_timeout=_seconds(config.limits, "stall_timeout", f"{field}.limits", _STALL_TIMEOUT),
    )


def _prompt_of(prompt: config_pb.SystemPrompt, field: str) -> SystemPrompt | None:
    kind = prompt.WhichOneof("kind")
    if kind is None:
        return None
    text = prompt.replace if kind == "replace" else prompt.append
    if not text.strip():
        raise field_invalid(f"{field}.{kind}", "must not be empty")
    if len(text.encode()) > PROMPT_BYTES:
        raise field_invalid(f"{field}.{kind}", f"is longer than {PROMPT_BYTES} bytes")
    return SystemPrompt(kind, text)


def _seconds(
    limits: config_pb.Limits, name: str, field: str, bounds: tuple[float, float]
) -> float | None:
    if not limits.HasField(name):  # type: ignore[arg-type]  # the stub wants a literal
        return None
    duration: Duration = getattr(limits, name)
    seconds = duration.seconds + duration.nanos / 1e9
    low, high = bounds
    if not low <= seconds <= high:
        raise field_invalid(f"{field}.{name}", f"must be from {low:g} s to {high:g} s")
    return seconds
