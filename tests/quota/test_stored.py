"""What a tenant keeps, as it is known from one sum to the next."""

import asyncio

import pytest
from warmline_service.errors import Reason, WarmlineError
from warmline_service.quota._stored import Stored

pytestmark = pytest.mark.virtual_time


class Sums:
    """What tenants keep, how long it takes to sum that up, and how often it was."""

    def __init__(self, size: int = 0) -> None:
        self.size = size
        self.takes = 0.0
        self.fails = False
        self.times = 0

    async def __call__(self, tenant: str) -> int:
        """The sum of what was there when it began."""
        del tenant
        self.times += 1
        size = self.size
        await asyncio.sleep(self.takes)
        if self.fails:
            raise WarmlineError(Reason.STORAGE_UNAVAILABLE, "not now")
        return size


async def allowed(stored: Stored, limit: int, adding: int = 0) -> bool:
    """Whether the tenant may store more."""
    try:
        await stored.check("acme", limit, adding)
    except WarmlineError as error:
        if error.reason is not Reason.QUOTA_EXCEEDED:
            raise
        return False
    return True


async def test_a_refusal_names_the_bound() -> None:
    """And says when to come again."""
    stored = Stored(Sums(size=11))
    with pytest.raises(WarmlineError, match="QUOTA_EXCEEDED") as caught:
        await stored.check("acme", 10, 0)
    assert caught.value.metadata == {"limit": "10", "quota": "storage_bytes"}
    assert caught.value.retry_after is not None
    await stored.aclose()


async def test_it_is_summed_once_for_many_and_seldom() -> None:
    """However many come at once; then for ten seconds, or for fifty times as long as it took."""
    sums = Sums(size=5)
    sums.takes = 1.0
    stored = Stored(sums)
    assert all(await asyncio.gather(*(allowed(stored, 5) for _ in range(50))))
    await asyncio.sleep(49)
    assert not await allowed(stored, 4)
    assert sums.times == 1
    await asyncio.sleep(2)
    assert await allowed(stored, 5)
    await asyncio.sleep(1)
    assert sums.times == 2
    await stored.aclose()


async def test_who_is_below_the_bound_waits_once() -> None:
    """An old figure is used while another one is summed; one above the bound is waited for."""
    sums = Sums(size=5)
    stored = Stored(sums)
    await allowed(stored, 10)
    sums.takes, sums.size = 3.0, 20
    loop = asyncio.get_running_loop()
    for waited, good in ((0.0, True), (0.0, False)):
        await asyncio.sleep(11)
        begun = loop.time()
        assert await allowed(stored, 10) is good
        assert loop.time() - begun == pytest.approx(waited)
    sums.size = 5
    await asyncio.sleep(150)
    begun = loop.time()
    assert await allowed(stored, 10)
    assert loop.time() - begun == pytest.approx(3.0)
    await stored.aclose()


async def test_what_is_being_stored_counts_at_once() -> None:
    """Imports side by side cannot have the same room twice."""
    stored = Stored(Sums(size=40))
    results = await asyncio.gather(*(allowed(stored, 100, adding=25) for _ in range(8)))
    assert results == [True, True] + 6 * [False]
    assert await stored.used("acme") == 90
    await stored.aclose()


async def test_what_is_removed_is_free_at_once() -> None:
    """Also where a sum is under way that has still seen it."""
    sums = Sums(size=20)
    stored = Stored(sums)
    assert not await allowed(stored, 10)
    sums.size = 5
    assert not await allowed(stored, 10)
    stored.freed("acme")
    assert await allowed(stored, 10)
    sums.size, sums.takes = 20, 5.0
    stored.freed("acme")
    waiting = asyncio.create_task(stored.used("acme"))
    await asyncio.sleep(1)
    sums.size = 5
    stored.freed("acme")
    assert await stored.used("acme") == 5
    assert await waiting == 20
    assert await stored.used("acme") == 5
    await stored.aclose()


async def test_a_sum_that_fails_is_tried_again() -> None:
    """Nobody is let in without one, and an old one does meanwhile."""
    sums = Sums(size=5)
    sums.fails = True
    stored = Stored(sums)
    for _ in range(2):
        with pytest.raises(WarmlineError, match="STORAGE_UNAVAILABLE"):
            await stored.check("acme", 10, 0)
    sums.fails = False
    assert await allowed(stored, 10)
    sums.fails = True
    await asyncio.sleep(20)
    assert await allowed(stored, 10)
    await asyncio.sleep(1)
    assert sums.times == 4
    sums.fails, sums.takes = False, 5.0
    assert await allowed(stored, 10)
    await stored.aclose()
