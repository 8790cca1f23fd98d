"""The body of a request, and the conversation that it stands for."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, model_validator
from warmline.v1 import session_config_pb2 as config_pb

from warmline_http._config import TOOL_TIMEOUT, add_tools, plain_config, remote_servers
from warmline_http._failure import Failure
from warmline_http._talk import Message, Talk, regular

_Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
# Told to the caller by a header: the CLI decides these.
IGNORED = ("temperature", "top_p", "top_k", "stop_sequences", "tool_choice", "service_tier")
# Fields of a body that Anthropic's API does not know, with a secret in two of them.
NOT_THE_APIS = {"oauth_credentials", "mcp_servers", "session_id", "agents", "agent_type"}
_SETS_UP = ("model", "system", "tools", "thinking", "agents", "agent_type", "mcp_servers")

# Kinds of conversation: none goes on with one of another.
PLAIN, KEPT = "messages", "keepalive"


class _Model(BaseModel):
    # What the API learns tomorrow must not break a caller today.
    model_config = ConfigDict(extra="allow", hide_input_in_errors=True)


class Base64Source(_Model):
    """Bytes in the request itself."""

    type: Literal["base64"]
    media_type: Annotated[str, StringConstraints(max_length=64)]
    data: str


class TextBlock(_Model):
    """Text."""

    type: Literal["text"]
    text: str


class ImageBlock(_Model):
    """A picture; only as bytes in the request."""

    type: Literal["image"]
    source: Base64Source


class DocumentBlock(_Model):
    """A document; only as bytes in the request."""

    type: Literal["document"]
    source: Base64Source


class ToolUseBlock(_Model):
    """The model called a tool."""

    type: Literal["tool_use"]
    id: _Name
    name: _Name
    input: dict[str, Any] = {}


class ToolResultBlock(_Model):
    """What a tool gave."""

    type: Literal["tool_result"]
    tool_use_id: _Name
    content: str | list[Annotated[TextBlock | ImageBlock, Field(discriminator="type")]] = ""
    is_error: bool = False


class ThinkingBlock(_Model):
    """What the model thought."""

    type: Literal["thinking"]
    thinking: str
    signature: str = ""


UserBlock = Annotated[
    TextBlock | ImageBlock | DocumentBlock | ToolResultBlock, Field(discriminator="type")
]
AssistantBlock = Annotated[TextBlock | ToolUseBlock | ThinkingBlock, Field(discriminator="type")]


class UserTurn(_Model):
    """What the user said."""

    role: Literal["user"]
    content: str | list[UserBlock]


class AssistantTurn(_Model):
    """What the model said."""

    role: Literal["assistant"]
    content: str | list[AssistantBlock]


Turns = Annotated[
    list[Annotated[UserTurn | AssistantTurn, Field(discriminator="role")]],
    Field(min_length=1, max_length=10_000),
]


class Tool(_Model):
    """A tool of the caller's, which runs on the caller's side."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str = ""
    input_schema: dict[str, Any] = {"type": "object"}
    type: Literal["custom"] | None = None


class Thinking(_Model):
    """How much the model may think."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, Field(ge=1024, le=1_000_000)] | None = None


class McpServerBody(_Model):
    """An MCP server that the service connects to."""

    url: Annotated[str, StringConstraints(max_length=2048)]
    transport: Literal["http", "sse"] = "http"
    auth_type: Literal["none", "bearer"] | None = None
    auth_token: SecretStr | None = None

    @model_validator(mode="after")
    def _token_fits(self) -> Self:
        if self.auth_type == "bearer" and self.auth_token is None:
            raise ValueError("`auth_type` bearer needs an `auth_token`")
        if self.auth_type == "none" and self.auth_token is not None:
            raise ValueError("`auth_type` none has no `auth_token`")
        return self


class AgentBody(_Model):
    """An agent that may be called, or lead."""

    description: Annotated[str, StringConstraints(min_length=1)]
    prompt: Annotated[str, StringConstraints(min_length=1)]
    tools: list[_Name] | None = None
    model: Annotated[str, StringConstraints(max_length=256)] = ""


class MetadataBody(_Model):
    """Whom the caller asks for."""

    user_id: Annotated[str, StringConstraints(max_length=256)] | None = None


class OAuthCredentials(_Model):
    """The caller's own model credential; used for this conversation, and never stored."""

    access_token: SecretStr
    refresh_token: SecretStr | None = None
    expires_at: int | str | None = None
    scopes: list[str] | str | None = None
    subscription_type: str | None = None


