"""A tenant's policy, its turns, and what they cost."""

import datetime as dt
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import forbid_writing, opened
from warmline_service.config import (
    LimitSettings,
    ModelPrice,
    ModelSettings,
    TenantPolicy,
    TenantSettings,
)
from warmline_service.errors import WarmlineError
from warmline_service.quota import Allowance, Prices, Quota, Rates
from warmline_service.quota._periods import day_of, until_next_month, until_tomorrow
from warmline_service.store import Bounds, Store
from warmline_service.tenants import Administration, Directory, TenantPolicies, stored

PRICES = Prices({"cheap": ModelPrice(input=1, output=2, cache_read=0.1, cache_creation=1.5)})


def tokens(given: int = 0, written: int = 0, read: int = 0, made: int = 0) -> SimpleNamespace:
    """Tokens as a meter counts them."""
    return SimpleNamespace(input=given, output=written, cache_read=read, cache_creation=made)


def quota_of(store: Store, **policy: object) -> Quota:
    """A quota with one policy for all."""
    directory = Directory((), store.tenants)
    policies = TenantPolicies(TenantPolicy(**policy), directory)
    return Quota(LimitSettings(), policies, Rates(""), store.ledger, PRICES, store.stored_bytes)


def test_a_cost_is_what_the_cli_computes() -> None:
    """The first turn of each model, as the CLI 2.1.329 said what it costs in US dollars."""
    prices = Prices(ModelSettings().prices)
    said = {
        ("claude-opus-5-5", 2290, 511, 0, 11367): 0.076215,
        ("claude-fable-5-2", 474, 450, 15305, 0): 0.024853,
        ("claude-sonnet-5-5", 474, 450, 14101, 0): 0.0068581,
        ("claude-haiku-5-5", 474, 450, 14814, 0): 0.00042054,
    }
    for (model, *counts), dollars in said.items():
        assert prices.cost(model, tokens(*counts)) == pytest.approx(dollars * 1e6, abs=1)


def test_a_model_without_a_price_is_the_dearest() -> None:
    """What is not known must not be for nothing."""
    prices = Prices({"a": ModelPrice(output=1), "b": ModelPrice(output=3)})
    assert prices.cost("unknown", tokens(written=10)) == 30


@given(st.datetimes(dt.datetime(2000, 1, 1), dt.datetime(2100, 1, 1)))
def test_periods_end_where_the_next_begins(moment: dt.datetime) -> None:
    """At midnight, and on the first of a month; in UTC."""
    now = moment.replace(tzinfo=dt.UTC).timestamp()
    for until, first in (
        (until_tomorrow(now), "T00:00:00"),
        (until_next_month(now), "-01T00:00:00"),
    ):
        end = dt.datetime.fromtimestamp(round(now + until), dt.UTC).isoformat()
        assert first in end
    assert 0 < until_tomorrow(now) <= 86400
    assert until_tomorrow(now) <= until_next_month(now) <= 31 * 86400
    assert day_of(now) == moment.date().isoformat()


async def test_a_tenant_has_the_default_but_for_what_is_its_own(store: Store) -> None:
    """Of the settings or of the store, also where its own is laxer; a change holds at once here."""
    default = TenantPolicy(concurrent_turns=5, usd_per_day=1.0)
    fixed = TenantSettings(id="acme", policy=TenantPolicy(concurrent_turns=9))
    directory = Directory([fixed, TenantSettings(id="none")], store.tenants)
    policies, admin = TenantPolicies(default, directory), Administration(directory, store.tenants)
    acme = await policies.of("acme")
    assert (acme.concurrent_turns, acme.usd_per_day) == (9, 1.0)
    assert await policies.of("none") == await policies.of("unheard-of") == default
    await admin.create_tenant("made", "", (), TenantPolicy(usd_per_day=2.0), disabled=False)
    assert (await policies.of("made")).usd_per_day == 2.0
    await admin.update_tenant("made", {"policy": stored(TenantPolicy())}, None, "admin")
    assert await policies.of("made") == default


