"""What nobody may read again: sealed with keys of its owner's, which a master key opens in the end."""

from warmline_service.vault._master import Master, Roots, read_master, unlock
from warmline_service.vault._vault import SealBroken, Vault

__all__ = ["Master", "Roots", "SealBroken", "Vault", "read_master", "unlock"]
