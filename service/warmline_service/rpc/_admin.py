"""AdminService on the wire."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import TypeVar

from google.protobuf.timestamp_pb2 import Timestamp
from warmline.v1 import admin_service_pb2 as pb
from warmline.v1 import admin_service_pb2_grpc as pb_grpc

from warmline_service.config import Level
from warmline_service.credentials import Wallet
from warmline_service.pool import PoolStats
from warmline_service.rpc._deserialize import checked
from warmline_service.rpc._interceptors import principal
from warmline_service.rpc._parse_admin import (
    credential_page_of,
    expiry_of,
    fields_of,
    identities_of,
    key_id_of,
    key_page_of,
    new_tenant_id_of,
    overlap_of,
    scopes_of,
    tenant_id_of,
    tenant_page_of,
    text_of,
)
from warmline_service.rpc._parse_credential import stored_name_of
from warmline_service.rpc._policy import fill_policy, policy_of
from warmline_service.rpc._scopes import scope_value
from warmline_service.rpc._stored_credentials import given_of, stored_credential
from warmline_service.rpc._streaming import Context
from warmline_service.tenants import SCOPES, Administration, KeyView, TenantView, stored

T = TypeVar("T")


class AdminServicer(pb_grpc.AdminServiceServicer):
    """`AdminService` over tenants, keys and what pays for them.

    `pool` says what the pool holds, `drain` begins to stop, `levels` of the sandbox can be had.
    """

    def __init__(
        self,
        administration: Administration,
        wallet: Wallet,
        pool: Callable[[], PoolStats],
        drain: Callable[[], None],
        levels: Collection[Level],
    ) -> None:
        self._administration = administration
        self._wallet = wallet
        self._pool = pool
        self._drain = drain
        self._levels = levels

    async def CreateTenant(
        self, request: pb.CreateTenantRequest, context: Context
    ) -> pb.CreateTenantResponse:
        """A new tenant."""
        del context
        checked(request)
        wanted = request.tenant
        made = await self._administration.create_tenant(
            new_tenant_id_of(wanted.id, "tenant.id"),
            text_of(wanted.display_name, "tenant.display_name"),
            identities_of(wanted.identities, "tenant.identities"),
            policy_of(wanted.policy, "tenant.policy", self._levels),
            disabled=wanted.disabled,
        )
        return pb.CreateTenantResponse(tenant=_tenant(made))

    async def GetTenant(
        self, request: pb.GetTenantRequest, context: Context
    ) -> pb.GetTenantResponse:
        """One tenant."""
        del context
        checked(request)
        tenant = tenant_id_of(request.tenant_id, "tenant_id")
        return pb.GetTenantResponse(tenant=_tenant(await self._administration.tenant(tenant)))

    async def ListTenants(
        self, request: pb.ListTenantsRequest, context: Context
    ) -> pb.ListTenantsResponse:
        """A page of the tenants."""
        del context
        checked(request)
        after, size = tenant_page_of(request)
        shown, more = _page(await self._administration.tenants(after, size + 1), size)
        token = shown[-1].row.id if more else ""
        return pb.ListTenantsResponse(tenants=map(_tenant, shown), next_page_token=token)

    async def UpdateTenant(
        self, request: pb.UpdateTenantRequest, context: Context
    ) -> pb.UpdateTenantResponse:
        """Change some fields of a tenant."""
        del context
        checked(request)
        wanted = request.tenant
        tenant = tenant_id_of(wanted.id, "tenant.id")
        fields = fields_of(request.update_mask.paths, wanted, "update_mask")
        values: dict[str, object] = {}
        if "display_name" in fields:
            values["display_name"] = text_of(wanted.display_name, "tenant.display_name")
        if "disabled" in fields:
            values["disabled"] = wanted.disabled
        if "policy" in fields:
            values["policy"] = stored(policy_of(wanted.policy, "tenant.policy", self._levels))
        identities = None
        if "identities" in fields:
            identities = identities_of(wanted.identities, "tenant.identities")
        made = await self._administration.update_tenant(
            tenant, values, identities, own=principal().tenant
        )
        return pb.UpdateTenantResponse(tenant=_tenant(made))

    async def DeleteTenant(
        self, request: pb.DeleteTenantRequest, context: Context
    ) -> pb.DeleteTenantResponse:
        """Shut a tenant out for good."""
        del context
        checked(request)
        tenant = tenant_id_of(request.tenant_id, "tenant_id")
        await self._administration.remove_tenant(tenant, own=principal().tenant)
        return pb.DeleteTenantResponse()

    async def CreateApiKey(
        self, request: pb.CreateApiKeyRequest, context: Context
    ) -> pb.CreateApiKeyResponse:
        """A new key, shown once."""
        del context
        checked(request)
        made, secret = await self._administration.create_key(
            tenant_id_of(request.tenant_id, "tenant_id"),
            scopes_of(request.scopes, "scopes"),
            text_of(request.note, "note"),
            _expiry(request),
        )
        return pb.CreateApiKeyResponse(api_key=_api_key(made), secret=secret)

    async def ListApiKeys(
        self, request: pb.ListApiKeysRequest, context: Context
    ) -> pb.ListApiKeysResponse:
        """A page of a tenant's keys."""
        del context
        checked(request)
        tenant = tenant_id_of(request.tenant_id, "tenant_id")
        after, size = key_page_of(request)
        shown, more = _page(await self._administration.keys(tenant, after, size + 1), size)
        token = shown[-1].row.id if more else ""
        return pb.ListApiKeysResponse(api_keys=map(_api_key, shown), next_page_token=token)

    async def RotateApiKey(
        self, request: pb.RotateApiKeyRequest, context: Context
    ) -> pb.RotateApiKeyResponse:
        """A new key in place of another."""
        del context
        checked(request)
        overlap = request.overlap if request.HasField("overlap") else None
        made, secret, old = await self._administration.rotate_key(
            key_id_of(request.key_id, "key_id"), overlap_of(overlap, "overlap"), _expiry(request)
        )
        return pb.RotateApiKeyResponse(
            api_key=_api_key(made), secret=secret, replaced=_api_key(old)
        )

    async def RevokeApiKey(
        self, request: pb.RevokeApiKeyRequest, context: Context
    ) -> pb.RevokeApiKeyResponse:
        """End a key."""
        del context
        checked(request)
        key = await self._administration.revoke_key(key_id_of(request.key_id, "key_id"))
        return pb.RevokeApiKeyResponse(api_key=_api_key(key))

    async def SetCredential(
        self, request: pb.SetCredentialRequest, context: Context
    ) -> pb.SetCredentialResponse:
        """Store a model credential."""
        del context
        checked(request)
        tenant = tenant_id_of(request.tenant_id, "tenant_id")
        name = stored_name_of(request.name, "name")
        given, note = given_of(request), text_of(request.note, "note")
        await self._check_tenant(tenant)
        row = await self._wallet.put(
            tenant,
            name,
            given.secret,
            oauth=given.oauth,
            is_default=request.is_default,
            scopes=given.scopes,
            subscription_type=given.subscription_type,
            note=note,
            expires_at=given.expires_at,
        )
        return pb.SetCredentialResponse(credential=stored_credential(row))

    async def ListCredentials(
        self, request: pb.ListCredentialsRequest, context: Context
    ) -> pb.ListCredentialsResponse:
        """A page of a tenant's model credentials."""
        del context
        checked(request)
        tenant = tenant_id_of(request.tenant_id, "tenant_id")
        after, size = credential_page_of(request)
        await self._check_tenant(tenant)
        shown, more = _page(await self._wallet.page(tenant, after, size + 1), size)
        return pb.ListCredentialsResponse(
            credentials=map(stored_credential, shown),
            next_page_token=shown[-1].name if more else "",
        )

    async def DeleteCredential(
        self, request: pb.DeleteCredentialRequest, context: Context
    ) -> pb.DeleteCredentialResponse:
        """Forget a model credential."""
        del context
        checked(request)
        tenant = tenant_id_of(request.tenant_id, "tenant_id")
        name = stored_name_of(request.name, "name")
        await self._check_tenant(tenant)
        await self._wallet.remove(tenant, name)
        return pb.DeleteCredentialResponse()

    async def _check_tenant(self, tenant: str) -> None:
        """Raise TENANT_NOT_FOUND; the caller's own is there, also where nobody is asked who he is."""
        if tenant != principal().tenant:
            await self._administration.tenant(tenant)

    async def GetPool(self, request: pb.GetPoolRequest, context: Context) -> pb.GetPoolResponse:
        """What the pool holds."""
        del context
        checked(request)
        stats = self._pool()
        return pb.GetPoolResponse(
            processes={state.value: count for state, count in stats.processes.items() if count},
            waiting=stats.waiting,
            max_processes=stats.max_processes,
            memory_bytes=stats.memory_committed,
            memory_budget_bytes=stats.memory_budget,
            spare_target=stats.spare_target,
            draining=stats.draining,
        )

    async def Drain(self, request: pb.DrainRequest, context: Context) -> pb.DrainResponse:
        """Have the service stop."""
        del context
        checked(request)
        self._drain()
        return pb.DrainResponse()


