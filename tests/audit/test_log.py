"""Recording neither waits nor fails, and nothing is missing without a word."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from auditing import CHAIN, detail, fill, log_of, rows_of, verdict_of
from stores import forbid_writing, opened
from warmline_service.audit import AuditLog, head_file, verify
from warmline_service.audit._tally import Tally, network_of
from warmline_service.config import AuditSettings
from warmline_service.errors import Reason, WarmlineError
from warmline_service.store import AuditRow, AuditStore, Store

DAY = 24 * 3600.0


async def test_what_is_recorded_together_is_stored_together(store: Store, tmp_path: Path) -> None:
    """In order, with every field, and in few transactions."""
    async with log_of(store, tmp_path) as log:
        log.record(
            "test.done",
            outcome="KEY_INVALID",
            tenant="acme",
            actor="key1",
            session_id="s",
            turn_id="t",
            request_id="r",
            detail={"n": 1},
        )
        for _ in range(500):
            log.record("test.more")
        assert await log.written()
        first, *rest = await rows_of(store)
    assert AuditRow(
        1, first.time, "acme", "key1", "test.done", "s", "t", "r", "KEY_INVALID", '{"n":1}',
        "0" * 64, first.hash,
    ) == first  # fmt: skip
    assert [row.action for row in rest] == ["test.more"] * 500
    assert (await verdict_of(store, tmp_path)).broken is None


async def test_what_fits_no_column_is_cut(store: Store, tmp_path: Path) -> None:
    """Whatever a caller's texts are, they neither fail nor break a line."""
    hostile = "\0\n\ud800\u202e" + "x" * 1000
    async with log_of(store, tmp_path) as log:
        log.record("a" * 99, outcome=hostile, tenant=hostile, actor=hostile, session_id=hostile)
        assert await log.written()
        (row,) = await rows_of(store)
    assert row.tenant == "????" + "x" * 60
    assert len(row.actor) == 128
    assert (await verdict_of(store, tmp_path)).broken is None


async def test_two_services_on_one_database_make_one_chain(
    postgres_url: str, tmp_path: Path
) -> None:
    """Both append at once, and remove at once; numbers have no gap."""
    one, two = tmp_path / "one", tmp_path / "two"
    for root in (one, two):
        root.mkdir()
    async with opened(postgres_url, one) as first, opened(postgres_url, two) as second:

        async def append(store: Store, root: Path) -> None:
            async with log_of(store, root) as log:
                for number in range(500):
                    log.record("test.done", tenant=root.name, detail={"number": number})
                    if number % 50 == 0:
                        await log.written()

        await asyncio.gather(append(first, one), append(second, two))
        rows = await rows_of(first)
        assert [row.seq for row in rows] == list(range(1, 1001))
        for root in (one, two):
            told = [detail(row)["number"] for row in rows if row.tenant == root.name]
            assert told == list(range(500))
            assert (await verdict_of(second, root)).broken is None
        mixed = [row.tenant for row in rows]
        assert mixed != sorted(mixed)


async def test_an_outage_is_waited_out_and_what_was_lost_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fits is kept in memory; of the rest it is recorded how much it was."""
    monkeypatch.setattr("warmline_service.audit._log._MOST", 100)
    async with opened("", tmp_path) as store, log_of(store, tmp_path) as log:
        log.record("test.before")
        assert await log.written()
        await asyncio.to_thread(forbid_writing, store, forbid=True)
        began = time.monotonic()
        for number in range(130):
            log.record("test.during", detail={"number": number})
        assert time.monotonic() - began < 1
        assert not await log.written(0.5)
        await asyncio.to_thread(forbid_writing, store, forbid=False)
        assert await log.written(15)
        log.record("test.after")
        assert await log.written()
        rows = await rows_of(store)
        assert [detail(row)["number"] for row in rows if row.action == "test.during"] == list(
            range(100)
        )
        (dropped,) = [row for row in rows if row.action == "audit.dropped"]
        assert detail(dropped) == {"events": 30}
        assert (await verdict_of(store, tmp_path)).broken is None


async def test_much_text_counts_as_many_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits is bounded in bytes too; the count comes also where nothing follows."""
    monkeypatch.setattr("warmline_service.audit._log._MOST_BYTES", 1000)
    async with opened("", tmp_path) as store:
        async with log_of(store, tmp_path) as log:
            for _ in range(5):
                log.record("test.done", detail={"text": "x" * 300})
            assert await log.written()
        assert [row.action for row in await rows_of(store)] == ["test.done"] * 3 + ["audit.dropped"]


