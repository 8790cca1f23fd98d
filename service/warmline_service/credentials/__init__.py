"""Model credentials that operators store for tenants: sealed, found by name, renewed in time."""

from warmline_service.credentials._endpoint import TokenEndpoint
from warmline_service.credentials._stored import Secret, Stored, nothing_to_pay_with
from warmline_service.credentials._wallet import Wallet

__all__ = ["Secret", "Stored", "TokenEndpoint", "Wallet", "nothing_to_pay_with"]
