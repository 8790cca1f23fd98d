"""Events: which of them end a turn, and in how much detail they are told."""

from __future__ import annotations

from typing import Literal

from warmline.v1 import chat_service_pb2 as pb

# The kinds of event that end a turn.
ENDS = ("turn_completed", "turn_failed")
# As callers say it, and as the service has it.
Detail = Literal["text", "blocks", "raw"]
DETAIL = {
    "text": pb.DETAIL_TEXT,
    "blocks": pb.DETAIL_BLOCKS,
    "raw": pb.DETAIL_RAW,
}
