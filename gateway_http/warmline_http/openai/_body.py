"""The body of a request, as the API has it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

_Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class _Model(BaseModel):
    # What the API learns tomorrow must not break a caller today.
    model_config = ConfigDict(extra="allow", hide_input_in_errors=True)


class TextPart(_Model):
    """Text."""

    type: Literal["text"]
    text: str


class RefusalPart(_Model):
    """Why the model did not answer."""

    type: Literal["refusal"]
    refusal: str


class ImageUrl(_Model):
    """Where a picture is: only in the URL itself."""

    url: str


class ImagePart(_Model):
    """A picture."""

    type: Literal["image_url"]
    image_url: ImageUrl


class CalledFunction(_Model):
    """Which function the model called; `arguments` is a JSON object as text."""

    name: _Name
    arguments: str = ""


class ToolCall(_Model):
    """The model called a tool."""

    id: _Name
    type: Literal["function"] = "function"
    function: CalledFunction


class SystemTurn(_Model):
    """What the model is told before the conversation."""

    role: Literal["system", "developer"]
    content: str | list[TextPart]


class UserTurn(_Model):
    """What the user said."""

    role: Literal["user"]
    content: str | list[Annotated[TextPart | ImagePart, Field(discriminator="type")]]


class AssistantTurn(_Model):
    """What the model said."""

    role: Literal["assistant"]
    content: str | list[Annotated[TextPart | RefusalPart, Field(discriminator="type")]] | None = (
        None
    )
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None


class ToolTurn(_Model):
    """What a tool gave."""

    role: Literal["tool"]
    tool_call_id: _Name
    content: str | list[TextPart]


Turn = SystemTurn | UserTurn | AssistantTurn | ToolTurn


class Function(_Model):
    """A function of the caller's, which runs on the caller's side."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(_Model):
    """A tool; only functions."""

    type: Literal["function"]
    function: Function


class ToolChoice(_Model):
    """Which tools must be called."""

    type: str


class StreamOptions(_Model):
    """What a stream tells besides."""

    include_usage: bool | None = None


class JsonSchema(_Model):
    """The form of the answer."""

    schema_: Annotated[dict[str, Any], Field(alias="schema")]


class TextFormat(_Model):
    """Any text."""

    type: Literal["text"]


class ObjectFormat(_Model):
    """Some JSON object."""

    type: Literal["json_object"]


class SchemaFormat(_Model):
    """A JSON object of this form."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


class CompletionBody(_Model):
    """A request for an answer. More fields of the API are taken; a header names those without effect."""

    model: Annotated[str, StringConstraints(max_length=256)] = ""
    messages: Annotated[
        list[Annotated[Turn, Field(discriminator="role")]], Field(min_length=1, max_length=10_000)
    ]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    response_format: (
        Annotated[TextFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")] | None
    ) = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = (
        None
    )
    n: Literal[1] | None = None
    modalities: list[Literal["text"]] | None = None
    # The form that tools had before: taking no notice of it would answer without them.
    functions: None = None
    function_call: None = None