class Doubtful:
    """A store that stores, and says that it did not."""

    def __init__(self, store: AuditStore, failures: int) -> None:
        self._store = store
        self._failures = failures

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def append(self, *arguments: Any) -> Any:
        """As the store does; fails afterwards."""
        done = await self._store.append(*arguments)
        self._failures -= 1
        if self._failures >= 0:
            raise WarmlineError(Reason.STORAGE_UNAVAILABLE, "Lost the connection just then.")
        return done


async def test_what_may_be_stored_already_is_stored_once(store: Store, tmp_path: Path) -> None:
    """A commit whose answer was lost is found again, and what came meanwhile is stored too."""
    doubtful: Any = Doubtful(store.audit, 2)
    log = AuditLog(doubtful, CHAIN, AuditSettings(), head_file(tmp_path))
    await log.start()
    try:
        log.record("test.one")
        assert not await log.written(0.05)
        log.record("test.two")
        assert await log.written()
        log.record("test.three")
        assert await log.written()
    finally:
        await log.aclose()
    assert [row.action for row in await rows_of(store)] == ["test.one", "test.two", "test.three"]
    assert (await verdict_of(store, tmp_path)).broken is None


async def test_a_flood_is_counted(store: Store, tmp_path: Path) -> None:
    """Of one peer's failures the first is a row, the others are a number; another's are its own."""
    async with log_of(store, tmp_path) as log:
        for peer in ("192.0.2.1", "192.0.2.2"):
            for _ in range(1000):
                log.record_counted("auth.failed", (peer,), {"peer": peer}, outcome="KEY_INVALID")
    told = [detail(row) for row in await rows_of(store)]
    assert [(each["peer"], each.get("count")) for each in told] == [
        ("192.0.2.1", None),
        ("192.0.2.2", None),
        ("192.0.2.1", 999),
        ("192.0.2.2", 999),
    ]


def test_a_minute_ends_a_count() -> None:
    """The next one of its kind is told again; more kinds than can be remembered are one."""
    told: list[tuple[int, float]] = []
    tally = Tally(1)
    assert tally.one("a", 0.0, lambda *each: told.append(each))
    assert not tally.one("a", 59.0, lambda *each: told.append(each))
    tally.close(59.9)
    assert not told
    tally.close(60.0)
    assert told == [(1, 0.0)]
    assert tally.one("a", 61.0, lambda *each: told.append(each))
    seen = [tally.one(kind, 61.0, lambda *each: told.append(each)) for kind in range(5000)]
    assert sum(seen) == 999
    tally.close(200.0)
    assert told[1:] == [(4001, 61.0)]


@pytest.mark.parametrize(
    ("peer", "network"),
    [
        ("ipv4:192.0.2.7:50051", "192.0.2.7"),
        ("ipv6:[2001:db8:1:2:3::4]:99", "2001:db8:1:2::/64"),
        ("ipv6:%5B::1%5D:99", "::/64"),
        ("unix:", "unix"),
        ("", ""),
    ],
)
def test_a_peer_is_known_by_its_network(peer: str, network: str) -> None:
    """Ports do not matter, and of IPv6 what one customer has is one."""
    assert network_of(peer) == network


