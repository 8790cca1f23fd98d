"""What is around a process that runs what strangers wrote: namespaces, limits, a user of its own."""

from warmline_service.sandbox._box import Box, Owner, level_missing
from warmline_service.sandbox._door import DOOR_ENVIRONMENT, Door
from warmline_service.sandbox._find import find_sandbox, levels_of
from warmline_service.sandbox._init import Init
from warmline_service.sandbox._sandbox import Command, Sandbox, SandboxMissing
from warmline_service.sandbox._shares import Shares

__all__ = [
    "DOOR_ENVIRONMENT",
    "Box",
    "Command",
    "Door",
    "Init",
    "Owner",
    "Sandbox",
    "SandboxMissing",
    "Shares",
    "find_sandbox",
    "level_missing",
    "levels_of",
]
