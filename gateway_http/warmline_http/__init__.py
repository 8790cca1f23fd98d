"""The HTTP shim: a client of the gRPC service that forwards and translates, and keeps nothing."""

import os

# gRPC's fork support is of no use here; it is read when grpc is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
