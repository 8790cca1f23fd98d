"""Messages of the contract filled from its descriptors: with what is wanted, or with what hurts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

M = TypeVar("M", bound=Message)
# In every text that only the model may read.
MARK = "zq9told"
_DEPTH = 9
# How many values a message has at most, roughly.
_SIZE = 200
_TOLD = ("description", "prompt", "replace", "append")
_STRUCT = "google.protobuf.Struct"
_TEXTS = (
    "", " ", "\x00", "\n", "a\nb", "a\r\n--bare", "\x1b[31m", "\x7f", "\x85", "\u2028", "\ufeff",
    "-", "--", "--dangerously-skip-permissions", "-p", "=", "../", "../../etc/passwd", "/etc/passwd",
    "~", "a/../b", ".", "..", "'", '"', "'; rm -rf / #", "$(id)", "`id`", "%s%n", "{}", "{0.__class__}",
    "\\", "\\u0000", "a,b", "a b", "é", "\U0001f600", "\u202eabc", "İ", "x" * 64, "x" * 600, "é" * 9000,
    "Bash(a\nb)", "Read(", "Bash()", "Read\x00", "opus\n", "lead\n", "null", "0", "-1", "NaN",
)  # fmt: skip
_NUMBERS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-9, 1e300, -1e300, 5e-324, 2.0**53, math.inf, -math.inf)
_INTEGERS = (0, 1, -1, 2, 7, 100, 1024, 10**6, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, 2**64 - 1)
_BOUNDS: Mapping[int, tuple[int, int]] = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}
_UUID = "01234567-89ab-cdef-0123-456789abcdef"
# By the field's name: what it accepts.
_WANTED: Mapping[str, tuple[Any, ...]] = {
    "model": ("", "", "", "opus", "haiku", "claude-opus-4[1m]", "eu.anthropic/x:1@2"),
    "fallback_models": ("haiku", "opus"),
    "agent": ("", "", "lead"),
    "names": ("Read", "Bash", "mcp__x__y"),
    "allowed": ("Read", "Bash(git log:*)", "mcp__a__*", "Bash(\u2028--x)"),
    "disallowed": ("WebFetch", "Bash(rm:*)"),
    "add_directories": ("shared", "a_b-c"),
    "categories": ("hooks", "api"),
    "exclusions": ("mcp",),
    "path": (".claude-plugin/plugin.json", ".claude-plugin/plugin.json", "a", "src/a.py"),
    "betas": ("context-1m-2025-08-07", "x"),
    "budget_tokens": (0, 1024, 200_000),
    "max_turns": (0, 1, 1000),
    "max_budget_usd": (0.0, -0.0, 0.0001, 1 / 3, 10_000.0),
    "session_id": ("", "", _UUID),
    "turn_id": ("", "", _UUID),
    "approval_id": (_UUID,),
    "call_id": (_UUID,),
    "idempotency_key": ("", "", "a-key"),
    "media_type": ("image/png", "application/pdf"),
    "data": (b"x", b"\x00\xff", b'{"name": "p"}'),
    "url": ("https://mcp.example/x?y=%20", "https://[2001:db8::1]:8443", "http://a.example"),
    "api_key": ("Bearer-sk-ant-api03-x",),
    "oauth_token": ("Bearer-sk-ant-oat01-x",),
    "command": ("npx", "/usr/bin/python3"),
    "arguments": ("-y", "--x=a b", "", "é\n"),
    "value": ("Bearer x-1", "a b"),
    "text": ("hello", "/clear", "@/etc/passwd", "a\u2028b\x00\n"),
}
_WORKSPACES, _TOOLS = ("", "shared", "a_b-c"), tuple(f"{MARK}_{number}" for number in range(6))
_PLUGINS = ("linter", "docs")
# Of a session's own settings what is taken; what hurts is any other object.
_SETTINGS: tuple[dict[str, Any], ...] = (
    {"language": "french", "includeCoAuthoredBy": False},
    {"permissions": {"ask": ["Bash(rm:*)"]}, "attribution": {"commit": MARK}},
    {"hooks": {"Stop": [{"hooks": [{"type": "command", "command": MARK}]}]}},
)
_KEYWORDS = ("properties", "$defs", "patternProperties", "dependentSchemas")
_PATTERNS = ("^a*$", "(", "a{99999999999}", "(" * 300 + ")" * 300, "\\d+", "(?P<a>x)(?P<a>y)")


def messages(kind: type[M], seed: str, count: int) -> Iterator[M]:
    """`count` messages, the same for the same seed; every other one is mostly what is wanted."""
    for number in range(count):
        rng = Random(f"{seed}.{number}")  # noqa: S311  # repeatable, not secret
        message = kind()
        _Filler(rng, rng.choice((0.0, 0.0, 0.02, 0.1, 0.5, 1.0))).fill(message, _DEPTH)
        yield message


def _owner(field: FieldDescriptor) -> str:
    return field.containing_type.full_name if field.containing_type is not None else ""


class _Filler:
    """Fills one message; `harm` is the share of what hurts."""

    def __init__(self, rng: Random, harm: float) -> None:
        self._rng = rng
        self._harm = harm
        self._left = _SIZE

    def fill(self, message: Any, depth: int) -> None:
        """Set some of the fields; of a `oneof` at most one stays set."""
        descriptor: Descriptor = message.DESCRIPTOR
        self._left -= 1
        if depth < 0 or self._left < 0:
            return
        if descriptor.full_name == _STRUCT and not self._hurts():
            message.update(self._schema(3))
        elif isinstance(message, Duration) and not self._hurts():
            message.seconds, message.nanos = self._rng.randint(1, 3599), self._nanos()
        else:
            chosen = {each.name: self._rng.choice(each.fields) for each in descriptor.oneofs}
            for field in descriptor.fields:
                choice = field.containing_oneof
                if choice is not None and chosen[choice.name].name != field.name:
                    continue
                if self._rng.random() < self._share(field):
                    self._set(message, field, depth)

    def _share(self, field: FieldDescriptor) -> float:
        """How often a field is set: of what must not be empty nearly always."""
        if field.containing_oneof is not None:
            return 0.9
        needed = field.name in (*_TOLD, *_WANTED, "name") and not field.is_repeated
        return 0.95 if needed else 0.3

    def _hurts(self) -> bool:
        return self._rng.random() < self._harm

    def _nanos(self) -> int:
        return self._rng.choice((0, 1, 999_999_999, -1, 2**31 - 1, self._rng.randrange(10**9)))

    def _set(self, message: Any, field: FieldDescriptor, depth: int) -> None:
        holder = getattr(message, field.name)
        if not field.is_repeated:
            self._set_one(message, holder, field, depth)
        elif (kind := field.message_type) is not None and kind.GetOptions().map_entry:
            self._set_map(holder, kind, depth)
        else:
            for _ in range(self._count()):
                if field.message_type is None:
                    holder.append(self._scalar(field))
                else:
                    self.fill(holder.add(), depth - 1)

    def _set_one(self, message: Any, holder: Any, field: FieldDescriptor, depth: int) -> None:
        if field.message_type is None:
            setattr(message, field.name, self._scalar(field))
        else:
            holder.SetInParent()
            if field.name == "settings" and not self._hurts():
                holder.update(self._rng.choice(_SETTINGS))
                return
            self.fill(holder, depth - 1)

    def _set_map(self, holder: Any, entry: Descriptor, depth: int) -> None:
        _, value = entry.fields
        for _ in range(self._count()):
            name = self._text() if self._hurts() else self._rng.choice(("lead", "helper", "type"))
            if value.message_type is None:
                holder[name] = self._scalar(value)
            else:
                self.fill(holder[name], depth - 1)

    def _count(self) -> int:
        if not self._hurts():
            return self._rng.randint(0, 2)
        self._left -= (count := self._rng.choice((0, 1, 2, 3, 150)))
        return count if self._left > 0 else 0

    def _scalar(self, field: FieldDescriptor) -> Any:
        if not self._hurts() and (wanted := self._wanted(field)) is not None:
            return wanted
        match field.cpp_type:
            case FieldDescriptor.CPPTYPE_STRING:
                text = self._text()
                if field.name in _TOLD or _owner(field).startswith("google.protobuf."):
                    text = f"{text}{MARK}" if text.strip() else text
                return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
            case FieldDescriptor.CPPTYPE_BOOL:
                return self._rng.random() < 0.5
            case FieldDescriptor.CPPTYPE_DOUBLE:
                return self._rng.choice((*_NUMBERS, math.nan))
        low, high = _BOUNDS[field.cpp_type]
        return min(high, max(low, self._rng.choice(_INTEGERS)))

    def _wanted(self, field: FieldDescriptor) -> Any:
        if field.enum_type is not None:
            return self._rng.choice([value.number for value in field.enum_type.values])
        if field.name == "name":
            names = {"warmline.v1.ClientTool": _TOOLS, "warmline.v1.Plugin": _PLUGINS}
            return self._rng.choice(names.get(_owner(field), _WORKSPACES))
        if field.name == "names" and _owner(field) == "warmline.v1.McpWait":
            return self._rng.choice(("lead", "helper"))
        if field.name in _TOLD:
            return f"{self._text()}{MARK}"
        return self._rng.choice(_WANTED[field.name]) if field.name in _WANTED else None

    def _text(self) -> str:
        if self._rng.random() < 0.8:
            return self._rng.choice(_TEXTS)
        if self._rng.random() < 0.05:
            return "y" * 300_000
        letters = (chr(self._rng.choice((self._rng.randrange(256), 0x4E2D))) for _ in range(9))
        return "".join(letters)

    def _schema(self, depth: int) -> dict[str, Any]:
        """A JSON schema, or nearly."""
        schema: dict[str, Any] = {"type": "object", "title": f"{self._text()}{MARK}"}
        if self._rng.random() < 0.3:
            schema["const"] = self._json(self._rng.choice((2, 5, 23, 30, 60)))
        if self._hurts():
            schema["pattern"] = self._rng.choice(_PATTERNS)
        if depth and self._rng.random() < 0.4:
            name = f"{self._rng.choice(('a', 'b', '../'))}{MARK}"
            schema[self._rng.choice(_KEYWORDS)] = {name: self._schema(depth - 1)}
        return schema

    def _json(self, depth: int) -> Any:
        """A chain of `depth` lists and objects, with a number or another value at its end."""
        ends: tuple[Callable[[], Any], ...] = (
            lambda: self._rng.choice(_NUMBERS[:-2]),
            lambda: self._rng.choice((None, True, MARK, [], {})),
        )
        value = self._rng.choice(ends)()
        for _ in range(depth):
            value = [value, None] if self._rng.random() < 0.5 else {f"{MARK}\x00": value}
        return value
