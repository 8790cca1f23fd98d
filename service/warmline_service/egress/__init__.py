"""The one way out of a slot: its socket says whose it is, and the credential is put in here."""

from warmline_service.egress._account import Access
from warmline_service.egress._anthropic import AnthropicProvider
from warmline_service.egress._count import TokenCounter
from warmline_service.egress._credential import Credential, operator_credential
from warmline_service.egress._egress import Egress
from warmline_service.egress._faults import UpstreamError
from warmline_service.egress._make import make_provider
from warmline_service.egress._meter import Meter, Tokens
from warmline_service.egress._outlet import Outlet, Target
from warmline_service.egress._provider import Provider
from warmline_service.egress._session_access import EgressAccess
from warmline_service.egress._way import Bounds, Way
from warmline_service.egress.loopback import LoopbackBehaviour, LoopbackModel, serve_loopback

__all__ = [
    "Access",
    "AnthropicProvider",
    "Bounds",
    "Credential",
    "Egress",
    "EgressAccess",
    "LoopbackBehaviour",
    "LoopbackModel",
    "Meter",
    "Outlet",
    "Provider",
    "Target",
    "TokenCounter",
    "Tokens",
    "UpstreamError",
    "Way",
    "make_provider",
    "operator_credential",
    "serve_loopback",
]
