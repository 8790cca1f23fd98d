"""Sessions by the beginning of their ids."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from warmline_client._client import Client
from warmline_client._errors import WarmlineError
from warmline_client.terminal._options import PATIENCE

_ID_LENGTH = 36
# How many are named where several begin alike.
_NAMED = 5


async def picked(client: Client, beginning: str) -> str:
    """The id of the one session whose id begins so; a whole id is left to the service to judge.

    Raises WarmlineError where there is none, or several.
    """
    return (await all_picked(client, [beginning]))[0]


async def all_picked(client: Client, beginnings: Sequence[str]) -> list[str]:
    """The same for several, in their order; the sessions are looked through once."""
    short = [each.lower() for each in beginnings if len(each) < _ID_LENGTH]
    if not all(short):
        raise WarmlineError.of(grpc.StatusCode.INVALID_ARGUMENT, "A session's id is not empty.")
    found: dict[str, list[str]] = {each: [] for each in short}
    if short:
        async for session in client.sessions(page_size=1000, retry_timeout=PATIENCE):
            for each, ids in found.items():
                if session.id.startswith(each):
                    ids.append(session.id)
    return [_one(each.lower(), found.get(each.lower(), [each])) for each in beginnings]


def _one(beginning: str, ids: list[str]) -> str:
    if not ids:
        raise WarmlineError.of(
            grpc.StatusCode.NOT_FOUND,
            f"No session's id begins with {beginning!r}; see `warmline sessions list`.",
        )
    if len(ids) > 1:
        named = ", ".join(ids[:_NAMED]) + (", …" if len(ids) > _NAMED else "")
        raise WarmlineError.of(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"The ids of {len(ids)} sessions begin with {beginning!r}: {named}",
        )
    return ids[0]
