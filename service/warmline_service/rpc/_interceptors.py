"""What every call passes on its way in: a request id, authentication, and a guard over its errors.

The library wraps a streaming handler into a generator at each interceptor, so only the innermost one
sees a handler's errors: that is the guard.
"""

from __future__ import annotations

import asyncio
import contextvars
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import grpc
import structlog
from grpc_interceptor.server import AsyncServerInterceptor

from warmline_service.errors import Reason, WarmlineError
from warmline_service.quota import Quota, slow_down
from warmline_service.rpc._open_calls import OpenCall, OpenCalls
from warmline_service.rpc._shown import metadata, shown_by
from warmline_service.rpc._status import abort
from warmline_service.tenants import Authenticator, Principal

_log = structlog.get_logger(__name__)

# A caller's own request id is kept when it cannot break a log line.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# What may be called without a key: these say nothing about any tenant.
_OPEN = ("/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/")

_request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id")
_principal: contextvars.ContextVar[Principal] = contextvars.ContextVar("principal")


def request_id() -> str:
    """The id of the call that is being served."""
    return _request_id.get()


def principal() -> Principal:
    """Who makes the call that is being served."""
    return _principal.get()


async def _forward(method: Callable[..., Any], request: Any, context: Any) -> Any:
    response = method(request, context)
    return response if hasattr(response, "__aiter__") else await response


class RequestId(AsyncServerInterceptor):
    """Gives each call an id, the caller's own `x-request-id` where it is well-formed."""

    async def intercept(
        self, method: Callable[..., Any], request_or_iterator: Any, context: Any, method_name: str
    ) -> Any:
        """Set the id for the handler and the logs."""
        given = metadata(context, "x-request-id")
        identifier = given if _REQUEST_ID.fullmatch(given) else str(uuid.uuid4())
        _request_id.set(identifier)
        structlog.contextvars.bind_contextvars(request_id=identifier, method=method_name)
        return await _forward(method, request_or_iterator, context)


class Authentication(AsyncServerInterceptor):
    """Resolves the caller, so that no servicer sees a call of somebody unknown, without its scope, or one
    too many.

    `scopes` has the scope of each method by its path; what is neither there nor open to all is refused.
    """

    def __init__(
        self, authenticator: Authenticator, scopes: Mapping[str, str], quota: Quota
    ) -> None:
        self._authenticator = authenticator
        self._scopes = scopes
        self._quota = quota

    async def intercept(
        self, method: Callable[..., Any], request_or_iterator: Any, context: Any, method_name: str
    ) -> Any:
        """Authenticate and check the scope, unless the method is open to all."""
        if not method_name.startswith(_OPEN):
            try:
                caller = await self._authenticator.authenticate(shown_by(context))
                structlog.contextvars.bind_contextvars(tenant=caller.tenant, by=caller.by)
                caller.require(self._scopes[method_name])
                await self._quota.request(caller.tenant)
            except WarmlineError as error:
                _log.info("call refused", reason=error.reason.value, peer=context.peer())
                await slow_down(error)
                await abort(context, error)
            except Exception:  # noqa: BLE001  # whatever it is, nobody comes in
                await _own_fault(context)
            _principal.set(caller)
        return await _forward(method, request_or_iterator, context)


class Guard(AsyncServerInterceptor):
    """Turns what a handler raises into a status that says nothing it should not.

    Being the only one who sees a call to its end, it also tells `calls` of each.
    """

    def __init__(self, calls: OpenCalls) -> None:
        self._calls = calls

    async def intercept(
        self, method: Callable[..., Any], request_or_iterator: Any, context: Any, method_name: str
    ) -> Any:
        """Map errors; an unknown one leaves as an id whose text is in the log."""
        with self._calls.one_more(_principal.get(None)) as call:
            return await self._guarded(method, request_or_iterator, context, call)

    async def _guarded(
        self, method: Callable[..., Any], request: Any, context: Any, call: OpenCall
    ) -> Any:
        try:
            return await _forward(method, request, context)
        except asyncio.CancelledError:
            if call.ended is not None and not call.task.uncancel():
                await abort(context, call.ended)
            if call.task.cancelling():
                raise
            # Not this call's own cancellation: without a status the caller would wait for ever.
            await abort(context, WarmlineError(Reason.TURN_CANCELLED, "Cancelled on the server."))
        except grpc.aio.AbortError:
            raise
        except WarmlineError as error:
            _log.info("call failed", reason=error.reason.value, detail=error.message)
            await slow_down(error)
            await abort(context, error)
        except Exception:  # noqa: BLE001  # the last one before the wire
            await _own_fault(context)


async def _own_fault(context: Any) -> NoReturn:
    """End the call; what it was is in the log alone. Call it where an exception is being handled."""
    identifier = request_id()
    _log.exception("call failed by a fault of the service", error_id=identifier)
    error = WarmlineError(Reason.INTERNAL, "Internal error.", metadata={"errorId": identifier})
    await abort(context, error)
