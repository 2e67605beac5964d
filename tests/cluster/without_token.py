"""What a process without a token is told by whatever listens.

    python -m tests.cluster.without_token 10.0.0.1:6379 10.0.0.1:8076

This prints, as JSON, how each call of Ray's services ends at each address, and the first line that
a web browser gets there.
"""

from __future__ import annotations

import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

NODES = "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo"
# Calls of every kind of process; an empty message asks for everything, or does nothing.
CALLS = [
    NODES,
    "/ray.rpc.InternalKVGcsService/InternalKVKeys",
    "/ray.rpc.JobInfoGcsService/GetAllJobInfo",
    "/ray.rpc.ActorInfoGcsService/GetAllActorInfo",
    "/ray.rpc.NodeManagerService/GetNodeStats",
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.CoreWorkerService/GetCoreWorkerStats",
    "/ray.rpc.CoreWorkerService/PushTask",
    "/ray.rpc.reporter.ReporterService/GetTraceback",
]
_AT_ONCE = 16
_REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def answer(at: tuple[str, int], call: str, token: str | None = None) -> grpc.StatusCode:
    """How a call ends, with a token or without."""
    metadata = [("authorization", f"Bearer {token}")] if token else []
    # gRPC listens on IPv4 addresses by way of IPv6, and cannot be called by that name.
    address = at[0].removeprefix("::ffff:")
    with grpc.insecure_channel(f"{address}:{at[1]}") as channel:
        try:
            channel.unary_unary(call)(b"", timeout=5, metadata=metadata)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def page(at: tuple[str, int]) -> str:
    """The first line of a web page; empty if there is none. Something must listen there."""
    with socket.create_connection(at, timeout=5) as connection:
        connection.settimeout(2)
        connection.sendall(_REQUEST)
        try:
            said = connection.recv(100)
        except OSError:
            return ""
    return said.decode(errors="replace").partition("\r\n")[0] if said.startswith(b"HTTP") else ""


def refuses(line: str) -> bool:
    """Whether the first line of a web page refuses, or there is no page."""
    return not line or " 401 " in line or " 404 " in line


def main() -> None:
    places = [(word.rpartition(":")[0], int(word.rpartition(":")[2])) for word in sys.argv[1:]]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        told = {(at, call): pool.submit(answer, at, call) for at in places for call in CALLS}
        pages = {at: pool.submit(page, at) for at in places}
    found = {
        f"{at[0]}:{at[1]}": {
            "calls": {call: told[at, call].result().name for call in CALLS},
            "page": pages[at].result(),
        }
        for at in places
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
