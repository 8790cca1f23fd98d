"""One CLI process from spawn to reap: launch, framing, control protocol, messages, stop ladder."""

from warmline_service.worker._key import (
    Binding,
    Capabilities,
    ModelInfo,
    SpawnKey,
    SystemPrompt,
)
from warmline_service.worker._slot import Endpoint, OpenEndpoint, Slot
from warmline_service.worker._state import LEGAL_MOVES, IllegalMove, Life, ProcessState

__all__ = [
    "LEGAL_MOVES",
    "Binding",
    "Capabilities",
    "Endpoint",
    "IllegalMove",
    "Life",
    "ModelInfo",
    "OpenEndpoint",
    "ProcessState",
    "Slot",
    "SpawnKey",
    "SystemPrompt",
]
