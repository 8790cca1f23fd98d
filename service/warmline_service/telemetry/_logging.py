"""Structured logs to stderr, as JSON lines or for a terminal, without secrets."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import MutableMapping
from typing import Any

import structlog

from warmline_service.config import LogSettings

_MOST_LINES = 100
_SPAN = 10.0
# The forms of credential that could reach a log line by mistake.
_SECRET = re.compile(r"(sk-ant-[\w-]{4})[\w-]+|(wl_[a-z0-9]{4,32}_)[\w-]+|(?i:(bearer )\S+)")


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Cut every credential in a log event down to what identifies it."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = _SECRET.sub(
                lambda match: f"{match[1] or match[2] or match[3]}[redacted]", value
            )
    return event


class Calm:
    """Cuts a flood of one kind of line: so many in a span of time, then their number with the next one.

    Whoever may call the service, with a key or without, can make it write a line; not fill a disk.
    """

    def __init__(self, most: int = _MOST_LINES, span: float = _SPAN) -> None:
        self._most = most
        self._span = span
        # By what the line says, which is a constant of ours: when its span began, and the lines in it.
        self._seen: dict[str, tuple[float, int]] = {}

    def __call__(
        self, _: Any, __: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """The line, with `suppressed`, how many were cut before it; raises DropEvent for one to cut."""
        name, now = str(event.get("event")), time.monotonic()
        began, count = self._seen.get(name, (now, 0))
        if now >= began + self._span:
            if count > self._most:
                event["suppressed"] = count - self._most
            began, count = now, 0
        self._seen[name] = began, count + 1
        if count >= self._most:
            raise structlog.DropEvent
        return event


def configure_logging(settings: LogSettings) -> None:
    """Send structlog to stderr in the asked form and level."""
    console = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    # A plain traceback: a pretty one shows local variables, which may hold what callers said.
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer()
    )
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    structlog.configure(
        processors=[
            Calm(),
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
