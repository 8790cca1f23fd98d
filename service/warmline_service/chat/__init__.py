"""The use case: one turn of one session on one process, told as events; queues, bounds, interrupts."""

from warmline_service.chat._catalog import Model, ModelCatalog
from warmline_service.chat._conversation import Conversation
from warmline_service.chat._conversations import Conversations
from warmline_service.chat._keys import acceptable_keys, spare_keys
from warmline_service.chat._outbox import Outbox
from warmline_service.chat._ports import ModelAccess, Runtime, UpstreamFault
from warmline_service.chat.events import Detail, Event, Tokens

__all__ = [
    "Conversation",
    "Conversations",
    "Detail",
    "Event",
    "Model",
    "ModelAccess",
    "ModelCatalog",
    "Outbox",
    "Runtime",
    "Tokens",
    "UpstreamFault",
    "acceptable_keys",
    "spare_keys",
]