async def test_turns_are_counted_while_they_last(store: Store) -> None:
    """One more than may be is refused, for nothing; a place that is given up twice is free once."""
    quota = quota_of(store, concurrent_turns=2)
    first, second = await quota.admit("acme"), await quota.admit("acme")
    with pytest.raises(WarmlineError, match="QUOTA_EXCEEDED") as caught:
        await quota.admit("acme")
    assert caught.value.metadata == {"limit": "2", "quota": "concurrent_turns"}
    await quota.admit("other")
    first.release()
    first.release()
    third = await quota.admit("acme")
    with pytest.raises(WarmlineError, match="QUOTA_EXCEEDED"):
        await quota.admit("acme")
    second.release()
    third.release()


async def test_a_turn_is_held_to_what_is_left(store: Store) -> None:
    """It is given more piece by piece, and no more when nothing is left; then nobody gets in."""
    quota = quota_of(store, usd_per_day=0.25)
    quota.start()
    allowance = await quota.allow("acme")
    assert allowance is not None
    within, over = {"cheap": tokens(written=100_000)}, {"cheap": tokens(written=125_000)}
    assert not allowance.covers(within)
    await allowance.cover(within)
    assert allowance.covers(within)
    with pytest.raises(WarmlineError, match="BUDGET_EXCEEDED") as caught:
        await allowance.cover(over)
    assert caught.value.metadata == {"quota": "usd_per_day"}
    assert caught.value.retry_after is not None
    quota.settle("acme", over, 3, allowance)
    await quota.written()
    with pytest.raises(WarmlineError, match="BUDGET_EXCEEDED"):
        await quota.admit("acme")
    (row,) = await store.ledger.usage("acme", "2000-01-01", "2100-01-01")
    assert (row.turns, row.requests, row.output, row.micro_usd) == (1, 3, 125_000, 250_000)
    await quota.aclose()


async def test_what_an_earlier_process_had_takes_nothing_along(store: Store) -> None:
    """A turn that goes on elsewhere has reserved anew before the first part of it is settled."""
    quota = quota_of(store, usd_per_day=0.1)
    first = await quota.allow("acme")
    quota.settle("acme", {}, 0, first)
    quota.start()
    await quota.written()
    second = await quota.allow("acme")
    quota.settle("acme", {}, 0, first)
    await quota.written()
    assert second is not None
    with pytest.raises(WarmlineError, match="BUDGET_EXCEEDED"):
        await quota.allow("acme")
    await quota.aclose()


async def test_without_a_bound_nothing_is_asked(store: Store) -> None:
    """The database is not in the way of who has no budget; what is used is counted all the same."""
    quota = quota_of(store)
    quota.start()
    assert await quota.allow("acme") is None
    for _ in range(3):
        quota.settle("acme", {"cheap": tokens(1), "b": tokens(1)}, 2, None)
    await quota.aclose()
    rows = await store.ledger.usage("acme", "2000-01-01", "2100-01-01")
    assert [(row.model, row.turns, row.requests, row.input) for row in rows] == [
        ("b", 0, 0, 3),
        ("cheap", 3, 6, 3),
    ]


async def test_a_budget_holds_on_tokens_too(store: Store) -> None:
    """Whatever they cost."""
    allowance = Allowance(store.ledger, PRICES, Bounds(tokens_per_day=60_000), "acme")
    await allowance.begin()
    await allowance.cover({"cheap": tokens(59_999, read=10**9)})
    with pytest.raises(WarmlineError, match="tokens_per_day"):
        await allowance.cover({"cheap": tokens(60_000)})


async def test_usage_outlives_an_outage(tmp_path: Path) -> None:
    """What could not be written is written when the store is back, once."""
    async with opened("", tmp_path) as store:
        quota = quota_of(store)
        quota.start()
        forbid_writing(store, forbid=True)
        quota.settle("acme", {"cheap": tokens(1)}, 1, None)
        quota.settle("acme", {"cheap": tokens(1)}, 1, None)
        forbid_writing(store, forbid=False)
        await quota.written()
        await quota.aclose()
        (row,) = await store.ledger.usage("acme", "2000-01-01", "2100-01-01")
        assert (row.turns, row.input) == (2, 2)
