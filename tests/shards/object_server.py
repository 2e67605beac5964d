"""Object stores to test against: moto's S3 server in its own process, and a proxy with faults.

Run as a program it is that server: it prints its port and serves until its input is closed, so it
ends with whoever started it, however that ends.
"""

from __future__ import annotations

import atexit
import contextlib
import http.client
import re
import socket
import subprocess
import sys
import threading
import uuid
from dataclasses import dataclass
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from tests.processes import ENVIRONMENT, ROOT
from tests.waiting import PATIENCE

LOCAL = "127.0.0.1"
_BETWEEN_HOPS = {"connection", "content-length", "keep-alive", "transfer-encoding"}


def main() -> None:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(LOCAL, 0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)
    sys.stdin.read()


@cache
def s3_port() -> int:
    """The port of an S3 server that lives as long as this process."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.shards.object_server"],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )

    def stop() -> None:
        server.kill()
        server.wait()

    atexit.register(stop)
    assert server.stdout is not None
    return int(server.stdout.readline())


def s3_client() -> Any:
    """boto3's client of that server, past any proxy."""
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=f"http://{LOCAL}:{s3_port()}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


def new_bucket(objects: dict[str, bytes], public: bool = False) -> str:
    """Make a bucket of these objects; returns its name.

    Args:
        objects: by their keys.
        public: whether anybody may read them, also without credentials.
    """
    client, name = s3_client(), f"bucket-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=name)
    for key, body in objects.items():
        access = {"ACL": "public-read"} if public else {}
        client.put_object(Bucket=name, Key=key, Body=body, **access)
    return name


class FolderServer:
    """Python's plain file server: it lists folders and ignores `Range`."""

    def __init__(self, folder: Path) -> None:
        handler = partial(_QuietFiles, directory=str(folder))
        self._server = _Server((LOCAL, 0), handler)
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()


class Request(NamedTuple):
    """One request as a proxy saw it; `first` is where the range that it asks for begins."""

    method: str
    path: str
    first: int


@dataclass
class Fault:
    """What a proxy does to the next `times` requests of a method whose path has `path` in it.

    It waits until `gate` is set and then `delay` seconds, answers `status` instead when set, flips
    a bit of the body's byte `flip`, and after `keep` bytes of the body cuts the connection, falls
    silent, or ends the answer as if that were all ("short").
    """

    path: str
    times: int = 1
    gate: threading.Event | None = None
    delay: float = 0
    status: int | None = None
    flip: int | None = None
    keep: int = 0
    then: Literal["all", "cut", "hang", "short"] = "all"
    method: str = "GET"


class Proxy:
    """A proxy to a local port that records requests and applies faults; use it with `with`."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.closed = threading.Event()
        self.lock = threading.Lock()
        self._server = _Server((LOCAL, 0), partial(_ProxyHandler, self))
        self.address = f"{LOCAL}:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.closed.set()
        self._server.stop()

    def s3(self, path: str) -> str:
        """The URI of a bucket and prefix through this proxy."""
        return f"s3://{path}?endpoint_override={self.address}&scheme=http&region=us-east-1"

    def http(self, path: str) -> str:
        return f"http://{self.address}/{path}"

    def gets(self, path: str) -> list[Request]:
        """The GET requests so far whose path has `path` in it."""
        with self.lock:
            return [r for r in self.requests if r.method == "GET" and path in r.path]

    def meets(self, request: Request) -> Fault | None:
        """Record a request; the fault that it shall suffer."""
        with self.lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.times and fault.method == request.method and fault.path in request.path:
                    fault.times -= 1
                    return fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def start(self) -> None:
        self._connections: set[socket.socket] = set()
        threading.Thread(target=partial(self.serve_forever, 0.05), daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        # Clients keep theirs open, and a thread of ours waits at the other end.
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients of a faulty server leave in the middle of an answer


class _QuietFiles(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


class _ProxyHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, proxy: Proxy, *args: Any) -> None:
        self.proxy = proxy
        super().__init__(*args)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def _serve(self) -> None:
        first = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        request = Request(self.command, self.path, int(first[1]) if first else 0)
        sent = self._received()
        fault = self.proxy.meets(request) or Fault("")
        while fault.gate is not None and not fault.gate.wait(0.01):
            if self.proxy.closed.is_set():
                return
        self.proxy.closed.wait(fault.delay)
        if fault.status:
            self._answer(fault.status, [], b"", fault)
        else:
            self._answer(*self._ask(sent), fault)

    def _received(self) -> bytes:
        """The body of a request."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _ask(self, sent: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(LOCAL, self.proxy.upstream, timeout=PATIENCE)
        try:
            own = {"content-length", "expect", "transfer-encoding"}
            headers = {k: v for k, v in self.headers.items() if k.lower() not in own}
            connection.request(self.command, self.path, sent, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _answer(
        self,
        status: int,
        headers: list[tuple[str, str]],
        body: bytes,
        fault: Fault,
    ) -> None:
        if fault.flip is not None:
            body = body[: fault.flip] + bytes([body[fault.flip] ^ 1]) + body[fault.flip + 1 :]
        if fault.then == "short":
            body = body[: fault.keep]
        size = next((v for k, v in headers if k.lower() == "content-length"), "0")
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in _BETWEEN_HOPS:
                self.send_header(name, value)
        self.send_header("Content-Length", size if self.command == "HEAD" else str(len(body)))
        self.end_headers()
        if fault.then in ("cut", "hang"):
            self.wfile.write(body[: fault.keep])
            if fault.then == "hang":
                self.proxy.closed.wait()
            self.close_connection = True
        else:
            self.wfile.write(body)


if __name__ == "__main__":
    main()
