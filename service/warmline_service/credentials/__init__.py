"""Model credentials that operators store for tenants: sealed, found by name, renewed in time."""

from warmline_service.credentials._endpoint import TokenEndpoint
from warmline_service.credentials._stored import Secret, Stored
from warmline_service.credentials._wallet import Wallet

__all__ = ["Secret", "Stored", "TokenEndpoint", "Wallet"]
