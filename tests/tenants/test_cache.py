"""What is kept of what was looked up."""

import asyncio

import pytest
from warmline_service.errors import Reason, WarmlineError
from warmline_service.tenants import TtlCache


class Shelf:
    """What can be looked up, and how often it was."""

    def __init__(self, **books: str) -> None:
        self.books = books
        self.asked: list[str] = []
        self.open: asyncio.Event = asyncio.Event()
        self.open.set()
        self.time = 0.0
        self.cache: TtlCache[str] = TtlCache(self._load, ttl=3.0, size=2, clock=lambda: self.time)

    async def _load(self, name: str) -> str | None:
        self.asked.append(name)
        book = self.books.get(name)
        await self.open.wait()
        if book == "broken":
            raise OSError(name)
        return book


async def test_it_asks_once_in_its_time() -> None:
    """Also for what is not there."""
    shelf = Shelf(a="1")
    for _ in range(2):
        assert await shelf.cache.get("a") == "1"
        assert await shelf.cache.get("b") is None
    assert shelf.asked == ["a", "b"]
    shelf.books["a"] = "2"
    shelf.time = 2.9
    assert await shelf.cache.get("a") == "1"
    shelf.time = 3.0
    assert await shelf.cache.get("a") == "2"


async def test_many_wait_for_one_answer() -> None:
    """And one of them that is given up takes nothing from the others."""
    shelf = Shelf(a="1")
    shelf.open.clear()
    waiting = [asyncio.create_task(shelf.cache.get("a")) for _ in range(5)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    await asyncio.sleep(0)
    shelf.open.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [each for each in found if each == "1"] == ["1"] * 4
    assert shelf.asked == ["a"]


async def test_where_the_one_who_asks_is_given_up_another_asks() -> None:
    """Nobody waits for an answer that does not come."""
    shelf = Shelf(a="1")
    shelf.open.clear()
    first = asyncio.create_task(shelf.cache.get("a"))
    second = asyncio.create_task(shelf.cache.get("a"))
    await asyncio.sleep(0)
    first.cancel()
    shelf.open.set()
    assert await second == "1"
    assert shelf.asked == ["a", "a"]


async def test_a_failure_is_not_kept() -> None:
    """Whoever comes next asks again."""
    shelf = Shelf(a="broken")
    with pytest.raises(OSError, match="a"):
        await shelf.cache.get("a")
    shelf.books["a"] = "1"
    assert await shelf.cache.get("a") == "1"


async def test_a_flood_of_names_is_refused_and_known_ones_are_not() -> None:
    """So many are asked for at a time and no more; then it goes on."""
    shelf = Shelf(a="1")
    assert await shelf.cache.get("a") == "1"
    shelf.open.clear()
    flood = [asyncio.create_task(shelf.cache.get(str(number))) for number in range(300)]
    await asyncio.sleep(0)
    assert await shelf.cache.get("a") == "1"
    shelf.open.set()
    found = await asyncio.gather(*flood, return_exceptions=True)
    refused = [each for each in found if isinstance(each, WarmlineError)]
    assert (len(refused), found.count(None)) == (44, 256)
    assert {each.reason for each in refused} == {Reason.QUEUE_FULL}
    assert await shelf.cache.get("299") is None


async def test_an_answer_from_before_a_change_is_not_taken() -> None:
    """It was on its way when the change was made."""
    shelf = Shelf(a="old")
    shelf.open.clear()
    asking = asyncio.create_task(shelf.cache.get("a"))
    await asyncio.sleep(0)
    shelf.books["a"] = "new"
    shelf.cache.forget()
    shelf.open.set()
    assert await asking == "new"


async def test_it_is_bounded_and_made_up_names_push_out_no_real_ones() -> None:
    """At most `size` of each kind, the oldest goes."""
    shelf = Shelf(a="1", b="2", c="3")
    for name in ("a", "b", *map(str, range(100)), "a", "b"):
        await shelf.cache.get(name)
    assert shelf.asked.count("a") == shelf.asked.count("b") == 1
    await shelf.cache.get("c")
    await shelf.cache.get("a")
    assert shelf.asked.count("a") == 2
