"""What every call passes on its way in: a request id, authentication, and a guard over its errors.

The library wraps a streaming handler into a generator at each interceptor, so only the innermost one
sees a handler's errors: that is the guard.
"""

from __future__ import annotations

import asyncio
import contextvars
import re
import uuid
from collections.abc import Callable
from typing import Any

import grpc
import structlog
from grpc_interceptor.server import AsyncServerInterceptor

from warmline_service.audit import UNKNOWN, Caller, set_caller
from warmline_service.errors import Reason, WarmlineError
from warmline_service.rpc._call_audit import CallAudit
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
        given = _metadata(context, "x-request-id") or ""
        identifier = given if _REQUEST_ID.fullmatch(given) else str(uuid.uuid4())
        _request_id.set(identifier)
        set_caller(Caller(actor=UNKNOWN, request_id=identifier))
        structlog.contextvars.bind_contextvars(request_id=identifier, method=method_name)
        return await _forward(method, request_or_iterator, context)


class Authentication(AsyncServerInterceptor):
    """Resolves the caller, so that no servicer sees an unauthenticated call."""

    def __init__(self, authenticator: Authenticator, audit: CallAudit) -> None:
        self._authenticator = authenticator
        self._audit = audit

    async def intercept(
        self, method: Callable[..., Any], request_or_iterator: Any, context: Any, method_name: str
    ) -> Any:
        """Authenticate, unless the method is open to all."""
        if not method_name.startswith(_OPEN):
            try:
                caller = await self._authenticator.authenticate(_metadata(context, "authorization"))
            except WarmlineError as error:
                _log.info("call refused", reason=error.reason.value)
                self._audit.turned_away(error, context, method_name)
                await abort(context, error)
            _principal.set(caller)
            set_caller(Caller(caller.tenant, caller.key_id, request_id()))
            structlog.contextvars.bind_contextvars(tenant=caller.tenant)
        return await _forward(method, request_or_iterator, context)


class Guard(AsyncServerInterceptor):
    """Turns what a handler raises into a status that says nothing it should not."""

    def __init__(self, audit: CallAudit) -> None:
        self._audit = audit

    async def intercept(
        self, method: Callable[..., Any], request_or_iterator: Any, context: Any, method_name: str
    ) -> Any:
        """Map errors; an unknown one leaves as an id whose text is in the log."""
        try:
            return await self._served(method, request_or_iterator, context, method_name)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Not this call's own cancellation: without a status the caller would wait for ever.
            await abort(context, WarmlineError(Reason.TURN_CANCELLED, "Cancelled on the server."))
        except grpc.aio.AbortError:
            raise
        except WarmlineError as error:
            _log.info("call failed", reason=error.reason.value, detail=error.message)
            self._audit.refused(error, context, method_name)
            await self._audit.acted(request_or_iterator, method_name, error.reason.value)
            await abort(context, error)
        except Exception:  # noqa: BLE001  # the last one before the wire
            identifier = request_id()
            _log.exception("call failed by a fault of the service", error_id=identifier)
            await abort(
                context,
                WarmlineError(Reason.INTERNAL, "Internal error.", metadata={"errorId": identifier}),
            )

    async def _served(
        self, method: Callable[..., Any], request: Any, context: Any, method_name: str
    ) -> Any:
        response = await _forward(method, request, context)
        await self._audit.acted(request, method_name)
        return response


def _metadata(context: Any, name: str) -> str | None:
    for key, value in context.invocation_metadata() or ():
        if key == name:
            return value if isinstance(value, str) else None
    return None
