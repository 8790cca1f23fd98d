"""What the shim's log says of faults."""

from collections.abc import Iterator

import pytest
import structlog
from warmline_http._serve import configure_logging


@pytest.fixture
def configured(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    """As `warmline http` logs; afterwards as before."""
    configure_logging()
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("configured")
def test_a_fault_is_logged_without_the_values_of_variables(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Callers' keys are among them."""
    key = "-".join(("wl", "secret"))
    try:
        _ = key[len(key)]
    except IndexError:
        structlog.get_logger("fault").exception("request failed")
    said = capsys.readouterr().err
    assert "IndexError" in said
    assert key not in said
