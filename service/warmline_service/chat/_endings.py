"""The one end of a turn: what it was, why it failed, what it used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import structs

from warmline_service.chat._ports import UpstreamFault
from warmline_service.errors import Reason, WarmlineError, field_invalid
from warmline_service.sessions import PayingCredential
from warmline_service.sessions.events import (
    CredentialRequired,
    Ending,
    Latency,
    PermissionDenial,
    StopReason,
    Tokens,
    TurnCompleted,
    TurnFailed,
    Usage,
)
from warmline_service.store import TurnRow, TurnState
from warmline_service.worker import Exit, Result, repair

_BY_STATUS = {
    401: Reason.CREDENTIAL_REJECTED,
    403: Reason.CREDENTIAL_REJECTED,
    404: Reason.MODEL_NOT_FOUND,
    413: Reason.MESSAGE_TOO_LARGE,
    429: Reason.RATE_LIMITED,
    529: Reason.UPSTREAM_OVERLOADED,
}
# The CLI's own bounds.
_BY_SUBTYPE = {
    "error_max_turns": (Reason.TURN_LIMIT_REACHED, "The turn came to its limit of requests."),
    "error_max_budget_usd": (Reason.BUDGET_EXCEEDED, "The session came to its budget."),
    "error_max_structured_output_retries": (
        Reason.OUTPUT_INVALID,
        "The answer did not take the form of the schema.",
    ),
}
# Where the provider names no time to wait, in seconds.
_RETRY_AFTER = {
    Reason.RATE_LIMITED: 10.0,
    Reason.UPSTREAM_OVERLOADED: 5.0,
    Reason.UPSTREAM_UNAVAILABLE: 5.0,
}
# The provider's refusal of a prompt, and the CLI's own before it has asked.
_CONTEXT_FULL = ("prompt_too_long", "blocking_limit")
Metered = Mapping[str, Tokens]


class _Denial(msgspec.Struct):
    tool_name: str = ""
    tool_use_id: str = ""


class _Denials(msgspec.Struct):
    permission_denials: list[_Denial] = []  # msgspec copies an empty default


class _Output(msgspec.Struct):
    structured_output: dict[str, Any] | None = None


def withheld(error: WarmlineError | None) -> Ending:
    """The end of a turn that was stopped before it had begun."""
    if error is not None:
        return TurnFailed(error)
    return TurnCompleted(StopReason.INTERRUPTED, "", Usage(), None)


def abandoned(row: TurnRow) -> TurnFailed:
    """The end of a turn that an earlier service left without one."""
    began = row.state is TurnState.RUNNING
    text = (
        "The service ended while this turn ran."
        if began
        else "The service ended before this turn began; nothing of it was run."
    )
    metadata = {"started": str(began).lower()}
    error = WarmlineError(Reason.CLI_CRASHED, text, metadata=metadata, retry_after=1.0)
    return TurnFailed(error, key=row.key)


def completed(
    end: Result, latency: Latency, before: Metered, after: Metered, requests: int
) -> TurnCompleted:
    """The good end of a turn, or its interruption."""
    return TurnCompleted(
        _stop_reason(end),
        end.result or "",
        _usage(end, before, after),
        latency,
        _denials(end),
        requests,
        _output(end),
    )


def failed(
    error: WarmlineError, end: Result | Exit, latency: Latency, before: Metered, after: Metered
) -> TurnFailed:
    """The bad end of a turn."""
    result = end if isinstance(end, Result) else None
    return TurnFailed(error, usage=_usage(result, before, after), latency=latency)


def failure_of(end: Result | Exit, fault: UpstreamFault | None) -> WarmlineError | None:
    """Why a turn failed by itself; None where it did not."""
    if isinstance(end, Exit):
        return end.error()
    if not end.failed or end.interrupted:
        return None
    if fault is not None and fault.denied is not None:
        return fault.denied
    text = end.result or "; ".join(end.errors) or "The turn failed."
    if end.subtype in _BY_SUBTYPE:
        return WarmlineError(*_BY_SUBTYPE[end.subtype])
    if end.terminal_reason in _CONTEXT_FULL:
        return WarmlineError(Reason.MESSAGE_TOO_LARGE, text)
    status = end.api_error_status or (fault.status if fault else None)
    if end.terminal_reason != "api_error" and status is None:
        return WarmlineError(
            Reason.CLI_CRASHED,
            text,
            metadata={"subtype": end.subtype, "terminalReason": end.terminal_reason or ""},
        )
    if status == 400:
        return field_invalid("message", f"the model provider refused it: {text}")
    reason = _BY_STATUS.get(status or 0, Reason.UPSTREAM_UNAVAILABLE)
    wait = fault.retry_after if fault else None
    return WarmlineError(
        reason,
        text,
        metadata={"upstreamStatus": str(status or "none")},
        retry_after=wait if wait is not None else _RETRY_AFTER.get(reason),
    )


def required_credential(
    credential: PayingCredential, fault: UpstreamFault | None
) -> CredentialRequired | None:
    """What to tell of a credential that was refused; None where it is the operator's."""
    if credential.names:
        text = "The model provider does not accept the session's credential: send another one by `update`."
        return CredentialRequired(text)
    if fault is not None and fault.denied is not None:
        return CredentialRequired(fault.denied.message, fault.paid_with)
    if fault is None or not fault.paid_with:
        return None
    text = (
        f"The model provider does not accept the stored credential {fault.paid_with}: have the operator "
        "store it again (SetCredential), or send another one by `update`."
    )
    return CredentialRequired(text, fault.paid_with)


