"""How many tokens a request would have, asked of the provider for a caller."""

from __future__ import annotations

import msgspec

from warmline_service.egress._account import Access, Account
from warmline_service.egress._provider import Provider
from warmline_service.errors import Reason, WarmlineError, field_invalid

_SHOWN = 500


class _Counted(msgspec.Struct):
    input_tokens: int


class _Error(msgspec.Struct):
    message: str = ""


class _Refused(msgspec.Struct):
    error: _Error


class TokenCounter:
    """Asks with what the tenant pays with."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    async def count(self, tenant: str, body: bytes) -> int:
        """The input tokens of a request.

        Raises FIELD_INVALID for what the provider does not take, CREDENTIAL_REJECTED, UPSTREAM_OVERLOADED,
        UPSTREAM_UNAVAILABLE.
        """
        account = Account("tokens")
        account.bind(Access(tenant, ""))
        status, answer = await self._provider.count(body, account)
        try:
            if status == 200:
                return msgspec.json.decode(answer, type=_Counted).input_tokens
            said = msgspec.json.decode(answer, type=_Refused).error.message[:_SHOWN]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            said = ""
        raise _failure(status, said)


def _failure(status: int, said: str) -> WarmlineError:
    if status in (429, 529):
        text = "The model provider is overloaded."
        return WarmlineError(Reason.UPSTREAM_OVERLOADED, text, retry_after=1.0)
    if status in (401, 403):
        return WarmlineError(Reason.CREDENTIAL_REJECTED, "The provider refused the credential.")
    if 400 <= status < 500 and said:
        return field_invalid("body", said)
    return WarmlineError(Reason.UPSTREAM_UNAVAILABLE, "The model provider gave no count.")
