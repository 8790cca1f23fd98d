"""What a conversation needs from others: declared here, implemented elsewhere, joined in the server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from warmline_service.audit import AuditLog
from warmline_service.chat._catalog import ModelCatalog
from warmline_service.chat._policy import Policy
from warmline_service.chat._tenancy import check_provider, check_tenant
from warmline_service.config import CliSettings, LimitSettings
from warmline_service.credentials import Wallet, nothing_to_pay_with
from warmline_service.errors import Reason, WarmlineError
from warmline_service.mcp import Broker
from warmline_service.pool import Pool
from warmline_service.quota import Allowance, Quota
from warmline_service.sessions import (
    Journal,
    PayingCredential,
    Portable,
    SessionConfig,
    Sessions,
    Workspaces,
)
from warmline_service.sessions.events import Tokens
from warmline_service.store import Store, credential_not_found
from warmline_service.vault import SealBroken, Vault
from warmline_service.worker import Capabilities, CliProcess


@dataclass(frozen=True)
class UpstreamFault:
    """The last error that a provider gave a slot; `retry_after` in seconds.

    `denied`: the service itself let the turn ask no more. `paid_with` names the stored credential that the
    request went out with, or could not.
    """

    status: int
    retry_after: float | None
    denied: WarmlineError | None = None
    paid_with: str = ""


@dataclass(frozen=True)
class ModelCredential:
    """A credential of the provider's; `oauth`: one that bears, and no API key."""

    secret: str = field(repr=False)
    oauth: bool


@dataclass(frozen=True)
class StoredName:
    """A credential that is stored for the tenant; an empty name: its default, or else the operator's."""

    name: str = ""


class ModelAccess(Protocol):
    """The way of a slot's process to a model, from the conversation's side."""

    def bind(
        self, slot_id: str, tenant: str, session_id: str, credential: ModelCredential | StoredName
    ) -> None:
        """From now on the slot's requests are this session's. Once per slot."""

    def renew(self, slot_id: str, credential: ModelCredential | StoredName) -> None:
        """The slot's next request goes out with another credential."""

    def allow(self, slot_id: str, allowance: Allowance | None) -> None:
        """What the slot uses from now on is held to an allowance; None: to nothing."""

    def hold(self, slot_id: str, until: asyncio.Future[bool]) -> None:
        """The slot's requests wait until this says that they may go out; where it says no, none does."""

    def metered(self, slot_id: str) -> Mapping[str, Tokens]:
        """What the slot has used since it was bound, by model; without cost."""

    def requests(self, slot_id: str) -> int:
        """How many requests to a model the slot has made since it was bound."""

    def last_fault(self, slot_id: str) -> UpstreamFault | None:
        """The last error that the provider answered with, if the last request failed."""


@dataclass(frozen=True)
class Runtime:
    """What all conversations share."""

    pool: Pool[CliProcess]
    access: ModelAccess
    catalog: ModelCatalog
    capabilities: Capabilities
    cli: CliSettings
    limits: LimitSettings
    store: Store
    sessions: Sessions
    journal: Journal
    workspaces: Workspaces
    portable: Portable
    broker: Broker
    vault: Vault
    policy: Policy
    quota: Quota
    audit: AuditLog
    wallet: Wallet

    def credential(self, tenant: str, config: SessionConfig) -> ModelCredential | StoredName:
        """What the session pays with. Raises CREDENTIAL_REJECTED where its own cannot be opened."""
        try:
            values = config.credential.values(self.vault, tenant)
        except SealBroken as error:
            text = (
                "The session's credential was stored with another key: give it again by `update`."
            )
            raise WarmlineError(Reason.CREDENTIAL_REJECTED, text) from error
        for kind, secret in values.items():
            return ModelCredential(secret, kind == "oauth_token")
        return StoredName(config.credential.name)

    async def check(self, tenant: str, config: SessionConfig) -> None:
        """Raise MODEL_NOT_FOUND, CREDENTIAL_NOT_FOUND, CREDENTIAL_REJECTED, or what the policies raise, for
        what a session cannot have here.
        """
        models = [config.model, *config.fallback_models]
        models += [agent.model for agent in config.agents.values() if agent.model]
        resolved = [self.catalog.resolve(name) for name in models]
        own = await self.quota.policy(tenant)
        self.policy.check(config, self.policy.level_of(own))
        check_provider(own, self.policy.provider.kind)
        check_tenant(own, config, resolved)
        await self._check_paid(tenant, config.credential)

    async def _check_paid(self, tenant: str, credential: PayingCredential) -> None:
        name = credential.name
        if credential.names or (self.policy.own_credential and not name):
            return
        if await self.wallet.find(tenant, name) is not None:
            return
        if name:
            raise credential_not_found(name)
        raise nothing_to_pay_with()
