"""What is used and reserved, on both databases."""

import asyncio
import time
from pathlib import Path

import pytest
from stores import opened
from warmline_service.store import Amount, Bounds, Ledger, Reservation, Store, UsageRow, new_batch

DAY = "2026-11-26"


def wanted(name: str, micro_usd: int = 100, *, tenant: str = "acme", day: str = DAY) -> Reservation:
    """A reservation of the next hour."""
    now = time.time()
    return Reservation(name, tenant, Amount(10, micro_usd), day, now, now + 3600)


def used(micro_usd: int, *, tenant: str = "acme", day: str = DAY, model: str = "m") -> UsageRow:
    """What a turn has used."""
    return UsageRow(tenant, day, model, 1, 2, 5, 3, 1000, 2, micro_usd)


async def test_a_bound_holds_in_a_race(store: Store) -> None:
    """Of two hundred turns that begin at once as many get a part as there is money for."""
    ledger, bounds = store.ledger, Bounds(micro_usd_per_day=1050)
    granted = await asyncio.gather(
        *(ledger.reserve(wanted(f"turn-{n}"), bounds) for n in range(200))
    )
    amounts = sorted((each.amount.micro_usd for each in granted), reverse=True)
    assert amounts == [100] * 10 + [50] + [0] * 189
    assert {each.exhausted for each in granted if each.amount.micro_usd < 100} == {"usd_per_day"}


async def test_two_services_share_a_bound(postgres_url: str, tmp_path: Path) -> None:
    """Those that share a database share what is left."""
    bounds = Bounds(micro_usd_per_day=1000)
    async with opened(postgres_url, tmp_path / "a") as one:
        async with opened(postgres_url, tmp_path / "b") as two:
            granted = await asyncio.gather(
                *(
                    store.ledger.reserve(wanted(f"{n}-{i}"), bounds)
                    for i, store in enumerate((one, two))
                    for n in range(20)
                )
            )
    assert sum(each.amount.micro_usd for each in granted) == 1000


async def test_more_replaces_what_a_turn_had(store: Store) -> None:
    """A turn that asks again holds what it got last; what it settles is free for others."""
    ledger, bounds = store.ledger, Bounds(micro_usd_per_day=1000)
    await ledger.reserve(wanted("a", 100), bounds)
    assert (await ledger.reserve(wanted("a", 700), bounds)).amount.micro_usd == 700
    assert (await ledger.reserve(wanted("b", 700), bounds)).amount.micro_usd == 300
    await ledger.settle(new_batch(), [used(200)], ["a"])
    assert (await ledger.reserve(wanted("b", 700), bounds)).amount.micro_usd == 700
    left = await ledger.reserve(wanted("c", 700), bounds)
    assert (left.amount.micro_usd, left.exhausted) == (100, "usd_per_day")


async def test_what_has_expired_is_free(store: Store) -> None:
    """What a service that was killed had reserved comes back."""
    ledger, bounds, now = store.ledger, Bounds(micro_usd_per_day=100), time.time()
    gone = Reservation("a", "acme", Amount(0, 100), DAY, now - 10, now - 1)
    await ledger.reserve(gone, bounds)
    assert (await ledger.reserve(wanted("b"), bounds)).amount.micro_usd == 100


async def test_days_and_months_and_tenants_are_apart(store: Store) -> None:
    """A day's bound is of the day, a month's of all its days so far; no other tenant counts."""
    ledger = store.ledger
    rows = [
        used(100, day="2026-10-31"),
        used(200, day="2026-11-01"),
        used(300, day=DAY),
        used(400, day=DAY, tenant="other"),
        used(500, day=DAY, model="another"),
    ]
    await ledger.settle(new_batch(), rows, [])
    big = wanted("a", 10_000)
    daily = await ledger.reserve(big, Bounds(micro_usd_per_day=2000))
    monthly = await ledger.reserve(big, Bounds(micro_usd_per_month=2000))
    assert (daily.amount.micro_usd, monthly.amount.micro_usd) == (1200, 1000)
    # Two rows of 5 + 3 + 2; what was read from the cache is not counted.
    tokens = await ledger.reserve(wanted("a"), Bounds(tokens_per_day=25))
    assert (tokens.amount.tokens, tokens.exhausted) == (5, "tokens_per_day")
    assert tokens.amount.micro_usd == 100


async def test_a_batch_counts_once(store: Store) -> None:
    """Whoever does not know whether a batch was taken gives it again."""
    ledger: Ledger = store.ledger
    batch = new_batch()
    for _ in range(2):
        await ledger.settle(batch, [used(5), used(7, model="n")], [])
    await ledger.settle(new_batch(), [used(1)], [])
    rows = await ledger.usage("acme", DAY, DAY)
    assert [(row.model, row.micro_usd, row.turns, row.input) for row in rows] == [
        ("m", 6, 2, 10),
        ("n", 7, 1, 5),
    ]
    assert await ledger.usage("acme", "2026-11-27", "2026-12-31") == []


@pytest.mark.parametrize("count", [1, 3])
async def test_nothing_is_kept_by_a_question(store: Store, count: int) -> None:
    """A reservation without a name only asks what is left."""
    bounds = Bounds(micro_usd_per_day=100)
    for _ in range(count):
        assert (await store.ledger.reserve(wanted(""), bounds)).amount.micro_usd == 100
