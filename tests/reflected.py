"""Every method of a running service, as its reflection tells, and calls of them with any credential."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from warmline_client import WarmlineError
from warmline_client._errors import from_rpc_error

OURS = "warmline."
_TIMEOUT = 60.0
_KINDS = {
    (False, False): "unary_unary",
    (False, True): "unary_stream",
    (True, False): "stream_unary",
    (True, True): "stream_stream",
}


@dataclass(frozen=True)
class Method:
    """One method."""

    descriptor: MethodDescriptor

    @property
    def name(self) -> str:
        """`Service/Method`."""
        return f"{self.descriptor.containing_service.name}/{self.descriptor.name}"

    @property
    def path(self) -> str:
        """As it stands in a call."""
        return f"/{self.descriptor.containing_service.full_name}/{self.descriptor.name}"

    def request(self, **fields: Any) -> Message:
        """A request with these fields, by their names in the proto."""
        made = GetMessageClass(self.descriptor.input_type)()
        return json_format.ParseDict(fields, made)

    def call(self, channel: grpc.Channel, request: Message, **metadata: str) -> None:
        """Call it and read its whole answer. Raises WarmlineError."""
        one_way = (self.descriptor.client_streaming, self.descriptor.server_streaming)
        answer = GetMessageClass(self.descriptor.output_type)
        method = getattr(channel, _KINDS[one_way])(
            self.path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        headers = tuple((name.replace("_", "-"), value) for name, value in metadata.items())
        given = iter([request]) if one_way[0] else request
        try:
            called = method(given, metadata=headers, timeout=_TIMEOUT)
            if one_way[1]:
                for _ in called:
                    pass
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error  # type: ignore[arg-type]  # the blocking API's own

    def refusal(self, channel: grpc.Channel, request: Message, **metadata: str) -> str:
        """The reason for which a call is refused; it has to be."""
        try:
            self.call(channel, request, **metadata)
        except WarmlineError as error:
            return error.reason
        raise AssertionError(f"{self.name} was answered")


def reflected(channel: grpc.Channel) -> list[Method]:
    """All methods of our own services."""
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    names = [name for name in database.get_services() if name.startswith(OURS)]
    return [Method(method) for name in names for method in pool.FindServiceByName(name).methods]
