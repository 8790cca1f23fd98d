"""Who calls: tenants, what they show to be known by, what that allows; and who may change it."""

from warmline_service.tenants._administration import (
    Administration,
    KeyView,
    TenantView,
    make_first_key,
    stored,
)
from warmline_service.tenants._authenticate import Authenticator, Check, KeyCheck
from warmline_service.tenants._cache import TtlCache
from warmline_service.tenants._callers import Callers, NoKey, asks_callers
from warmline_service.tenants._certificates import CertificateCheck, is_identity
from warmline_service.tenants._directory import Directory
from warmline_service.tenants._keys import KeyRecord, KeyStore, hash_key, new_key
from warmline_service.tenants._last_use import LastUse
from warmline_service.tenants._own_credential import OwnCredentialCheck, group_of, is_reserved
from warmline_service.tenants._policies import TenantPolicies
from warmline_service.tenants._principal import SCOPES, OwnCredential, Principal, Shown
from warmline_service.tenants._tokens import TokenCheck

__all__ = [
    "SCOPES",
    "Administration",
    "Authenticator",
    "Callers",
    "CertificateCheck",
    "Check",
    "Directory",
    "KeyCheck",
    "KeyRecord",
    "KeyStore",
    "KeyView",
    "LastUse",
    "NoKey",
    "OwnCredential",
    "OwnCredentialCheck",
    "Principal",
    "Shown",
    "TenantPolicies",
    "TenantView",
    "TokenCheck",
    "TtlCache",
    "asks_callers",
    "group_of",
    "hash_key",
    "is_identity",
    "is_reserved",
    "make_first_key",
    "new_key",
    "stored",
]
