"""Calls of callers who are let in no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from warmline_service.errors import Reason, WarmlineError
from warmline_service.rpc._open_calls import OpenCall, OpenCalls
from warmline_service.tenants import Principal

pytestmark = pytest.mark.virtual_time


class Street:
    """Open calls, and what each caller would be told now."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.calls = OpenCalls(self.changed)
        self.told: dict[str, Exception] = {}
        self.asked: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    def principal(self, tenant: str) -> Principal:
        """Somebody who is looked at."""

        async def still() -> None:
            self.asked.append(tenant)
            if tenant in self.told:
                raise self.told[tenant]

        return Principal(tenant, "key abcd", frozenset(), still=still)

    async def call(self, principal: Principal | None) -> OpenCall:
        """One that lasts until it is ended."""
        begun: asyncio.Future[OpenCall] = asyncio.get_running_loop().create_future()

        async def serve() -> None:
            with self.calls.one_more(principal) as call:
                begun.set_result(call)
                await asyncio.Event().wait()

        task = asyncio.create_task(serve())
        self.tasks.append(task)
        call = await begun
        assert call.task is task
        return call


@pytest.fixture
async def street() -> AsyncIterator[Street]:
    """One that is being looked at; no call is left of it."""
    made = Street()
    made.calls.start()
    yield made
    await made.calls.aclose()
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)


def refused(reason: Reason) -> WarmlineError:
    return WarmlineError(reason, "No.")


@pytest.mark.parametrize("reason", [Reason.KEY_INVALID, Reason.KEY_EXPIRED, Reason.TENANT_DISABLED])
async def test_all_calls_of_one_who_is_shut_out_end(street: Street, reason: Reason) -> None:
    """And no other's; he is asked about once, however many he has."""
    bad, good = street.principal("bad"), street.principal("good")
    calls = [await street.call(bad), await street.call(street.principal("bad"))]
    other = await street.call(good)
    street.told["bad"] = refused(reason)
    await asyncio.sleep(5.1)
    assert [call.task.cancelled() for call in (*calls, other)] == [True, True, False]
    assert calls[0].ended is calls[1].ended is street.told["bad"]
    assert sorted(street.asked) == ["bad", "good"]


async def test_a_change_is_seen_at_once(street: Street) -> None:
    """Without waiting for the next look."""
    call = await street.call(street.principal("bad"))
    street.told["bad"] = refused(Reason.KEY_INVALID)
    street.changed.set()
    await asyncio.sleep(0.01)
    assert call.task.cancelled()


@pytest.mark.parametrize(
    "error", [refused(Reason.STORAGE_UNAVAILABLE), RuntimeError("a fault")], ids=["store", "fault"]
)
async def test_what_cannot_be_said_ends_nothing(street: Street, error: Exception) -> None:
    """The next look may do better."""
    call = await street.call(street.principal("unclear"))
    other = await street.call(street.principal("bad"))
    street.told |= {"unclear": error, "bad": refused(Reason.KEY_INVALID)}
    await asyncio.sleep(5.1)
    assert not call.task.done()
    assert other.task.cancelled()
    street.told["unclear"] = refused(Reason.KEY_INVALID)
    await asyncio.sleep(5.1)
    assert call.task.cancelled()


async def test_nobody_in_particular_is_never_looked_at(street: Street) -> None:
    """Calls that are open to all, and callers whose standing cannot change; what has ended is forgotten."""
    street.told["gone"] = refused(Reason.KEY_INVALID)
    calls = [await street.call(None), await street.call(Principal("dev", "nobody", frozenset()))]
    with street.calls.one_more(street.principal("gone")):
        pass
    await asyncio.sleep(60)
    assert not any(call.task.done() for call in calls)
    assert street.asked == []
