"""From the wire to the domain: every field of a request is checked here, and named when it is bad."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection

from google.protobuf.duration_pb2 import Duration
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import events_pb2 as events_pb
from warmline.v1 import session_config_pb2 as config_pb

from warmline_service.chat import Opening
from warmline_service.errors import Reason, WarmlineError, field_invalid
from warmline_service.sessions import Media, SessionConfig, UserMessage
from warmline_service.sessions.events import Detail
from warmline_service.worker import SystemPrompt

PROMPT_BYTES = 256 * 1024
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@\[\]-]{0,127}")
_SESSION_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KEY = re.compile(r"[!-~]{1,128}")
_WORKSPACE = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_MEDIA = {
    "image": ("image/png", "image/jpeg", "image/gif", "image/webp"),
    "document": ("application/pdf",),
}
_BLOCKS = 100
_KINDS = frozenset(field.name for field in events_pb.Event.DESCRIPTOR.oneofs_by_name["kind"].fields)
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


def turn_id_of(value: str, field: str) -> str:
    """Empty, or a UUID in lower case."""
    if value and not _SESSION_ID.fullmatch(value):
        raise field_invalid(field, "a turn id is a UUID in lower case, as the service gave it")
    return value


def key_of(value: str, field: str) -> str:
    """Empty, or an idempotency key."""
    if value and not _KEY.fullmatch(value):
        raise field_invalid(field, "must be at most 128 characters of ASCII, without spaces")
    return value


def kinds_of(values: Collection[str], field: str) -> frozenset[str]:
    """Names of kinds of event."""
    for index, value in enumerate(values):
        if value not in _KINDS:
            raise field_invalid(f"{field}[{index}]", "is no kind of event, such as `text_delta`")
    return frozenset(values)


def message_of(message: chat_pb.UserMessage, field: str, limit: int) -> UserMessage:
    """What to say: not empty, at most `limit` bytes."""
    size = message.ByteSize()
    if size > limit:
        raise WarmlineError(
            Reason.MESSAGE_TOO_LARGE,
            f"{field} has {size} bytes; {limit} are allowed.",
            metadata={"limitBytes": str(limit), "field": field},
        )
    if not message.text.strip() and not message.content:
        raise field_invalid(f"{field}.text", "must not be empty")
    if len(message.content) > _BLOCKS:
        raise field_invalid(f"{field}.content", f"has more than {_BLOCKS} parts")
    content = tuple(
        _block_of(block, f"{field}.content[{index}]") for index, block in enumerate(message.content)
    )
    key = key_of(message.idempotency_key, f"{field}.idempotency_key")
    return UserMessage(message.text, key, content)


def _block_of(block: chat_pb.InputBlock, field: str) -> str | Media:
    kind = block.WhichOneof("kind")
    if kind is None:
        raise field_invalid(field, "is empty, or of a kind this version does not know")
    if kind == "text":
        if not block.text.strip():
            raise field_invalid(f"{field}.text", "must not be empty")
        return block.text
    media = block.image if kind == "image" else block.document
    if media.media_type not in _MEDIA[kind]:
        known = ", ".join(_MEDIA[kind])
        raise field_invalid(f"{field}.{kind}.media_type", f"must be one of {known}")
    if not media.data:
        raise field_invalid(f"{field}.{kind}.data", "must not be empty")
    return Media(kind, media.media_type, media.data)


def opening_of(request: chat_pb.Open) -> Opening:
    """What a Chat begins with, checked."""
    session_id = session_id_of(request.session_id, "open.session_id")
    fork_session = session_id_of(request.fork.session_id, "open.fork.session_id")
    existing = bool(session_id) or request.continue_latest
    config = config_of(request.config, "open.config", existing=existing)
    if sum((bool(session_id), bool(fork_session), request.continue_latest)) > 1:
        raise field_invalid("open", "only one of session_id, fork and continue_latest can be set")
    if request.fork.turn_id and not fork_session:
        raise field_invalid("open.fork.session_id", "must be set where fork.turn_id is")
    after = request.after.seq if request.HasField("after") else None
    if after is not None and not existing:
        raise field_invalid("open.after", "needs an existing session")
    key = key_of(request.idempotency_key, "open.idempotency_key")
    if key and existing:
        raise field_invalid("open.idempotency_key", "names a new session, and this is none")
    return Opening(
        session_id=session_id,
        config=config,
        detail=detail_of(request.detail, "open.detail"),
        after=after,
        fork_session=fork_session,
        fork_turn=turn_id_of(request.fork.turn_id, "open.fork.turn_id"),
        latest=request.continue_latest,
        interrupt_when_lost=_interrupts(request.on_disconnect),
        takeover=request.takeover,
        key=key,
        key_hash=_hash_of(request.config, request.fork) if key else "",
    )


def ask_opening_of(request: chat_pb.AskRequest) -> Opening:
    """The session of an Ask, checked."""
    session_id = session_id_of(request.session_id, "session_id")
    return Opening(
        session_id=session_id,
        config=config_of(request.config, "config", existing=bool(session_id)),
        detail=detail_of(request.detail, "detail"),
    )


def _interrupts(value: int) -> bool:
    if value not in chat_pb.OnDisconnect.values():
        raise field_invalid("open.on_disconnect", f"{value} is no value of OnDisconnect")
    return value == chat_pb.ON_DISCONNECT_INTERRUPT


def _hash_of(config: config_pb.SessionConfig, fork: chat_pb.ForkFrom) -> str:
    digest = hashlib.sha256(b"session")
    for part in (config, fork):
        data = part.SerializeToString(deterministic=True)
        digest.update(f"{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()


def config_of(config: config_pb.SessionConfig, field: str, *, existing: bool) -> SessionConfig:
    """A checked configuration; it must be empty where an existing session is meant."""
    if existing and config.ByteSize():
        raise field_invalid(field, "must not be set for an existing session")
    if config.model and not _MODEL.fullmatch(config.model):
        raise field_invalid(f"{field}.model", "is not of the form of a model id")
    return SessionConfig(
        model=config.model or None,
        system_prompt=_prompt_of(config.system_prompt, f"{field}.system_prompt"),
        turn_timeout=_seconds(config.limits, "turn_timeout", f"{field}.limits", _TURN_TIMEOUT),
        stall_timeout=_seconds(config.limits, "stall_timeout", f"{field}.limits", _STALL_TIMEOUT),
        workspace=_workspace_of(config.workspace.name, f"{field}.workspace.name"),
    )


def _workspace_of(name: str, field: str) -> str:
    if name and not _WORKSPACE.fullmatch(name):
        raise field_invalid(field, "must be small letters, digits, `-` and `_`, at most 63")
    return name


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
