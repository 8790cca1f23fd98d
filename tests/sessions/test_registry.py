"""Sessions belong to one tenant and are bounded."""

import pytest
from warmline_service.errors import Reason, WarmlineError
from warmline_service.sessions import Session, SessionConfig, Sessions
from warmline_service.worker import SystemPrompt


def registry(limit: int = 2) -> tuple[Sessions, list[Session]]:
    forgotten: list[Session] = []
    return Sessions(limit, 10_000, forgotten.append), forgotten


def test_another_tenants_session_looks_like_none() -> None:
    """The same error, word for word."""
    sessions, _ = registry()
    session = sessions.create("a", SessionConfig())
    assert sessions.get("a", session.id) is session
    errors = []
    for tenant, identifier in (("b", session.id), ("a", "unknown")):
        with pytest.raises(WarmlineError) as caught:
            sessions.get(tenant, identifier)
        errors.append((caught.value.reason, caught.value.message))
    assert errors[0] == errors[1]
    assert errors[0][0] is Reason.SESSION_NOT_FOUND


def test_the_longest_unused_session_makes_room() -> None:
    """A tenant's new session takes the place of its least recently used idle one."""
    sessions, forgotten = registry()
    first, second = (sessions.create("a", SessionConfig()) for _ in range(2))
    sessions.get("a", first.id)
    sessions.create("a", SessionConfig())
    assert forgotten == [second]


def test_prompts_are_weighed() -> None:
    """Sessions with long prompts make room sooner."""
    sessions, forgotten = registry(100)
    config = SessionConfig(system_prompt=SystemPrompt("replace", "x" * 4000))
    made = [sessions.create("a", config) for _ in range(5)]
    assert forgotten == made[:3]


def test_sessions_in_use_are_kept() -> None:
    """When none is idle the new one is refused, and other tenants are not concerned."""
    sessions, forgotten = registry(1)
    sessions.create("a", SessionConfig()).busy = 1
    with pytest.raises(WarmlineError) as caught:
        sessions.create("a", SessionConfig())
    assert caught.value.reason is Reason.QUOTA_EXCEEDED
    sessions.create("b", SessionConfig())
    assert forgotten == []
