"""The wire: servicers and interceptors, from protobuf to the domain and back, and nothing else."""

from warmline_service.rpc._admin import AdminServicer
from warmline_service.rpc._private import private_address
from warmline_service.rpc._server import RpcServer, build_server, read_credentials

__all__ = ["AdminServicer", "RpcServer", "build_server", "private_address", "read_credentials"]
