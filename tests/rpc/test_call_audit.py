"""What calls leave in the audit log, as the interceptors tell it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from auditing import detail, log_of, rows_of
from stores import opened
from warmline.v1 import audit_service_pb2 as pb
from warmline_service.audit import AuditLog, Caller, set_caller
from warmline_service.errors import Reason, WarmlineError
from warmline_service.rpc._call_audit import CallAudit
from warmline_service.store import AuditRow, Store

METHOD = "/warmline.v1.ModelService/ListModels"
CREATE = "/warmline.v1.AdminService/CreateApiKey"


class Context:
    """A call's, as far as it is looked at."""

    def peer(self) -> str:
        """Where it comes from."""
        return "ipv4:192.0.2.7:1234"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store."""
    async with opened("", tmp_path) as store:
        yield store


@pytest.fixture
async def log(store: Store, tmp_path: Path) -> AsyncIterator[AuditLog]:
    """Its audit log."""
    async with log_of(store, tmp_path) as log:
        yield log


async def _kept(log: AuditLog, store: Store) -> list[AuditRow]:
    assert await log.written()
    return await rows_of(store)


@pytest.mark.parametrize(
    ("reason", "action"),
    [
        (Reason.KEY_INVALID, ["auth.failed"]),
        (Reason.KEY_EXPIRED, ["auth.failed"]),
        (Reason.POLICY_DENIED, ["policy.refused"]),
        (Reason.RATE_LIMITED, []),
        (Reason.STORAGE_UNAVAILABLE, []),
        (Reason.DRAINING, []),
    ],
)
async def test_who_is_turned_away_is_kept(
    log: AuditLog, store: Store, reason: Reason, action: list[str]
) -> None:
    """Where it is because of who it is, not because of how the service is."""
    CallAudit(log).turned_away(WarmlineError(reason, "No."), Context(), METHOD)
    rows = await _kept(log, store)
    assert [row.action for row in rows] == action
    for row in rows:
        assert (row.outcome, detail(row)["peer"]) == (reason.value, "192.0.2.7")
        assert detail(row)["method"] == METHOD


async def test_other_errors_are_not_policy(log: AuditLog, store: Store) -> None:
    """A call that fails for another reason is for the service's own log."""
    error = WarmlineError(Reason.SESSION_NOT_FOUND, "No.")
    CallAudit(log).refused(error, Context(), METHOD)
    assert await _kept(log, store) == []


async def test_an_operators_act_is_kept_before_it_is_answered(log: AuditLog, store: Store) -> None:
    """By whom, with the request and without its secrets."""
    set_caller(Caller("acme", "key1", "call1"))
    given: Any = pb.AuditFilter(tenant="acme", actor="sk-ant-api03-abcdefgh")
    await CallAudit(log).acted(given, CREATE)
    (row,) = await rows_of(store)
    assert (row.action, row.outcome) == ("admin.create_api_key", "ok")
    assert (row.tenant, row.actor, row.request_id) == ("acme", "key1", "call1")
    assert detail(row) == {"request": {"tenant": "acme", "actor": "[redacted]"}}


async def test_an_act_that_failed_is_kept_too(log: AuditLog, store: Store) -> None:
    """With the reason; also where the request could not be read."""
    await CallAudit(log).acted(object(), CREATE, "FIELD_INVALID")
    (row,) = await rows_of(store)
    assert (row.outcome, detail(row)) == ("FIELD_INVALID", {"request": {}})


async def test_what_others_call_is_no_operators_act(log: AuditLog, store: Store) -> None:
    """Nor is the second page of a list."""
    audit = CallAudit(log)
    await audit.acted(pb.ListAuditEventsRequest(), METHOD)
    more = pb.ListAuditEventsRequest(page_token="7")
    await audit.acted(more, "/warmline.v1.AuditService/ListAuditEvents")
    assert await _kept(log, store) == []
