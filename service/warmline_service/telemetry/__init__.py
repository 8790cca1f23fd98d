"""What the service says about itself: structured logs."""

from warmline_service.telemetry._logging import configure_logging

__all__ = ["configure_logging"]
