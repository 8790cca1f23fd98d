"""What routes in the formats of others have in common: a request's key, and how its answer begins."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Header

from warmline_http._answer import Answer
from warmline_http._call import Call
from warmline_http._failure import Failure
from warmline_http._talk import Talk

# Under the same one a request that is sent again runs once.
Key = Annotated[str, Header(alias="idempotency-key", max_length=128, pattern=r"^[!-~]*$")]
# For the API's page: what a route answers that has a `stream`.
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; with `stream`, server-sent events.",
        "content": {"text/event-stream": {}},
    }
}


async def begun(call: Call, talk: Talk) -> Answer:
    """An answer whose message has been accepted; whoever gets it closes it. Raises Failure.

    Who shows nothing else is, where the service takes that, who the credential in the body says.
    """
    if talk.credential is not None and not call.shows_who:
        try:
            return await _begun(call.shown(talk.credential.oauth_token), talk)
        except Failure as failure:
            if failure.status != 401:
                raise
    return await _begun(call, talk)


async def _begun(call: Call, talk: Talk) -> Answer:
    answer = Answer(call, talk)
    try:
        await answer.open()
    except BaseException:
        answer.close()
        raise
    return answer


def headers_of(answer: Answer, ignored: str) -> dict[str, str]:
    """Which session answers, and which fields of the request have no effect."""
    headers = {"x-session-id": answer.opened.session_id}
    return headers | {"x-warmline-ignored": ignored} if ignored else headers