def unformed(ending: TurnCompleted, schema: Mapping[str, Any] | None) -> WarmlineError | None:
    """Why an answer is not of the form that was asked for; None where it is, or none was.

    An interrupted turn has no answer.
    """
    if schema is None or ending.stop_reason is StopReason.INTERRUPTED:
        return None
    if ending.output is not None:
        return None  # The CLI has held it against the schema.
    return WarmlineError(Reason.OUTPUT_INVALID, "The answer did not take the form of the schema.")


def with_earlier(ending: Ending, used: Usage, requests: int) -> Ending:
    """The end of a turn that was in other processes before, with what it used there."""
    whole = structs.replace(ending, usage=ending.usage.plus(used))
    if isinstance(whole, TurnCompleted):
        return structs.replace(whole, model_requests=whole.model_requests + requests)
    return whole


def _stop_reason(end: Result) -> StopReason:
    if end.interrupted:
        return StopReason.INTERRUPTED
    try:
        return StopReason(end.stop_reason or "unspecified")
    except ValueError:
        return StopReason.UNSPECIFIED


def _usage(end: Result | None, before: Metered, after: Metered) -> Usage:
    """The turn's own: from the CLI, which knows the cost; from the meter where the CLI says nothing."""
    if end is not None and end.turn_usage:
        return Usage(
            {
                model: Tokens(
                    used.input_tokens,
                    used.output_tokens,
                    used.cache_read_input_tokens,
                    used.cache_creation_input_tokens,
                    used.cost_usd,
                )
                for model, used in end.turn_usage.items()
            }
        )
    return used_between(before, after)


def used_between(before: Metered, after: Metered) -> Usage:
    """What a process has used between two moments, as its meter says."""
    grown = {model: _minus(used, before.get(model, Tokens())) for model, used in after.items()}
    return Usage({model: used for model, used in grown.items() if used != Tokens()})


def _minus(after: Tokens, before: Tokens) -> Tokens:
    return Tokens(
        after.input - before.input,
        after.output - before.output,
        after.cache_read - before.cache_read,
        after.cache_creation - before.cache_creation,
    )


def _denials(end: Result) -> tuple[PermissionDenial, ...]:
    try:
        found = msgspec.json.decode(repair(end.line), type=_Denials)
    except msgspec.MsgspecError:
        return ()  # A shape of a later CLI: the turn's tool results tell the same.
    return tuple(
        PermissionDenial(each.tool_name, each.tool_use_id) for each in found.permission_denials
    )


def _output(end: Result) -> Mapping[str, Any] | None:
    try:
        return msgspec.json.decode(repair(end.line), type=_Output).structured_output
    except (msgspec.MsgspecError, RecursionError):
        return None  # No session of ours asks for another form than an object.
