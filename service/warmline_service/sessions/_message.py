"""What a caller says to the model."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

# What observers are shown of a message.
_SHOWN = 16 * 1024
_TITLE = 80


@dataclass(frozen=True)
class Media:
    """A picture or a document: `kind` is `image` or `document`."""

    kind: str
    media_type: str
    data: bytes

    @property
    def block(self) -> Mapping[str, Any]:
        """As the model's API has it."""
        data = base64.b64encode(self.data).decode()
        source = {"type": "base64", "media_type": self.media_type, "data": data}
        return {"type": self.kind, "source": source}


@dataclass(frozen=True)
class ToolOutput:
    """What a tool gave back that the model had called before the session began; `block` as the API has it."""

    tool_call_id: str
    block: Mapping[str, Any] = field(repr=False)

    @property
    def data(self) -> bytes:
        """All of it."""
        return msgspec.json.encode(self.block)


@dataclass(frozen=True)
class UserMessage:
    """A checked message: its text, what follows the text, and its idempotency key, if it has one.

    `interpret`: the CLI acts on the text, as on what is typed to it.
    """

    text: str
    key: str = ""
    content: tuple[str | Media | ToolOutput, ...] = ()
    interpret: bool = False

    @property
    def size(self) -> int:
        """Bytes that it takes while it waits, about."""
        return len(self.text) + sum(
            len(each) if isinstance(each, str) else len(each.data) for each in self.content
        )

    @property
    def answered(self) -> frozenset[str]:
        """The calls of the session's history that it answers."""
        return frozenset(each.tool_call_id for each in self.content if isinstance(each, ToolOutput))

    @property
    def shown(self) -> str:
        """Its beginning, for those who did not say it."""
        return self.text[:_SHOWN]

    @property
    def title(self) -> str:
        """What a session is called that begins with it."""
        words = "".join(letter if letter.isprintable() else " " for letter in self.text[:1000])
        return " ".join(words.split())[:_TITLE]

    def content_hash(self) -> str:
        """Tells its content from any other; the key is no part of it."""
        digest = hashlib.sha256()
        for kind, data in self._pieces():
            digest.update(f"{kind}:{len(data)}:".encode())
            digest.update(data)
        return digest.hexdigest()

    def blocks(self) -> str | Sequence[Mapping[str, Any]]:
        """The content as the model's API takes it: plain text where there is nothing else."""
        if not self.content:
            return self.text
        blocks = [_block(each) for each in self.content]
        return [_block(self.text), *blocks] if self.text else blocks

    def _pieces(self) -> list[tuple[str, bytes]]:
        pieces = [("typed" if self.interpret else "text", self.text.encode())]
        for each in self.content:
            if isinstance(each, str):
                pieces.append(("text", each.encode()))
            elif isinstance(each, ToolOutput):
                pieces.append(("tool_result", each.data))
            else:
                pieces.append((f"{each.kind}/{each.media_type}", each.data))
        return pieces


def _block(content: str | Media | ToolOutput) -> Mapping[str, Any]:
    if isinstance(content, str):
        return {"type": "text", "text": content}
    return content.block
