"""What a request goes out with: the session's own credential, a stored one, or the operator's."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import SecretStr

from warmline_service.credentials import Stored, Wallet, nothing_to_pay_with
from warmline_service.egress._account import Account
from warmline_service.egress._credential import Credential
from warmline_service.errors import WarmlineError


@dataclass(frozen=True)
class Payment:
    """A credential, or none where the endpoint needs none; `stored` is set for one of the tenant's."""

    credential: Credential | None
    stored: Stored | None = None

    @property
    def is_renewable(self) -> bool:
        """Whether another may be had in place of it when it is refused."""
        return self.stored is not None and self.stored.oauth


class Payments:
    """Finds what a request goes out with; `operators` is for those who have nothing else.

    Without a `wallet` nothing is stored for any tenant.
    """

    def __init__(self, operators: Credential | None, wallet: Wallet | None = None) -> None:
        self._operators = operators
        self._wallet = wallet

    async def first(self, account: Account) -> Payment:
        """Raises as the wallet does, and says so in `account`."""
        access = account.access
        account.unpaid, account.paid_with = None, access.stored if access else ""
        if access is not None and access.credential is not None:
            return Payment(access.credential)
        if access is None or self._wallet is None:
            return Payment(self._operators)
        try:
            stored = await self._wallet.current(access.tenant, access.stored)
            if stored is None and self._operators is None:
                raise nothing_to_pay_with()
            return self._of(account, stored)
        except WarmlineError as error:
            raise _told(account, error) from error

    async def another(self, account: Account, refused: Payment) -> Payment | None:
        """What to try in place of one that was refused; None where there is nothing. Raises as `first`."""
        if refused.stored is None or self._wallet is None:
            return None
        try:
            stored = await self._wallet.another(refused.stored)
        except WarmlineError as error:
            raise _told(account, error) from error
        return None if stored is None else self._of(account, stored)

    def _of(self, account: Account, stored: Stored | None) -> Payment:
        if stored is None:
            return Payment(self._operators)
        account.paid_with = stored.row.name
        return Payment(Credential(SecretStr(stored.secret.value), stored.oauth), stored)


def _told(account: Account, error: WarmlineError) -> WarmlineError:
    account.unpaid = error
    account.paid_with = error.metadata.get("credential", account.paid_with)
    return error
