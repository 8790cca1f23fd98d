"""How often a tenant may ask: here, and in a real Redis that services share."""

import asyncio

import pytest
from redis_server import RedisServer
from warmline_service.errors import WarmlineError
from warmline_service.quota import Rates


async def hits(rates: Rates, count: int, limit: int, tenant: str = "acme") -> int:
    """How many of some calls at once were taken; each other one is told when to come again."""
    results = await asyncio.gather(
        *(rates.hit(tenant, limit) for _ in range(count)), return_exceptions=True
    )
    refused = [each for each in results if each is not None]
    for error in refused:
        assert isinstance(error, WarmlineError)
        assert error.reason == "RATE_LIMITED"
        assert error.metadata == {"limit": str(limit), "quota": "requests_per_minute"}
        assert error.retry_after is not None
        assert 0 < error.retry_after <= 60
    return count - len(refused)


async def test_a_tenant_is_held_to_its_rate_and_no_other_is() -> None:
    """Two hundred calls at once: as many are taken as may be."""
    rates = Rates("")
    assert await hits(rates, 200, 50) == 50
    assert await hits(rates, 20, 50, "other") == 20
    await rates.aclose()


async def test_services_share_a_redis(redis_server: RedisServer) -> None:
    """What one has counted is not free in the other."""
    one, two = Rates(redis_server.url), Rates(redis_server.url)
    assert await hits(one, 30, 50) == 30
    assert await hits(two, 30, 50) == 20
    await one.aclose()
    await two.aclose()


async def test_without_its_redis_each_service_counts_alone(redis_server: RedisServer) -> None:
    """Nobody waits for long, nobody is refused for want of it, and it is asked again later."""
    rates = Rates(redis_server.url)
    redis_server.stop()
    assert await hits(rates, 3, 5) == 3
    assert await hits(rates, 100, 5) == 2
    redis_server.go_on()
    rates._ask_at = 0.0
    assert await hits(rates, 3, 5) == 3
    await rates.aclose()


@pytest.mark.parametrize("url", ["memcached://localhost", "redis", "http://x"])
async def test_another_url_is_refused(url: str) -> None:
    """By the name of the setting."""
    with pytest.raises(ValueError, match=r"limits\.rates_url"):
        Rates(url)
