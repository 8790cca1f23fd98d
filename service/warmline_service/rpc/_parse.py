"""From the wire to the domain: every field of a request is checked here, and named when it is bad."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection
from functools import partial

from warmline.v1 import chat_service_pb2 as chat_pb
from warmline.v1 import events_pb2 as events_pb
from warmline.v1 import session_config_pb2 as config_pb

from warmline_service.chat import Opening
from warmline_service.errors import field_invalid
from warmline_service.rpc._bounds import check_size
from warmline_service.rpc._parse_config import config_of
from warmline_service.rpc._parse_files import files_of
from warmline_service.rpc._parse_history import history_of, tool_result
from warmline_service.sessions import Media, ToolOutput, UserMessage
from warmline_service.sessions.events import Detail

ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KEY = re.compile(r"[!-~]{1,128}")
IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_MEDIA = {
    "image": IMAGES,
    "document": ("application/pdf",),
}
_CALL_ID = re.compile(r"[!-~]{1,256}")
_BLOCKS = 100
_NAMES = 4
_BRIEF_BYTES = 16 * 1024
_KINDS = frozenset(field.name for field in events_pb.Event.DESCRIPTOR.oneofs_by_name["kind"].fields)


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
    if value and not ID.fullmatch(value):
        raise field_invalid(field, "a session id is a UUID in lower case, as the service gave it")
    return value


def turn_id_of(value: str, field: str) -> str:
    """Empty, or a UUID in lower case."""
    if value and not ID.fullmatch(value):
        raise field_invalid(field, "a turn id is a UUID in lower case, as the service gave it")
    return value


def key_of(value: str, field: str) -> str:
    """Empty, or an idempotency key."""
    if value and not _KEY.fullmatch(value):
        raise field_invalid(field, "must be at most 128 characters of ASCII, without spaces")
    return value


def names_of(checkpoint: chat_pb.Checkpoint, field: str) -> frozenset[str]:
    """The names that a session is found by, at least one."""
    names = checkpoint.continuations
    if not 1 <= len(names) <= _NAMES:
        raise field_invalid(f"{field}.continuations", f"must be one to {_NAMES} names")
    for index, name in enumerate(names):
        if not key_of(name, f"{field}.continuations[{index}]"):
            raise field_invalid(f"{field}.continuations[{index}]", "must not be empty")
    return frozenset(names)


def kinds_of(values: Collection[str], field: str) -> frozenset[str]:
    """Names of kinds of event."""
    for index, value in enumerate(values):
        if value not in _KINDS:
            raise field_invalid(f"{field}[{index}]", "is no kind of event, such as `text_delta`")
    return frozenset(values)


def message_of(message: chat_pb.UserMessage, field: str, limit: int) -> UserMessage:
    """What to say: not empty, at most `limit` bytes."""
    check_size(message.ByteSize(), limit, field)
    if not message.text.strip() and not message.content:
        raise field_invalid(f"{field}.text", "must not be empty")
    if len(message.content) > _BLOCKS:
        raise field_invalid(f"{field}.content", f"has more than {_BLOCKS} parts")
    content = tuple(
        _block_of(block, f"{field}.content[{index}]") for index, block in enumerate(message.content)
    )
    if message.interpret and message.content:
        raise field_invalid(f"{field}.interpret", "must not be set where `content` is")
    _check_outputs(message, content, field)
    key = key_of(message.idempotency_key, f"{field}.idempotency_key")
    return UserMessage(message.text, key, content, message.interpret)


def _check_outputs(
    message: chat_pb.UserMessage, content: tuple[str | Media | ToolOutput, ...], field: str
) -> None:
    outputs = [index for index, each in enumerate(content) if isinstance(each, ToolOutput)]
    if outputs and message.text:
        raise field_invalid(f"{field}.text", "must be empty where tools' output is in `content`")
    if outputs != list(range(len(outputs))):
        raise field_invalid(f"{field}.content", "tools' output comes before anything else")


def _block_of(block: chat_pb.InputBlock, field: str) -> str | Media | ToolOutput:
    kind = block.WhichOneof("kind")
    if kind is None:
        raise field_invalid(field, "is empty, or of a kind this version does not know")
    if kind == "text":
        if not block.text.strip():
            raise field_invalid(f"{field}.text", "must not be empty")
        return block.text
    if kind == "tool_output":
        return _output_of(block.tool_output, f"{field}.tool_output")
    media = block.image if kind == "image" else block.document
    if media.media_type not in _MEDIA[kind]:
        known = ", ".join(_MEDIA[kind])
        raise field_invalid(f"{field}.{kind}.media_type", f"must be one of {known}")
    if not media.data:
        raise field_invalid(f"{field}.{kind}.data", "must not be empty")
    return Media(kind, media.media_type, media.data)


def _output_of(output: chat_pb.ToolOutput, field: str) -> ToolOutput:
    if not _CALL_ID.fullmatch(output.tool_call_id):
        raise field_invalid(f"{field}.tool_call_id", "must be the id of a tool call")
    for index, image in enumerate(output.images):
        if image.media_type not in IMAGES or not image.data:
            known = ", ".join(IMAGES)
            raise field_invalid(f"{field}.images[{index}]", f"must be one of {known}, with data")
    return ToolOutput(output.tool_call_id, tool_result(output))


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
    history = _history(request, existing=existing)
    continuation = key_of(request.continuation, "open.continuation")
    if continuation and (existing or fork_session):
        raise field_invalid("open.continuation", "finds a session, and one is meant already")
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
        files=files_of(request.config.workspace, "open.config.workspace", fork=bool(fork_session)),
        interrupt_when_lost=_interrupts(request.on_disconnect),
        takeover=request.takeover,
        key=key,
        key_hash=_hash_of(request.config, request.fork, *request.history) if key else "",
        history=history,
        continuation=continuation,
    )


def is_brief(request: chat_pb.Open | chat_pb.AskRequest) -> bool:
    """Whether it is checked in a moment: schemas are what takes long, and what is to be hashed."""
    config = request.config
    if isinstance(request, chat_pb.Open) and request.idempotency_key and request.history:
        return False
    has_schemas = bool(config.client_tools) or config.HasField("output_schema")
    return not has_schemas and config.ByteSize() < _BRIEF_BYTES


def _history(request: chat_pb.Open, *, existing: bool) -> Callable[[], tuple[bytes, ...]] | None:
    if not request.history:
        return None
    if existing or request.HasField("fork"):
        raise field_invalid("open.history", "only a new session begins with one")
    if request.config.workspace.files:
        raise field_invalid("open.history", "must be empty where `config.workspace.files` is not")
    tools = [tool.name for tool in request.config.client_tools]
    return partial(history_of, request.history, tools, "open.history")


def ask_opening_of(request: chat_pb.AskRequest) -> Opening:
    """The session of an Ask, checked."""
    session_id = session_id_of(request.session_id, "session_id")
    if request.config.client_tools:
        raise field_invalid("config.client_tools", "need a Chat: nobody could answer their calls")
    return Opening(
        session_id=session_id,
        config=config_of(request.config, "config", existing=bool(session_id)),
        detail=detail_of(request.detail, "detail"),
        files=files_of(request.config.workspace, "config.workspace", fork=False),
    )


def _interrupts(value: int) -> bool:
    if value not in chat_pb.OnDisconnect.values():
        raise field_invalid("open.on_disconnect", f"{value} is no value of OnDisconnect")
    return value == chat_pb.ON_DISCONNECT_INTERRUPT


def _hash_of(*parts: config_pb.SessionConfig | chat_pb.ForkFrom | chat_pb.HistoryMessage) -> str:
    digest = hashlib.sha256(b"session")
    for part in parts:
        data = part.SerializeToString(deterministic=True)
        digest.update(f"{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()
