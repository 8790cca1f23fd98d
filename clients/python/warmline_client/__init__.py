"""A typed client of Warmline: connect, converse, read what happens as it happens."""

from warmline_client._client import Client, connect
from warmline_client._conversation import Conversation
from warmline_client._errors import WarmlineError
from warmline_client._turn import Turn

__all__ = ["Client", "Conversation", "Turn", "WarmlineError", "connect"]
