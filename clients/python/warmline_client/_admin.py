"""The calls of AdminService."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from datetime import datetime, timedelta
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from warmline.v1 import admin_service_pb2 as pb
from warmline.v1 import admin_service_pb2_grpc as pb_grpc
from warmline.v1 import options_pb2

from warmline_client._errors import from_rpc_error
from warmline_client._moment import timestamp_of

_TIMEOUT = 30.0


class AdminCalls:
    """What operators do; the key has to have the scope `admin`. Everything raises WarmlineError."""

    def __init__(self, channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...]) -> None:
        self._metadata = metadata
        # Its types are those of the blocking API.
        self._stub: Any = pb_grpc.AdminServiceStub(channel)

    async def tenants(self) -> AsyncIterator[pb.Tenant]:
        """All tenants, in the order of their ids."""
        request = pb.ListTenantsRequest()
        while True:
            response = await self._call("ListTenants", request)
            for tenant in response.tenants:
                yield tenant
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    async def tenant(self, tenant_id: str) -> pb.Tenant:
        """One tenant."""
        return _tenant(await self._call("GetTenant", pb.GetTenantRequest(tenant_id=tenant_id)))

    async def create_tenant(self, tenant: pb.Tenant) -> pb.Tenant:
        """A new tenant."""
        return _tenant(await self._call("CreateTenant", pb.CreateTenantRequest(tenant=tenant)))

    async def update_tenant(self, tenant: pb.Tenant, fields: Collection[str]) -> pb.Tenant:
        """Change these fields of a tenant."""
        request = pb.UpdateTenantRequest(tenant=tenant, update_mask=FieldMask(paths=fields))
        return _tenant(await self._call("UpdateTenant", request))

    async def delete_tenant(self, tenant_id: str) -> None:
        """Shut a tenant out for good."""
        await self._call("DeleteTenant", pb.DeleteTenantRequest(tenant_id=tenant_id))

    async def keys(self, tenant_id: str) -> AsyncIterator[pb.ApiKey]:
        """A tenant's keys, those too that have ended."""
        request = pb.ListApiKeysRequest(tenant_id=tenant_id)
        while True:
            response = await self._call("ListApiKeys", request)
            for key in response.api_keys:
                yield key
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    async def create_key(
        self,
        tenant_id: str,
        *,
        scopes: Collection[options_pb2.Scope.ValueType] = (),
        note: str = "",
        expires: datetime | None = None,
    ) -> pb.CreateApiKeyResponse:
        """A new key; it is in the answer, and nowhere else. A time without a zone is in UTC."""
        request = pb.CreateApiKeyRequest(
            tenant_id=tenant_id, scopes=scopes, note=note, expire_time=timestamp_of(expires)
        )
        response = await self._call("CreateApiKey", request)
        assert isinstance(response, pb.CreateApiKeyResponse)
        return response

    async def rotate_key(
        self, key_id: str, *, overlap: timedelta | None = None, expires: datetime | None = None
    ) -> pb.RotateApiKeyResponse:
        """A new key in place of another, which goes on for `overlap`: by default a day."""
        request = pb.RotateApiKeyRequest(key_id=key_id, expire_time=timestamp_of(expires))
        if overlap is not None:
            duration = Duration()
            duration.FromTimedelta(overlap)
            request.overlap.CopyFrom(duration)
        response = await self._call("RotateApiKey", request)
        assert isinstance(response, pb.RotateApiKeyResponse)
        return response

    async def revoke_key(self, key_id: str) -> pb.ApiKey:
        """End a key."""
        response = await self._call("RevokeApiKey", pb.RevokeApiKeyRequest(key_id=key_id))
        assert isinstance(response, pb.RevokeApiKeyResponse)
        return response.api_key

    async def set_credential(self, request: pb.SetCredentialRequest) -> pb.StoredCredential:
        """Store a model credential for a tenant, in place of the one by its name."""
        response = await self._call("SetCredential", request)
        assert isinstance(response, pb.SetCredentialResponse)
        return response.credential

    async def credentials(self, tenant_id: str) -> AsyncIterator[pb.StoredCredential]:
        """A tenant's model credentials, without what is secret of them."""
        request = pb.ListCredentialsRequest(tenant_id=tenant_id)
        while True:
            response = await self._call("ListCredentials", request)
            for credential in response.credentials:
                yield credential
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    async def delete_credential(self, tenant_id: str, name: str) -> None:
        """Forget a model credential."""
        request = pb.DeleteCredentialRequest(tenant_id=tenant_id, name=name)
        await self._call("DeleteCredential", request)

    async def pool(self) -> pb.GetPoolResponse:
        """What the service's pool holds."""
        response = await self._call("GetPool", pb.GetPoolRequest())
        assert isinstance(response, pb.GetPoolResponse)
        return response

    async def drain(self) -> None:
        """Have the service stop, as a signal would."""
        await self._call("Drain", pb.DrainRequest())

    async def _call(self, method: str, request: Any) -> Any:
        """Once: what was done twice would make two keys."""
        try:
            call = getattr(self._stub, method)
            return await call(request, metadata=self._metadata, timeout=_TIMEOUT)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error


def _tenant(response: Any) -> pb.Tenant:
    tenant = response.tenant
    assert isinstance(tenant, pb.Tenant)
    return tenant
