"""What the shim's log says of faults."""

import io
import sys

import pytest
import structlog
from warmline_http._serve import configure_logging


def test_a_fault_is_logged_without_the_values_of_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers' keys are among them."""
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    key = "-".join(("wl", "secret"))
    configure_logging()
    try:
        _ = key[len(key)]
    except IndexError:
        structlog.get_logger("fault").exception("request failed")
    finally:
        structlog.reset_defaults()
    assert "IndexError" in said.getvalue()
    assert key not in said.getvalue()
