"""What a caller says in a running session, from the wire, checked."""

from __future__ import annotations

from warmline.v1 import chat_service_pb2 as pb

from warmline_service.chat import Allow, Change, Deny, ToolAnswer
from warmline_service.errors import field_invalid
from warmline_service.rpc._parse import ID, IMAGES
from warmline_service.rpc._parse_config import json_of, mode_of, model_of
from warmline_service.rpc._parse_credential import credential_of
from warmline_service.rpc._parse_mcp import servers_of
from warmline_service.sessions import Media

_WHY_BYTES = 8 * 1024
_ANSWERS, _IMAGES = 100, 20


def decision_of(decision: pb.ApprovalDecision, field: str, limit: int) -> tuple[str, Allow | Deny]:
    """The approval that is answered, and the answer; an input of at most `limit` bytes."""
    approval_id = _id_of(decision.approval_id, f"{field}.approval_id")
    kind = decision.WhichOneof("decision")
    if kind == "deny":
        if len(decision.deny.message.encode()) > _WHY_BYTES:
            raise field_invalid(f"{field}.deny.message", f"is longer than {_WHY_BYTES} bytes")
        return approval_id, Deny(decision.deny.message, decision.deny.interrupt)
    if kind != "allow":
        raise field_invalid(field, "is neither `allow` nor `deny`")
    allow = decision.allow
    if len(allow.answers) > _ANSWERS:
        raise field_invalid(f"{field}.allow.answers", f"has more than {_ANSWERS} entries")
    given = None
    if allow.HasField("updated_input"):
        given = json_of(allow.updated_input, limit, f"{field}.allow.updated_input")
    return approval_id, Allow(given, allow.remember, dict(allow.answers))


def tool_answer_of(result: pb.ClientToolResult, field: str) -> tuple[str, ToolAnswer]:
    """The call that is answered, and what it gave."""
    call_id = _id_of(result.call_id, f"{field}.call_id")
    if len(result.images) > _IMAGES:
        raise field_invalid(f"{field}.images", f"has more than {_IMAGES} entries")
    for index, image in enumerate(result.images):
        if image.media_type not in IMAGES:
            known = ", ".join(IMAGES)
            raise field_invalid(f"{field}.images[{index}].media_type", f"must be one of {known}")
        if not image.data:
            raise field_invalid(f"{field}.images[{index}].data", "must not be empty")
    images = tuple(Media("image", each.media_type, each.data) for each in result.images)
    return call_id, ToolAnswer(result.text, images, result.is_error)


def update_of(update: pb.Update, field: str) -> Change:
    """What a session is to have instead from now on."""
    if not update.ListFields():
        raise field_invalid(field, "says nothing")
    mode = mode_of(update.permission_mode, f"{field}.permission_mode")
    servers = None
    if update.HasField("mcp_servers"):
        servers = servers_of(update.mcp_servers.servers, f"{field}.mcp_servers.servers")
    credential = None
    if update.HasField("credential"):
        credential = credential_of(update.credential, f"{field}.credential")
    return Change(
        model_of(update.model, f"{field}.model"),
        mode if update.permission_mode else None,
        servers,
        credential,
    )


def _id_of(value: str, field: str) -> str:
    if not ID.fullmatch(value):
        raise field_invalid(field, "must be a UUID in lower case, as the service gave it")
    return value
