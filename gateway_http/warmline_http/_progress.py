"""How a turn goes on, in a few words, for streams in formats that have no event for it."""

from __future__ import annotations

from warmline.v1 import events_pb2 as pb

from warmline_http._merging import OWN_TOOL

_MOST = 128


def progress_of(event: pb.Event) -> str:
    """What an event tells of queue, tools and agents; empty for others, and for tools of the caller's."""
    match event.WhichOneof("kind"):
        case "turn_queued" if event.turn_queued.position:
            return f"queued, {event.turn_queued.position} before it"
        case "tool_call" if not event.tool_call.name.startswith(OWN_TOOL):
            return _line(f"tool {event.tool_call.name}")
        case "agent_event":
            state = pb.AgentEvent.State.Name(event.agent_event.state).removeprefix("STATE_")
            return _line(f"agent {event.agent_event.agent} {state.lower()}")
        case "notice" if event.notice.kind == pb.Notice.KIND_RETRYING:
            return "the model is asked again"
    return ""


def _line(text: str) -> str:
    # Names come from plugins and servers of others: nothing of one may look like an event.
    return "".join(each if each.isprintable() else " " for each in text)[:_MOST]
