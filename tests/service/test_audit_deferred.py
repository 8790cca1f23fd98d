"""What the audit log says of approvals that outlive the process that asked; with the real CLI."""

from pathlib import Path
from typing import Any

import pytest
from auditing import detail, rows_of
from deferring import CALL, config_of, parks, rest
from parking import client_of, end_of_turn
from running import data_directory, service_in
from warmline.v1 import chat_service_pb2 as chat_pb
from warmline_service.server import Service
from warmline_service.store import AuditRow

pytestmark = pytest.mark.real_cli

ON: dict[str, Any] = {
    "pool": {"min_spares": 0, "max_spares": 0},
    "limits": {"approval_park": 0.2},
}
SCRIPT = f"{CALL}::say done"


async def _tools(service: Service, session_id: str) -> list[AuditRow]:
    assert service._audit is not None
    assert service._store is not None
    assert await service._audit.written()
    rows = await rows_of(service._store, session_id=session_id)
    return [row for row in rows if row.action.startswith("tool.")]


async def test_an_approval_after_its_process_is_kept_once(tmp_path: Path) -> None:
    """Its tool is run by another process, by the yes of whoever gave it."""
    with data_directory() as data:
        async with service_in(data, **ON) as service, client_of(service) as client:
            async with client.chat(config=config_of()) as chat:
                turn = await chat.send(SCRIPT)
                asked = await parks(turn)
                await chat.allow(asked.approval_id)
                events = await rest(turn)
                assert events[-1].turn_completed.result == "done"
                (row,) = await _tools(service, chat.session_id)
    assert (row.action, row.outcome, row.actor) == ("tool.allowed", "allowed", "nobody")
    assert detail(row)["input"] == {"command": "echo ran >> log"}


async def test_an_approval_after_its_service_is_kept_by_the_next(tmp_path: Path) -> None:
    """With the input that was asked about then."""
    with data_directory() as data:
        async with service_in(data, **ON) as service, client_of(service) as client:
            async with client.chat(config=config_of()) as chat:
                asked = await parks(await chat.send(SCRIPT))
                session_id = chat.session_id
        async with service_in(data, **ON) as service, client_of(service) as client:
            decision = chat_pb.ApprovalDecision(approval_id=asked.approval_id)
            decision.allow.SetInParent()
            await client.answer_approval(session_id, decision)
            assert (await end_of_turn(client, session_id)).result == "done"
            (row,) = await _tools(service, session_id)
    assert (row.action, row.outcome, row.actor) == ("tool.allowed", "allowed", "nobody")
    assert detail(row)["input"] == {"command": "echo ran >> log"}