class CountBody(_Model):
    """What tokens are counted of."""

    model: Annotated[str, StringConstraints(max_length=256)] = ""
    messages: Turns
    system: str | list[TextBlock] = ""
    tools: Annotated[list[Tool], Field(max_length=128)] = []


class MessagesBody(CountBody):
    """A request for an answer. More fields of the API are taken and have no effect here; see `IGNORED`."""

    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stream: bool = False
    thinking: Thinking | None = None
    metadata: MetadataBody | None = None
    agents: Annotated[dict[_Name, AgentBody], Field(max_length=64)] = {}
    agent_type: Annotated[str, StringConstraints(max_length=128)] = ""
    mcp_servers: dict[str, McpServerBody] = {}
    oauth_credentials: OAuthCredentials | None = None
    session_id: Annotated[str, StringConstraints(pattern=r"^$|^[0-9a-f-]{36}$")] = ""


def talk_of(body: MessagesBody, key: str, *, kind: str = PLAIN) -> Talk:
    """The conversation; of the kind KEPT with the CLI's own tools and notes. Raises Failure."""
    messages = regular(_message(turn) for turn in body.messages)
    if not messages or messages[-1].role != "user":
        raise Failure.field(
            "messages", "must end with what the user says; an answer cannot be begun"
        )
    if messages[0].role != "user":
        raise Failure.field("messages", "must begin with the user")
    config = config_of(body, bare=kind == PLAIN)
    return Talk(
        config,
        messages,
        kind,
        _credential(body),
        _whose(body),
        body.session_id,
        key or str(uuid.uuid4()),
        stays=kind == KEPT,
    )


def config_of(body: MessagesBody, *, bare: bool) -> config_pb.SessionConfig:
    """How the session of a request is set up; `bare`: a plain completion, unless an agent leads."""
    led = bool(body.agents or body.agent_type)
    config = plain_config(body.model, _text(body.system), bare=bare and not led)
    for name, agent in body.agents.items():
        told = config.agents[name]
        told.description, told.prompt, told.model = agent.description, agent.prompt, agent.model
        if agent.tools is not None:
            told.tools.names.extend(agent.tools)
            told.tools.SetInParent()
    config.agent = body.agent_type
    add_tools(
        config,
        [(each.name, each.description, each.input_schema) for each in body.tools],
        TOOL_TIMEOUT,
    )
    if body.thinking is not None and body.thinking.type != "adaptive":
        off = body.thinking.type == "disabled"
        config.reasoning.budget_tokens = 0 if off else body.thinking.budget_tokens or 1024
    servers = {
        name: (each.url, each.transport, _secret(each.auth_token))
        for name, each in body.mcp_servers.items()
    }
    remote_servers(config, servers)
    return config


def ignored_in(body: MessagesBody) -> str:
    """The fields that were given and have no effect."""
    given: Mapping[str, Any] = body.model_extra or {}
    ignored = [name for name in IGNORED if given.get(name) is not None]
    if body.max_tokens is not None:
        ignored.append("max_tokens")
    if body.session_id:
        # It was set up before.
        ignored += [name for name in _SETS_UP if name in body.model_fields_set]
    return ", ".join(ignored)


def _whose(body: MessagesBody) -> str:
    """Who of the caller's users it is for, as far as the request says it; a token may be renewed."""
    if body.metadata is not None and body.metadata.user_id:
        return f"user {body.metadata.user_id}"
    credential = body.oauth_credentials
    return "" if credential is None else f"token {credential.access_token.get_secret_value()}"


def _credential(body: MessagesBody) -> config_pb.Credential | None:
    if body.oauth_credentials is None:
        return None
    token = body.oauth_credentials.access_token.get_secret_value()
    return config_pb.Credential(oauth_token=token)


def _secret(value: SecretStr | None) -> str:
    return value.get_secret_value() if value is not None else ""


def _message(turn: UserTurn | AssistantTurn) -> Message:
    if isinstance(turn.content, str):
        return Message(turn.role, ({"type": "text", "text": turn.content},))
    return Message(turn.role, tuple(_block(each) for each in turn.content))


def _block(block: Any) -> Mapping[str, Any]:
    # Without what only says how to cache or cite: it is no part of what was said.
    kept = block.model_dump(exclude_none=True)
    known = {name: kept[name] for name in type(block).model_fields if name in kept}
    if isinstance(known.get("content"), list):
        known["content"] = [_block(each) for each in block.content]
    if "source" in known:
        source = block.source
        known["source"] = {"media_type": source.media_type, "data": source.data}
    return known


def _text(system: str | list[TextBlock]) -> str:
    if isinstance(system, str):
        return system
    return "\n\n".join(each.text for each in system)
