"""A typed client of Warmline: connect, converse, read what happens as it happens."""

from warmline_client._client import Client, connect
from warmline_client._conversation import Conversation, Turn
from warmline_client._errors import WarmlineError

__all__ = ["Client", "Conversation", "Turn", "WarmlineError", "connect"]
