"""A model that needs no network: deterministic answers in the Messages API's wire format."""

from warmline_service.egress.loopback._model import (
    LoopbackBehaviour,
    LoopbackModel,
    RequestRecord,
    answer_warm_up,
)
from warmline_service.egress.loopback._script import ScriptError, parse
from warmline_service.egress.loopback._serve import serve_loopback

__all__ = [
    "LoopbackBehaviour",
    "LoopbackModel",
    "RequestRecord",
    "ScriptError",
    "answer_warm_up",
    "parse",
    "serve_loopback",
]
