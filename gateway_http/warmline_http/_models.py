"""`/v1/models`, in OpenAI's shape, or in Anthropic's for who names a version of that API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from warmline.v1 import model_service_pb2 as model_pb

from warmline_http._call import Asked, Call
from warmline_http._failure import Failure
from warmline_http._shapes import Shape

router = APIRouter(tags=["models"])

_PAGE = 1000
# When a model came out is not known: both APIs want some time.
_EPOCH = "1970-01-01T00:00:00Z"
_Id = Annotated[str, Query(max_length=256)]


@router.get("/v1/models")
async def list_models(
    call: Asked,
    limit: Annotated[int, Query(ge=1, le=_PAGE)] = 20,
    after_id: _Id = "",
    before_id: _Id = "",
) -> dict[str, Any]:
    """The models that the caller may use, the default first.

    OpenAI's list is whole. Anthropic's, with the header `anthropic-version`, comes in pages of `limit`.
    """
    models = await _all(call)
    if call.shape is Shape.OPENAI:
        return {"object": "list", "data": [_openai(each) for each in models]}
    begin, end = 0, len(models)
    if after_id:
        begin = _place(models, after_id, "after_id") + 1
    if before_id:
        end = _place(models, before_id, "before_id")
    rest = models[begin:end]
    # Before an id: those next to it.
    page = rest[-limit:] if before_id and not after_id else rest[:limit]
    return {
        "data": [_anthropic(each) for each in page],
        "first_id": page[0].id if page else None,
        "last_id": page[-1].id if page else None,
        "has_more": len(page) < len(rest),
    }


@router.get("/v1/models/{model_id:path}")
async def get_model(
    call: Asked, model_id: Annotated[str, Path(min_length=1, max_length=256)]
) -> dict[str, Any]:
    """One model, by its id or alias."""
    request = model_pb.GetModelRequest(name=model_id)
    model = (await call.unary("models", "GetModel", request)).model
    return _openai(model) if call.shape is Shape.OPENAI else _anthropic(model)


async def _all(call: Call) -> Sequence[model_pb.Model]:
    models: list[model_pb.Model] = []
    request = model_pb.ListModelsRequest(page_size=_PAGE)
    while True:
        answer = await call.unary("models", "ListModels", request)
        models += answer.models
        if not answer.next_page_token:
            return models
        request.page_token = answer.next_page_token


def _place(models: Sequence[model_pb.Model], model_id: str, field: str) -> int:
    for place, model in enumerate(models):
        if model.id == model_id:
            return place
    raise Failure.field(field, "is the id of no model here")


def _openai(model: model_pb.Model) -> dict[str, Any]:
    return {"id": model.id, "object": "model", "created": 0, "owned_by": model.provider}


def _anthropic(model: model_pb.Model) -> dict[str, Any]:
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.display_name,
        "created_at": _EPOCH,
        "lifecycle": "active",
    }
