"""A plausible count of tokens: four bytes each, and a cache that a conversation's start fills."""

from __future__ import annotations

from warmline_service.egress._meter import Tokens
from warmline_service.egress.loopback._request import Conversation

_BYTES_PER_TOKEN = 4


def input_tokens(conversation: Conversation) -> Tokens:
    """What a request costs before anything is answered.

    With `cache_control` in it, all but the last message counts as written to the cache in a
    conversation's first request and as read from it in later ones.
    """
    request = conversation.request
    messages = [len(bytes(raw)) for raw in request.messages]
    before = sum(len(bytes(raw)) for raw in (request.system, request.tools)) + sum(messages[:-1])
    cached, fresh = before // _BYTES_PER_TOKEN, max(1, sum(messages[-1:]) // _BYTES_PER_TOKEN)
    if b'"cache_control"' not in conversation.body:
        return Tokens(input=cached + fresh)
    if any(message.role == "assistant" for message in conversation.messages):
        return Tokens(input=fresh, cache_read=cached)
    return Tokens(input=fresh, cache_creation=cached)
