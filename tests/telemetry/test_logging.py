"""What the service writes about itself: no secret, and no flood."""

import pytest
import structlog
from warmline_service.telemetry._logging import Calm, redact


def lines(calm: Calm, event: str, count: int) -> list[dict[str, object]]:
    """What is left of so many lines."""
    left: list[dict[str, object]] = []
    for number in range(count):
        try:
            left.append(dict(calm(None, "info", {"event": event, "number": number})))
        except structlog.DropEvent:
            continue
    return left


def test_a_flood_of_lines_is_cut_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what they say; the first one of the next span says how many are missing."""
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    calm = Calm(most=3, span=10.0)
    assert [line["number"] for line in lines(calm, "call refused", 8)] == [0, 1, 2]
    assert len(lines(calm, "another", 2)) == 2
    now = 109.9
    assert lines(calm, "call refused", 1) == []
    now = 110.0
    first, second = lines(calm, "call refused", 2)
    assert first == {"event": "call refused", "number": 0, "suppressed": 6}
    assert "suppressed" not in second
    now = 200.0
    assert "suppressed" not in lines(calm, "call refused", 1)[0]


@pytest.mark.parametrize(
    "text",
    ["sk-ant-api03-SECRETSECRET", "wl_abcd1234_SECRETSECRET", "authorization: Bearer SECRETSECRET"],
)
def test_a_credential_is_cut_to_what_names_it(text: str) -> None:
    """In any field of a line."""
    assert "SECRET" not in str(redact(None, "info", {"event": "x", "detail": f"got {text} here"}))
