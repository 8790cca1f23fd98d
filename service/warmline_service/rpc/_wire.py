"""From the domain to the wire: one function for each event of the contract."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from warmline.v1 import events_pb2 as pb
from warmline.v1 import session_config_pb2 as config_pb

from warmline_service.rpc._status import status_of
from warmline_service.rpc._struct import fill_struct
from warmline_service.rpc._wire_config import MODES
from warmline_service.sessions import events
from warmline_service.sessions.events import Event

_START = {
    None: pb.START_KIND_UNSPECIFIED,
    events.Start.HOT: pb.START_KIND_HOT,
    events.Start.WARM: pb.START_KIND_WARM,
    events.Start.COLD: pb.START_KIND_COLD,
    events.Start.RESUMED: pb.START_KIND_RESUMED,
}
_STOP = {reason: getattr(pb, f"STOP_REASON_{reason.name}") for reason in events.StopReason}
_APPROVAL = {
    outcome: getattr(pb.ApprovalResolved, f"OUTCOME_{outcome.name}")
    for outcome in events.ApprovalOutcome
}
_CALL = {
    outcome: getattr(pb.ClientToolReturned, f"OUTCOME_{outcome.name}")
    for outcome in events.CallOutcome
}
OUTCOME = {
    outcome: getattr(pb.InterruptResult, f"OUTCOME_{outcome.name}")
    for outcome in events.InterruptOutcome
}
_NOTICE = {
    kind: getattr(pb.Notice, f"KIND_{kind.name}", pb.Notice.KIND_UNSPECIFIED)
    for kind in events.NoticeKind
}


def wire_events(batch: Iterable[Event]) -> Iterator[pb.Event]:
    """Events as they travel, one by one: a long backlog must not hold the loop up."""
    return map(_event, batch)


def _event(event: Event) -> pb.Event:
    out = pb.Event()
    fill_event(out, event)
    return out


def fill_event(out: pb.Event, event: Event) -> None:
    """One event as it travels, into an empty message: one that is copied nowhere is cheaper."""
    out.session_id = event.session_id
    out.turn_id = event.turn_id
    out.epoch = event.epoch
    out.seq = event.seq
    if event.parent:
        out.parent_tool_call_id = event.parent
    fill_time(out.time, event.time)
    field, fill = _FILL[type(event.body)]
    part = getattr(out, field)
    part.SetInParent()
    fill(part, event.body)


def fill_time(out: Timestamp, time: float) -> None:
    """A moment, in seconds since the epoch (Unix); Timestamp's own helpers are Python, and slow."""
    seconds = int(time)
    out.seconds = seconds
    out.nanos = int((time - seconds) * 1e9)


def _duration(out: Duration, seconds: float | None) -> None:
    if seconds is not None:
        out.FromNanoseconds(max(0, int(seconds * 1e9)))


def _latency(out: pb.LatencyReceipt, latency: events.Latency | None) -> None:
    if latency is None:
        return
    out.start = _START[latency.start]
    out.misses.extend(latency.misses)
    for name in ("queue", "spawn", "bind", "history", "mcp", "cli", "first_token", "total"):
        seconds = getattr(latency, name)
        if seconds is not None:
            _duration(getattr(out, name), seconds)


def _tokens(out: pb.Usage, tokens: events.Tokens) -> None:
    out.input_tokens = tokens.input
    out.output_tokens = tokens.output
    out.cache_read_input_tokens = tokens.cache_read
    out.cache_creation_input_tokens = tokens.cache_creation
    out.cost_usd = tokens.cost_usd


def _usage(out: pb.Usage, usage: events.Usage) -> None:
    _tokens(out, usage.total)
    for model, tokens in usage.by_model.items():
        _tokens(out.by_model[model], tokens)


def _opened(out: pb.SessionOpened, body: events.SessionOpened) -> None:
    out.session_id = body.session_id
    out.start = _START[body.start]
    out.model = body.model
    out.cli_version = body.cli_version
    out.last_seq = body.last_seq
    out.epoch = body.epoch
    out.running_turn_id = body.running_turn_id
    out.continued = body.continued
    for asked in body.approvals:
        wire_approval(out.open_approvals.add(), asked)
    for called in body.client_calls:
        _client_call(out.open_client_calls.add(), called)
    for status in body.servers:
        _server(out.mcp_servers.add(), status)


def _updated(out: pb.SessionUpdated, body: events.SessionUpdated) -> None:
    out.model = body.model
    out.permission_mode = MODES.get(body.permission_mode, config_pb.PERMISSION_MODE_DEFAULT)


def _checkpointed(out: pb.Checkpointed, body: events.Checkpointed) -> None:
    out.continuations.extend(body.continuations)


def _draining(out: pb.ServerDraining, body: events.ServerDraining) -> None:
    _duration(out.retry_after, body.retry_after)
    out.epoch = body.epoch
    out.seq = body.seq


def _queued(out: pb.TurnQueued, body: events.TurnQueued) -> None:
    out.position = body.position
    out.idempotency_key = body.key
    out.text = body.text


def _attached(out: pb.TurnAttached, body: events.TurnAttached) -> None:
    out.idempotency_key = body.key


def _started(out: pb.TurnStarted, body: events.TurnStarted) -> None:
    _latency(out.latency, body.latency)


def _completed(out: pb.TurnCompleted, body: events.TurnCompleted) -> None:
    out.stop_reason = _STOP[body.stop_reason]
    out.result = body.result
    out.model_requests = body.model_requests
    if body.output is not None:
        fill_struct(out.structured_output, body.output)
    _usage(out.usage, body.usage)
    _latency(out.latency, body.latency)
    for denial in body.denials:
        out.permission_denials.add(tool_name=denial.tool_name, tool_call_id=denial.tool_call_id)