def _expiry(request: pb.CreateApiKeyRequest | pb.RotateApiKeyRequest) -> float | None:
    if not request.HasField("expire_time"):
        return None
    return expiry_of(request.expire_time, "expire_time", time.time())


def _page(found: list[T], size: int) -> tuple[list[T], bool]:
    return found[:size], len(found) > size


def _tenant(view: TenantView) -> pb.Tenant:
    row = view.row
    out = pb.Tenant(
        id=row.id,
        display_name=row.display_name,
        disabled=row.disabled,
        identities=row.identities,
        fixed=view.fixed,
    )
    fill_policy(out.policy, view.policy)
    if not view.fixed:
        _set_moment(out.create_time, row.created_at)
    return out


def _api_key(view: KeyView) -> pb.ApiKey:
    row = view.row
    out = pb.ApiKey(
        id=row.id,
        tenant_id=row.tenant,
        scopes=[scope_value(scope) for scope in SCOPES if scope in row.scopes],
        note=row.note,
        fixed=view.fixed,
    )
    if not view.fixed:
        _set_moment(out.create_time, row.created_at)
    for moment, value in (
        (out.expire_time, row.expires_at),
        (out.revoke_time, row.revoked_at),
        (out.last_use_time, row.last_used_at),
    ):
        if value is not None:
            _set_moment(moment, value)
    return out


def _set_moment(out: Timestamp, seconds: float) -> None:
    # A float of today holds no nanoseconds.
    out.FromMicroseconds(round(seconds * 1e6))
