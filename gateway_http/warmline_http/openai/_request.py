"""The conversation that a request stands for."""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from warmline.v1 import session_config_pb2 as config_pb

from warmline_http._config import TOOL_TIMEOUT, add_tools, plain_config
from warmline_http._failure import Failure
from warmline_http._struct import fill
from warmline_http._talk import Block, Message, Talk, regular
from warmline_http.openai._body import (
    AssistantTurn,
    CompletionBody,
    ImagePart,
    SchemaFormat,
    SystemTurn,
    TextPart,
    ToolCall,
    ToolTurn,
    Turn,
)

# Told to the caller by a header: the CLI decides these.
IGNORED = (
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "parallel_tool_calls",
    "prediction",
    "service_tier",
    "verbosity",
    "web_search_options",
)
_IMAGE = re.compile(r"data:image/(png|jpe?g|gif|webp);base64,", re.IGNORECASE)
_EFFORTS = {
    "minimal": config_pb.EFFORT_LOW,
    "low": config_pb.EFFORT_LOW,
    "medium": config_pb.EFFORT_MEDIUM,
    "high": config_pb.EFFORT_HIGH,
    "xhigh": config_pb.EFFORT_XHIGH,
    "max": config_pb.EFFORT_MAX,
}
_arguments = msgspec.json.Decoder(dict[str, Any])


def talk_of(body: CompletionBody, key: str) -> Talk:
    """The conversation. Raises Failure."""
    if body.stream_options is not None and not body.stream:
        raise Failure.field("stream_options", "is for streams only")
    messages = regular(_messages(body.messages))
    if not messages or messages[-1].role != "user":
        raise Failure.field(
            "messages", "must end with what the user says, or what a tool gave, and not be empty"
        )
    if messages[0].role != "user":
        raise Failure.field("messages", "must begin with the user")
    return Talk(_config(body), messages, "completions", key=key or str(uuid.uuid4()))


def ignored_in(body: CompletionBody) -> str:
    """The fields that were given and have no effect."""
    given: Mapping[str, Any] = body.model_extra or {}
    ignored = [name for name in IGNORED if given.get(name) is not None]
    if body.tool_choice not in (None, "none", "auto"):
        ignored.append("tool_choice")
    return ", ".join(ignored)


def _config(body: CompletionBody) -> config_pb.SessionConfig:
    system = [_text(turn.content) for turn in body.messages if isinstance(turn, SystemTurn)]
    config = plain_config(body.model, "\n\n".join(system), bare=True)
    if body.tool_choice != "none":
        functions = [each.function for each in body.tools or ()]
        add_tools(
            config,
            [
                (each.name, each.description or "", {"type": "object"} | (each.parameters or {}))
                for each in functions
            ],
            TOOL_TIMEOUT,
            "function.parameters",
        )
    if body.reasoning_effort == "none":
        config.reasoning.budget_tokens = 0
    elif body.reasoning_effort is not None:
        config.reasoning.effort = _EFFORTS[body.reasoning_effort]
    _set_form(config, body)
    return config


def _set_form(config: config_pb.SessionConfig, body: CompletionBody) -> None:
    form = body.response_format
    if isinstance(form, SchemaFormat):
        fill(config.output_schema, form.json_schema.schema_, "response_format.json_schema.schema")
    elif form is not None and form.type == "json_object":
        config.output_schema.update({"type": "object", "additionalProperties": True})


def _messages(turns: Iterable[Turn]) -> Iterable[Message]:
    for index, turn in enumerate(turns):
        match turn:
            case SystemTurn():
                continue
            case ToolTurn():
                said: Sequence[Block] = [_result(turn)]
            case AssistantTurn():
                said = _said(turn, f"messages[{index}]")
            case _ if isinstance(turn.content, str):
                said = [{"type": "text", "text": turn.content}]
            case _:
                parts = enumerate(turn.content)
                said = [_part(part, f"messages[{index}].content[{at}]") for at, part in parts]
        role = "assistant" if isinstance(turn, AssistantTurn) else "user"
        yield Message(role, tuple(said))


def _result(turn: ToolTurn) -> Block:
    return {
        "type": "tool_result",
        "tool_use_id": turn.tool_call_id,
        "content": _text(turn.content),
    }


def _said(turn: AssistantTurn, field: str) -> Sequence[Block]:
    texts = [turn.content] if isinstance(turn.content, str) else []
    if isinstance(turn.content, list):
        texts = [each.text if each.type == "text" else each.refusal for each in turn.content]
    if turn.refusal:
        texts.append(turn.refusal)
    calls = enumerate(turn.tool_calls or ())
    return [
        *({"type": "text", "text": text} for text in texts),
        *(_call(call, f"{field}.tool_calls[{at}].function.arguments") for at, call in calls),
    ]


def _call(call: ToolCall, field: str) -> Block:
    try:
        given = _arguments.decode(call.function.arguments or "{}")
    except (msgspec.DecodeError, RecursionError) as error:
        raise Failure.field(field, f"is no JSON object: {error}"[:200]) from None
    return {"type": "tool_use", "id": call.id, "name": call.function.name, "input": given}


def _part(part: TextPart | ImagePart, field: str) -> Block:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    url = part.image_url.url
    known = _IMAGE.match(url)
    if known is None:
        raise Failure.field(
            f"{field}.image_url.url",
            "must be a data: URL of a PNG, JPEG, GIF or WebP in base64; nothing is fetched",
        )
    data = url[known.end() :]
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise Failure.field(f"{field}.image_url.url", "is not base64") from None
    kind = known[1].lower().replace("jpg", "jpeg")
    return {"type": "image", "source": {"media_type": f"image/{kind}", "data": data}}


def _text(content: str | Sequence[TextPart]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(each.text for each in content)