def _failed(out: pb.TurnFailed, body: events.TurnFailed) -> None:
    out.status.CopyFrom(status_of(body.error))
    out.context_lost = body.context_lost
    out.idempotency_key = body.key
    _usage(out.usage, body.usage)
    _latency(out.latency, body.latency)


def _interrupt(out: pb.InterruptResult, body: events.InterruptResult) -> None:
    out.outcome = OUTCOME[body.outcome]


def _text(out: pb.TextDelta | pb.ThinkingDelta, body: events.TextDelta) -> None:
    out.text = body.text
    out.block_index = body.block


def _tool_input(out: pb.ToolInputDelta, body: events.ToolInputDelta) -> None:
    out.partial_json = body.text
    out.block_index = body.block


def _tool_call(out: pb.ToolCall, body: events.ToolCall) -> None:
    out.id = body.id
    out.name = body.name
    fill_struct(out.input, body.input)


def _tool_result(out: pb.ToolResult, body: events.ToolResult) -> None:
    out.tool_call_id = body.tool_call_id
    out.text = body.text
    out.is_error = body.is_error


def wire_approval(out: pb.ApprovalRequested, body: events.ApprovalRequested) -> None:
    """Fill in what needs a yes."""
    out.approval_id = body.id
    out.tool_name = body.tool_name
    fill_struct(out.input, body.input)
    out.tool_call_id = body.tool_call_id
    out.description = body.description
    for suggestion in body.suggestions:
        fill_struct(out.suggestions.add(), suggestion)
    out.expire_time.FromNanoseconds(int(body.expires_at * 1e9))


def _resolved(out: pb.ApprovalResolved, body: events.ApprovalResolved) -> None:
    out.approval_id = body.id
    out.outcome = _APPROVAL[body.outcome]


def _client_call(out: pb.ClientToolCalled, body: events.ClientToolCalled) -> None:
    out.call_id = body.id
    out.name = body.name
    fill_struct(out.input, body.input)
    out.tool_call_id = body.tool_call_id
    out.expire_time.FromNanoseconds(int(body.expires_at * 1e9))


def _client_return(out: pb.ClientToolReturned, body: events.ClientToolReturned) -> None:
    out.call_id = body.id
    out.outcome = _CALL[body.outcome]


def _server(out: pb.McpServerStatus, body: events.ServerStatus) -> None:
    out.name = body.name
    out.state = pb.McpServerStatus.State.Value(f"STATE_{body.state.upper()}")
    out.error = body.error
    out.tools.extend(body.tools)


def _credential(out: pb.CredentialRequired, body: events.CredentialRequired) -> None:
    out.message = body.message
    out.name = body.name


def _message(out: pb.Message, body: events.Message) -> None:
    out.id = body.id
    out.model = body.model
    out.aborted = body.aborted
    for block in body.content:
        _block(out.content.add(), block)


def _block(out: pb.ContentBlock, block: events.Block) -> None:
    match block:
        case events.TextBlock(text):
            out.text = text
        case events.ThinkingBlock(text, signature):
            out.thinking.text = text
            out.thinking.signature = signature
        case events.ToolCall():
            _tool_call(out.tool_call, block)
        case events.OtherBlock(content):
            fill_struct(out.other, content)


def _agent(out: pb.AgentEvent, body: events.AgentEvent) -> None:
    out.tool_call_id = body.tool_call_id
    out.agent = body.agent
    out.state = pb.AgentEvent.State.Value(f"STATE_{body.state.name}")
    out.text = body.text
    out.last_tool = body.last_tool
    out.tool_calls = body.tool_calls
    out.tokens = body.tokens
    _duration(out.duration, body.seconds)


def _notice(out: pb.Notice, body: events.Notice) -> None:
    out.kind = _NOTICE[body.kind]
    out.code = body.code
    out.message = body.message
    for name, value in body.metadata.items():
        out.metadata[name] = value


def _debug_log(out: pb.DebugLog, body: events.DebugLog) -> None:
    out.text = body.text
    out.dropped_bytes = body.dropped


def _raw(out: pb.Raw, body: events.Raw) -> None:
    out.type = body.type
    out.json = body.json


_FILL: dict[type, tuple[str, Callable[[Any, Any], None]]] = {
    events.SessionOpened: ("session_opened", _opened),
    events.SessionUpdated: ("session_updated", _updated),
    events.Checkpointed: ("checkpointed", _checkpointed),
    events.ServerDraining: ("server_draining", _draining),
    events.TurnQueued: ("turn_queued", _queued),
    events.TurnAttached: ("turn_attached", _attached),
    events.TurnStarted: ("turn_started", _started),
    events.TurnCompleted: ("turn_completed", _completed),
    events.TurnFailed: ("turn_failed", _failed),
    events.InterruptResult: ("interrupt_result", _interrupt),
    events.ApprovalRequested: ("approval_requested", wire_approval),
    events.ApprovalResolved: ("approval_resolved", _resolved),
    events.ClientToolCalled: ("client_tool_called", _client_call),
    events.ClientToolReturned: ("client_tool_returned", _client_return),
    events.CredentialRequired: ("credential_required", _credential),
    events.ServerStatus: ("mcp_server_status", _server),
    events.TextDelta: ("text_delta", _text),
    events.ThinkingDelta: ("thinking_delta", _text),
    events.ToolInputDelta: ("tool_input_delta", _tool_input),
    events.Message: ("message", _message),
    events.ToolCall: ("tool_call", _tool_call),
    events.ToolResult: ("tool_result", _tool_result),
    events.AgentEvent: ("agent_event", _agent),
    events.Notice: ("notice", _notice),
    events.DebugLog: ("debug_log", _debug_log),
    events.Raw: ("raw", _raw),
}
