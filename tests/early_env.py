"""A pytest plugin, loaded before any other: sets what gRPC reads when it is imported.

gRPC's fork handlers make children die before they exec, and reading the setting late has no effect;
the pytest-grpc plugin imports gRPC before any conftest is read. And the garbage collector waits until all is
imported and collected: what it looks through meanwhile is there to stay.
"""

import gc
import os

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
gc.disable()


def pytest_collection_finish() -> None:
    """Let it work from now on as it does in the service: a tenth of the tests' time was its own."""
    from warmline_service.host import settle_memory

    settle_memory()
    gc.enable()
