"""What a tenant's policy has to say to a session's configuration."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from warmline_service.addresses import host_among
from warmline_service.chat._catalog import Model
from warmline_service.config import ProviderKind, TenantPolicy
from warmline_service.errors import Reason, WarmlineError
from warmline_service.sessions import SessionConfig


def may_use(policy: TenantPolicy, model: Model) -> bool:
    """Whether a tenant may have a model."""
    return policy.models is None or not policy.models.isdisjoint({model.id, *model.aliases})


def may_ask(policy: TenantPolicy, provider: ProviderKind) -> bool:
    """Whether a tenant may use a provider."""
    return policy.providers is None or provider in policy.providers


def check_provider(policy: TenantPolicy, provider: ProviderKind) -> None:
    """Raise POLICY_DENIED where a tenant may not use the service's provider."""
    if may_ask(policy, provider):
        return
    text = f"This tenant may not use the provider {provider}, which is the one of this service."
    raise WarmlineError(Reason.POLICY_DENIED, text, metadata={"provider": provider})


def not_allowed(model: Model) -> WarmlineError:
    """MODEL_NOT_ALLOWED, by the model's id."""
    text = f"This tenant may not use the model {model.id}."
    return WarmlineError(Reason.MODEL_NOT_ALLOWED, text, metadata={"model": model.id})


def check_tenant(policy: TenantPolicy, config: SessionConfig, models: Sequence[Model]) -> None:
    """Raise MODEL_NOT_ALLOWED or POLICY_DENIED for what the tenant may not have."""
    for model in models:
        if not may_use(policy, model):
            raise not_allowed(model)
    modes = policy.permission_modes
    if modes is not None and config.permission_mode not in modes:
        raise WarmlineError(
            Reason.POLICY_DENIED,
            f"This tenant may not use the permission mode {config.permission_mode}.",
            metadata={"permissionMode": config.permission_mode},
        )
    for name, server in config.mcp_servers.items():
        if policy.mcp_hosts is None or server.kind == "stdio":
            continue
        host = (urlsplit(server.target).hostname or "").lower()
        if not host_among(host, policy.mcp_hosts):
            field = f"config.mcp_servers[{name}]"
            text = f"{field} is at a host that this tenant may not use."
            raise WarmlineError(Reason.POLICY_DENIED, text, metadata={"field": field})
