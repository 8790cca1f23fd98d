"""Who calls: tenants, their API keys, and what a key allows."""

from warmline_service.tenants._authenticate import Authenticator, Principal
from warmline_service.tenants._keys import KeyRecord, KeyStore, SettingsKeys, hash_key, new_key

__all__ = [
    "Authenticator",
    "KeyRecord",
    "KeyStore",
    "Principal",
    "SettingsKeys",
    "hash_key",
    "new_key",
]