async def test_what_is_past_its_time_goes_and_the_rest_verifies(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the front, in several rounds; what was removed is recorded."""
    monkeypatch.setattr("warmline_service.audit._log._RELEASED", 10)
    await fill(store, tmp_path, 25)
    kept_from = time.time()
    await fill(store, tmp_path, 5)
    async with log_of(store, tmp_path, retention_days=1) as log:
        assert await log.retain(kept_from + DAY) == 25
        assert await log.retain(kept_from + DAY) == 0
        assert await log.written()
        rows = await rows_of(store)
    assert [row.seq for row in rows] == list(range(26, 32))
    assert (rows[-1].action, detail(rows[-1])) == ("audit.expired", {"events": 25})
    verdict = await verdict_of(store, tmp_path)
    assert (verdict.broken, verdict.base, verdict.last, verdict.rows) == (None, 25, 31, 6)


async def test_everything_may_go(store: Store, tmp_path: Path) -> None:
    """An empty log with a past verifies, and goes on."""
    await fill(store, tmp_path, 5)
    async with log_of(store, tmp_path, retention_days=1) as log:
        assert await log.store.release(time.time() + DAY, 10, CHAIN.base_after) == 5
        verdict = await verdict_of(store, tmp_path)
        assert (verdict.broken, verdict.base, verdict.last) == (None, 5, 5)
        log.record("test.done")
    assert (await verdict_of(store, tmp_path)).last == 6


async def test_retention_for_ever_removes_nothing(store: Store, tmp_path: Path) -> None:
    """Nor does one that finds the log empty."""
    async with log_of(store, tmp_path, retention_days=1) as log:
        assert await log.retain(time.time() + 10 * DAY) == 0
    await fill(store, tmp_path, 3)
    async with log_of(store, tmp_path, retention_days=0) as log:
        assert await log.retain(time.time() + 10 * DAY) == 0
    assert (await verdict_of(store, tmp_path)).rows == 3


async def test_what_was_tampered_with_is_not_removed(store: Store, tmp_path: Path) -> None:
    """Retention must not make a change disappear."""
    await fill(store, tmp_path, 5)
    await store._database.write(
        lambda c: c.exec_driver_sql("UPDATE audit_events SET actor = 'x' WHERE seq = 3"), 10.0
    )
    async with log_of(store, tmp_path, retention_days=1) as log:
        assert await log.retain(time.time() + 2 * DAY) == 0
    broken = (await verdict_of(store, tmp_path)).broken
    assert broken is not None
    assert broken.seq == 3


async def test_verifying_while_others_add_and_remove(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is removed behind the back of who verifies was removed as it may be."""
    monkeypatch.setattr("warmline_service.audit._verify._PAGE", 3)
    await fill(store, tmp_path, 20)
    work: list[Any] = []

    async with log_of(store, tmp_path, retention_days=0) as log:

        def meanwhile(seq: int) -> None:
            if seq == 3:
                work.append(store.audit.release(time.time() + 1, 12, CHAIN.base_after))
                log.record("test.more")

        class Pages:
            """The store's, between which something happens."""

            async def page(self, after: int, limit: int) -> Any:
                while work:
                    await work.pop()
                return await store.audit.page(after, limit)

        pages: Any = Pages()
        verdict = await verify(pages, CHAIN, None, meanwhile)
        assert verdict.broken is None
        assert verdict.rows == 3 + 8 + (verdict.last - 20)


async def test_switched_off_it_keeps_nothing(store: Store, tmp_path: Path) -> None:
    """And nobody waits for it."""
    async with log_of(store, tmp_path, enabled=False) as log:
        log.record("test.done")
        log.record_counted("auth.failed", ("a",), {})
        assert await log.written(0.1)
    assert await rows_of(store) == []
    assert await asyncio.to_thread(head_file(tmp_path).read) is None


async def test_bodies_are_kept_only_where_they_are_asked_for(store: Store, tmp_path: Path) -> None:
    """Each by its own switch; redacted, and no longer than it may be."""
    text = "my key is sk-ant-oat01-abcdefgh " + "x" * 20_000
    async with log_of(store, tmp_path) as log:
        assert (log.request_body(text), log.response_body(text)) == ({}, {})
    async with log_of(store, tmp_path, request_bodies=True) as log:
        kept = log.request_body(text)["text"]
        assert kept.startswith("my key is [redacted] xxx")
        assert len(kept) == 16 * 1024 + 1
        assert log.response_body(text) == {}
    async with log_of(store, tmp_path, response_bodies=True) as log:
        assert log.request_body(text) == {}
        assert log.response_body("done") == {"text": "done"}


async def test_a_burst_is_stored_without_waiting(store: Store, tmp_path: Path) -> None:
    """More than one transaction takes is no reason to wait for more."""
    async with log_of(store, tmp_path) as log:
        for _ in range(5000):
            log.record("test.done")
        assert await log.written(20)
    assert (await verdict_of(store, tmp_path)).rows == 5000


async def test_what_is_no_json_is_kept_without_its_detail(store: Store, tmp_path: Path) -> None:
    """Whoever records gets no error of it."""
    circle: list[Any] = []
    circle.append(circle)
    async with log_of(store, tmp_path) as log:
        for bad in (object(), "\ud800", circle, {1: {(): 2}}):
            log.record("test.done", detail={"a": bad})
    assert {row.detail for row in await rows_of(store)} == {'{"unreadable":true}'}
