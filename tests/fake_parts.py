"""Parts of the fake CLI: how it speaks, its transcript, and how it asks its model."""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


MODELS = [
    ("default", "claude-opus-5-5", "Default"),
    ("opus", "claude-opus-5-5", "Opus"),
    ("haiku", "claude-haiku-5-5", "Haiku"),
]


def text_of(content: str | list[dict[str, Any]]) -> str:
    """The text of a message's content."""
    if isinstance(content, str):
        return content
    return "\n".join(block["text"] for block in content if block.get("type") == "text")


class FakeTranscript:
    """A conversation: what was resumed and what was added, told of as the CLI does."""

    def __init__(self, argv: list[str], emit: Callable[[dict[str, Any]], None]) -> None:
        self.session = str(uuid.uuid4())
        self.messages: list[dict[str, Any]] = []
        self._mirrored = "--session-mirror" in argv
        self._emit = emit
        self._untold: list[dict[str, Any]] = []
        self._last: str | None = None
        # The call that the transcript ends with, where it is to go on from there.
        self.pending: dict[str, Any] = {}
        for arg in argv:
            if arg.startswith("--resume="):
                self._resume(arg[9:])

    @property
    def history(self) -> list[str]:
        """What the user said."""
        return [text_of(each["content"]) for each in self.messages if each["role"] == "user"]

    def add(self, message: dict[str, Any], name: str | None = None) -> None:
        """Another message; `name` is its uuid."""
        self.messages.append({"role": message["role"], "content": message["content"]})
        entry = {"parentUuid": self._last, "isSidechain": False, "type": message["role"]}
        entry |= {"message": message, "uuid": name or str(uuid.uuid4()), "sessionId": self.session}
        self._last = entry["uuid"]
        self._untold.append(entry)

    def tell(self) -> None:
        """Tell of what was added."""
        if self._mirrored and self._untold:
            path = f"/fake/projects/-fake/{self.session}.jsonl"
            frame = {"type": "transcript_mirror", "filePath": path, "entries": self._untold}
            self._emit(frame)
        self._untold = []

    def clear(self) -> None:
        """Forget everything."""
        self.session = str(uuid.uuid4())
        self.messages.clear()
        self._last = None

    def _resume(self, path: str) -> None:
        try:
            with open(path, encoding="utf-8") as file:  # noqa: PTH123  # as in main
                entries = [json.loads(line) for line in file]
        except OSError:
            os.write(2, b"No conversation found with session ID\n")
            os._exit(1)
        self.session = path.rsplit("/", 1)[-1].removesuffix(".jsonl")
        for entry in entries:
            self._last = entry.get("uuid", self._last)
            attached = entry.get("attachment", {})
            if attached.get("type") == "hook_deferred_tool":
                self.pending = attached
            if entry["type"] in ("user", "assistant"):
                message = entry["message"]
                self.messages.append({"role": message["role"], "content": message["content"]})


class Speaker:
    """Writes lines of the protocol, which belong to a conversation and come from a model."""

    def __init__(self, argv: list[str]) -> None:
        self.lock = threading.Lock()
        self.model = next((a[8:] for a in argv if a.startswith("--model=")), "default")
        self.transcript = FakeTranscript(argv, self.emit)

    def emit(self, *messages: dict[str, Any]) -> None:
        """Write lines, whole."""
        data = "".join(json.dumps(each, separators=(",", ":")) + "\n" for each in messages)
        self.write(data.encode())

    def write(self, data: bytes) -> None:
        """Write bytes."""
        with self.lock:
            view = memoryview(data)
            while view:
                view = view[os.write(1, view) :]

    def resolved(self) -> str:
        """The id of the model."""
        return {short: long for short, long, _ in MODELS}.get(self.model, self.model)

    def tagged(self, kind: str, **fields: object) -> dict[str, Any]:
        """A line that belongs to the session."""
        return {
            "type": kind,
            "session_id": self.transcript.session,
            "uuid": str(uuid.uuid4()),
            **fields,
        }

    def event(self, kind: str, **fields: object) -> dict[str, Any]:
        """An event of the model's stream."""
        event = {"type": kind, **fields}
        return self.tagged("stream_event", event=event, parent_tool_use_id=None)

    def delta(self, text: str) -> dict[str, Any]:
        """A piece of text."""
        return self.event(
            "content_block_delta", index=0, delta={"type": "text_delta", "text": text}
        )


def post(path: str, asked: dict[str, Any]) -> str:
    """Ask the model at a socket; its answer is read and not used. Gives why there is none."""
    body = json.dumps(asked).encode()
    head = (
        "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        "Content-Type: application/json\r\nx-api-key: placeholder\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            sock.sendall(head.encode() + body)
            with sock.makefile("rb") as answer:
                status = answer.readline().split()[1:2]
                while answer.read(65536):
                    pass
    except OSError as error:
        return f"Connection error: {error}"
    if status == [b"200"]:
        return ""
    return b"".join(status).decode() or "Connection closed"
