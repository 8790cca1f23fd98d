"""The egress as conversations see it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import SecretStr

from warmline_service.chat import ModelCredential, StoredName, UpstreamFault
from warmline_service.egress._account import Access
from warmline_service.egress._credential import Credential
from warmline_service.egress._egress import Egress
from warmline_service.quota import Allowance
from warmline_service.sessions.events import Tokens


@dataclass(frozen=True)
class EgressAccess:
    """The egress as conversations see it."""

    egress: Egress

    def bind(
        self, slot_id: str, tenant: str, session_id: str, credential: ModelCredential | StoredName
    ) -> None:
        """The slot's requests are this session's from now on, with what it pays with."""
        self.egress.bind(slot_id, Access(tenant, session_id, *_sent(credential)))

    def renew(self, slot_id: str, credential: ModelCredential | StoredName) -> None:
        """The slot's next request goes out with another credential."""
        self.egress.renew(slot_id, *_sent(credential))

    def metered(self, slot_id: str) -> Mapping[str, Tokens]:
        """What the slot has used since it was bound, by model."""
        return {
            model: Tokens(used.input, used.output, used.cache_read, used.cache_creation)
            for model, used in self.egress.meter(slot_id).snapshot().items()
        }

    def requests(self, slot_id: str) -> int:
        """How many requests to a model the slot has made."""
        return self.egress.meter(slot_id).requests

    def last_fault(self, slot_id: str) -> UpstreamFault | None:
        """The last error of the provider, if its last answer was one."""
        denied = self.egress.denied(slot_id) or self.egress.unpaid(slot_id)
        paid_with = self.egress.paid_with(slot_id)
        if denied is not None:
            return UpstreamFault(403, denied.retry_after, denied, paid_with)
        error = self.egress.last_error(slot_id)
        return UpstreamFault(error.status, error.retry_after, None, paid_with) if error else None

    def hold(self, slot_id: str, until: asyncio.Future[bool]) -> None:
        """The slot's requests wait until this says that they may go out."""
        self.egress.hold(slot_id, until)

    def allow(self, slot_id: str, allowance: Allowance | None) -> None:
        """What the slot uses from now on is held to an allowance."""
        self.egress.allow(slot_id, allowance)


def _sent(credential: ModelCredential | StoredName) -> tuple[Credential | None, str]:
    if isinstance(credential, StoredName):
        return None, credential.name
    return Credential(SecretStr(credential.secret), credential.oauth), ""
