"""ModelService on the wire."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Any

import grpc
import msgspec
from warmline.v1 import model_service_pb2 as pb
from warmline.v1 import model_service_pb2_grpc as pb_grpc

from warmline_service.chat import Model, ModelCatalog, check_provider, may_ask, may_use, not_allowed
from warmline_service.config import Settings
from warmline_service.errors import field_invalid
from warmline_service.quota import Quota
from warmline_service.rpc._count import TokenCounter, countable
from warmline_service.rpc._deserialize import checked
from warmline_service.rpc._interceptors import principal
from warmline_service.rpc._listing import page_size_of

_VERSION = version("warmline")


class ModelServicer(pb_grpc.ModelServiceServicer):
    """`ModelService` over the catalog: of each tenant what it may use."""

    def __init__(
        self, catalog: ModelCatalog, settings: Settings, quota: Quota, counter: TokenCounter
    ) -> None:
        provider, audit = settings.provider.kind, settings.audit
        self._counter = counter
        self._limit = settings.limits.message_bytes
        self._index = {model.id: _wire(model, provider) for model in catalog.models}
        self._catalog = catalog
        self._quota = quota
        self._provider = provider
        self._routing = pb.GetRoutingResponse(
            version=_VERSION,
            providers=[provider],
            default_model=catalog.default.id,
            audit=pb.AuditSwitches(
                enabled=audit.enabled,
                request_bodies=audit.enabled and audit.request_bodies,
                response_bodies=audit.enabled and audit.response_bodies,
            ),
        )

    async def ListModels(
        self, request: pb.ListModelsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListModelsResponse:
        """A page of the models, the default first."""
        checked(request)
        size = page_size_of(request.page_size)
        token = request.page_token
        if token and not (token.isascii() and token.isdigit() and len(token) < 10):
            raise field_invalid("page_token", "is not a token that this service gave")
        begin = int(token or 0)
        end = begin + size
        policy = await self._quota.policy(principal().tenant)
        models = self._catalog.models if may_ask(policy, self._provider) else ()
        allowed = [each.id for each in models if may_use(policy, each)]
        return pb.ListModelsResponse(
            models=[self._index[each] for each in allowed[begin:end]],
            next_page_token=str(end) if end < len(allowed) else "",
        )

    async def GetModel(
        self, request: pb.GetModelRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetModelResponse:
        """One model, by name, id or alias."""
        checked(request)
        name = request.name.removeprefix("models/")
        if not name:
            raise field_invalid("name", "must not be empty")
        model = await self._allowed(name)
        return pb.GetModelResponse(model=self._index[model.id])

    async def CountTokens(
        self, request: pb.CountTokensRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.CountTokensResponse:
        """How many tokens a request would have."""
        del context
        checked(request)
        asked = await asyncio.to_thread(countable, request.body, self._limit)
        model = await self._allowed(asked.get("model", ""))
        body = await asyncio.to_thread(msgspec.json.encode, asked | {"model": model.id})
        counted = await self._counter.count(principal().tenant, body)
        return pb.CountTokensResponse(input_tokens=counted)

    async def _allowed(self, name: str) -> Model:
        model = self._catalog.resolve(name)
        policy = await self._quota.policy(principal().tenant)
        check_provider(policy, self._provider)
        if not may_use(policy, model):
            raise not_allowed(model)
        return model

    async def GetRouting(
        self, request: pb.GetRoutingRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetRoutingResponse:
        """Where messages go, and what is kept of them."""
        del context
        checked(request)
        return self._routing


def _wire(model: Model, provider: str) -> pb.Model:
    return pb.Model(
        name=f"models/{model.id}",
        id=model.id,
        aliases=model.aliases,
        display_name=model.display_name,
        description=model.description,
        provider=provider,
        effort_levels=model.effort_levels,
        is_default=model.is_default,
    )
