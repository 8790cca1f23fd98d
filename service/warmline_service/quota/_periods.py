"""The periods of budgets: days and calendar months, in UTC."""

from __future__ import annotations

import datetime as dt


def day_of(now: float) -> str:
    """The day of a Unix time, as `2026-11-26`."""
    return _moment(now).strftime("%Y-%m-%d")


def until_tomorrow(now: float) -> float:
    """Seconds to the end of the day."""
    moment = _moment(now)
    return (_midnight(moment) + dt.timedelta(days=1) - moment).total_seconds()


def until_next_month(now: float) -> float:
    """Seconds to the end of the month."""
    moment = _moment(now)
    some_day_of_next = _midnight(moment).replace(day=1) + dt.timedelta(days=32)
    return (some_day_of_next.replace(day=1) - moment).total_seconds()


def _moment(now: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(now, dt.UTC)


def _midnight(moment: dt.datetime) -> dt.datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)
