"""Conversations that outlive a stream: who owns them, how they are set up, how far they have come."""

from warmline_service.sessions._config import SessionConfig
from warmline_service.sessions._registry import Session, Sessions

__all__ = ["Session", "SessionConfig", "Sessions"]
