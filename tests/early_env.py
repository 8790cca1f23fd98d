"""A pytest plugin, loaded before any other: sets what gRPC reads when it is imported.

gRPC's fork handlers make children die before they exec, and reading the setting late has no effect;
the pytest-grpc plugin imports gRPC before any conftest is read.
"""

import os

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
