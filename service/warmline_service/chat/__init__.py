"""The use case: one turn of one session on one process, told as events; queues, bounds, interrupts."""

from warmline_service.chat._answers import Allow, Change, Deny, ToolAnswer
from warmline_service.chat._catalog import Model, ModelCatalog
from warmline_service.chat._conversation import Conversation
from warmline_service.chat._conversations import Conversations
from warmline_service.chat._keys import acceptable_keys, spare_keys
from warmline_service.chat._opening import Opening
from warmline_service.chat._policy import Policy
from warmline_service.chat._ports import (
    ModelAccess,
    ModelCredential,
    Runtime,
    StoredName,
    UpstreamFault,
)
from warmline_service.chat._stream import Stream
from warmline_service.chat._tenancy import check_provider, may_ask, may_use, not_allowed

__all__ = [
    "Allow",
    "Change",
    "Conversation",
    "Conversations",
    "Deny",
    "Model",
    "ModelAccess",
    "ModelCatalog",
    "ModelCredential",
    "Opening",
    "Policy",
    "Runtime",
    "StoredName",
    "Stream",
    "ToolAnswer",
    "UpstreamFault",
    "acceptable_keys",
    "check_provider",
    "may_ask",
    "may_use",
    "not_allowed",
    "spare_keys",
]
