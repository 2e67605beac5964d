"""Clients of remote stores, which make single attempts and tell what a failed attempt means.

pyarrow provides `s3`, `gs` and `hdfs`; fsspec provides `http` and `https`. Retrying is left to
`shards.remote.stores`.

Credentials are never arguments of our functions. They are found as follows.

- `s3`: `key:secret@` in the URI; else AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
  AWS_SESSION_TOKEN; else ~/.aws/config and ~/.aws/credentials (AWS_PROFILE); else the role of the
  EC2 machine. With none of them requests are not signed, which is what public buckets want
  (AWS_EC2_METADATA_DISABLED=true saves the search for a role). The endpoint is `endpoint_override`
  in the URI, else AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL; the region is `region` in the URI, else
  AWS_REGION or AWS_DEFAULT_REGION.
- `gs`: GOOGLE_APPLICATION_CREDENTIALS, else what `gcloud auth application-default login` left, else
  the role of the machine; `gs://anonymous@bucket/...` asks without credentials.
- `hdfs`: the ticket of `kinit`.
- `http`: `user:password@` or a token in the query of the URI, else ~/.netrc. The variables
  http_proxy, https_proxy and no_proxy are obeyed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any, Literal, NamedTuple, Protocol
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from shards.errors import ShardError

# A request for more bytes than this is made as several requests: if a connection is cut, at most so
# many bytes are lost.
BLOCK = 8 << 20
_PIECE = 256 << 10  # when a connection is cut, aiohttp drops up to twice as many bytes
_S3_OPTIONS = ("endpoint_override", "region", "scheme")
# The words of the libraries of S3 and of Google Cloud inside the message of pyarrow.
_TOLD = re.compile(r"AWS Error (.*)|cloud::Status\((\w+):.*?last message of (.*?)(?: error_info|$)")
_DENIED = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|EXPIRED_TOKEN|status 40[13]\b"
    r"|PERMISSION_DENIED|UNAUTHENTICATED|OAuth2 access token|AccessControlException"
)
_MISSING = re.compile(r"RESOURCE_NOT_FOUND|NO_SUCH_(KEY|BUCKET)|status 404\b|\(NOT_FOUND")
_REDIRECT = re.compile(r"HTTP status 3\d\d\b")
# The statuses 408 and 429 mean that the request may be repeated.
_FINAL = re.compile(r"HTTP status 4(?!08|29)\d\d\b|INVALID_ARGUMENT")


class Patience(NamedTuple):
    """How long to wait for a store, in seconds, and how often to ask it.

    After `attempts` attempts in a row that bring less than `BLOCK` bytes, the store is given up.
    The pauses between attempts double from `pause` to at most `longest_pause`; each is shortened
    at random, to no less than half.
    """

    connect: float = 10
    silence: float = 30
    attempts: int = 6
    pause: float = 1
    longest_pause: float = 30


class Trouble(NamedTuple):
    """What a failed attempt means; only after "passing" trouble is another attempt worthwhile."""

    kind: Literal["missing", "denied", "final", "passing"]
    words: str


class WrongSize(Exception):
    """The object has fewer bytes than are expected of it."""


class Client(Protocol):
    """A client whose methods make one attempt each and raise `faults`; `trouble` explains them."""

    faults: tuple[type[Exception], ...]

    def size(self, name: str) -> int: ...

    def names(self) -> list[str]: ...

    def pieces(self, name: str, start: int, stop: int | None) -> Iterator[bytes | bytearray]:
        """The bytes from `start` to `stop`, or to the end, in pieces as they arrive."""

    def trouble(self, error: Exception) -> Trouble: ...


def client(location: str, patience: Patience) -> Client:
    """The client of a URI in this process.

    Connections do not survive a fork, so a child gets clients of its own. Raises `ShardError` when
    the URI is wrong or a library is missing.
    """
    if (location, patience) not in _clients:
        parts = urlsplit(location)
        make = _http_client if parts.scheme in ("http", "https") else _arrow_client
        _clients.setdefault((location, patience), make(parts, patience))
    return _clients[location, patience]


_clients: dict[tuple[str, Patience], Client] = {}
# A child keeps its parent's clients and does not touch them: if it closed them, it would disturb
# what the parent is reading.
_inherited: list[Client] = []


def _after_fork() -> None:
    _inherited.extend(_clients.values())
    _clients.clear()


os.register_at_fork(after_in_child=_after_fork)


def _arrow_client(parts: SplitResult, patience: Patience) -> Client:
    from pyarrow import ArrowException

    make = {"s3": _s3, "gs": _gs, "hdfs": _hdfs}[parts.scheme]
    try:
        filesystem, root = make(parts, patience)
    except ImportError:
        raise ShardError(
            f"{parts.scheme}:// needs a pyarrow built with it: `pip install --upgrade pyarrow`"
        ) from None
    except (ArrowException, OSError) as error:
        where, words = shown(parts.geturl()), _line(error)
        for _, value in [("", parts.password), *parse_qsl(parts.query)]:
            words = words.replace(value or "***", "***")
        if parts.scheme == "hdfs":
            raise ShardError(
                f"{where} needs Hadoop's client, which cannot be loaded ({words}): install Java "
                "and Hadoop, and set JAVA_HOME, HADOOP_HOME and CLASSPATH"
            ) from None
        raise ShardError(f"{where} cannot be opened: {words}") from None
    return ArrowClient(filesystem, root)


def _s3(parts: SplitResult, patience: Patience) -> tuple[Any, str]:
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    options = dict(parse_qsl(parts.query))
    if unknown := sorted(set(options) - set(_S3_OPTIONS)):
        raise ShardError(
            f"{shown(parts.geturl())} has the option {unknown[0]!r}, but s3:// takes "
            f"{', '.join(_S3_OPTIONS)}"
        )
    for variable in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if endpoint := os.environ.get(variable):
            options.setdefault("endpoint_override", endpoint)
    user, password = _login(parts)
    filesystem = S3FileSystem(
        **options,
        **({"access_key": user, "secret_key": password} if user else {}),
        connect_timeout=patience.connect,
        request_timeout=patience.silence,  # for curl: seconds with less than a byte per second
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=1),
        allow_delayed_open=True,  # small objects need only one request
        background_writes=False,  # with them, a slow network would fill the memory
    )
    return filesystem, _bucket_path(parts)


def _gs(parts: SplitResult, patience: Patience) -> tuple[Any, str]:
    from pyarrow.fs import FileSystem

    # pyarrow cannot limit this library to one attempt: its attempts may take as long as `silence`.
    options = {"retry_limit_seconds": f"{patience.silence:g}", **dict(parse_qsl(parts.query))}
    filesystem, _ = FileSystem.from_uri(parts._replace(query=urlencode(options)).geturl())
    return filesystem, _bucket_path(parts)


def _hdfs(parts: SplitResult, patience: Patience) -> tuple[Any, str]:
    from pyarrow.fs import FileSystem

    return FileSystem.from_uri(parts.geturl())


def _bucket_path(parts: SplitResult) -> str:
    return (parts.netloc.rpartition("@")[2] + unquote(parts.path)).rstrip("/")


def _login(parts: SplitResult) -> tuple[str, str]:
    return unquote(parts.username or ""), unquote(parts.password or "")


class ArrowClient:
    """A client of the objects below `root` in a pyarrow file system."""

    def __init__(self, filesystem: Any, root: str) -> None:
        from pyarrow import ArrowException

        self.faults: tuple[type[Exception], ...] = (OSError, EOFError, WrongSize, ArrowException)
        self._files = filesystem
        self._root = root

    def size(self, name: str) -> int:
        with self._open(name) as file:
            return file.size()

    def names(self) -> list[str]:
        from pyarrow.fs import FileSelector, FileType

        found = self._files.get_file_info(FileSelector(self._root))
        return [info.base_name for info in found if info.type == FileType.File]

    def pieces(self, name: str, start: int, stop: int | None) -> Iterator[bytes | bytearray]:
        with self._open(name) as file:
            end = file.size() if stop is None else stop
            if file.size() < end:
                raise WrongSize(f"it has {file.size()} bytes, {end} are expected")
            for begin in range(start, end, BLOCK):
                yield _read_at(file, begin, min(BLOCK, end - begin))

    def walk(self) -> list[str]:
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(self._root, allow_not_found=True, recursive=True)
        found = self._files.get_file_info(selector)
        start = len(self._root) + 1
        return [info.path[start:] for info in found if info.type == FileType.File]

    def write(self, name: str, pieces: Iterable[bytes]) -> None:
        path, size = f"{self._root}/{name}", 0
        if self._files.type_name == "hdfs":  # object stores have no folders to make
            self._files.create_dir(path.rpartition("/")[0], recursive=True)
        with self._files.open_output_stream(path, compression=None) as out:
            for piece in pieces:
                out.write(piece)
                size += len(piece)
        if (found := self.size(name)) != size:
            raise EOFError(f"{found} of {size} bytes arrived")

    def remove(self, name: str) -> None:
        from pyarrow.fs import FileType

        path = f"{self._root}/{name}"
        kind = self._files.get_file_info(path).type
        if kind == FileType.Directory:
            self._files.delete_dir(path)
        elif kind == FileType.File:
            self._files.delete_file(path)

    def trouble(self, error: Exception) -> Trouble:
        words = re.sub(r"^\[Errno \d+\] ", "", _line(error))
        if told := _TOLD.search(words):
            words = ": ".join(part for part in told.groups() if part)
        if isinstance(error, FileNotFoundError) or _MISSING.search(words):
            return Trouble("missing", words)
        if isinstance(error, PermissionError) or _DENIED.search(words):
            return Trouble("denied", words)
        if _REDIRECT.search(words):
            return Trouble("final", f"{words} The bucket is in another region: add ?region=...")
        final = isinstance(error, (WrongSize, ValueError)) or _FINAL.search(words)
        return Trouble("final" if final else "passing", words)

    def _open(self, name: str) -> Any:
        return self._files.open_input_file(f"{self._root}/{name}")


def _read_at(file: Any, begin: int, size: int) -> bytearray:
    """Read `size` bytes from `begin` on; raises `EOFError` when the answer has fewer bytes.

    pyarrow's S3 file takes a short answer for a whole one and leaves the rest of the buffer as it
    was (pyarrow 26). So the last byte of the buffer is set before the read. If it has the same
    value afterwards, the read is repeated with another value there.
    """
    buffer = bytearray(size)
    for mark in (0xA5, 0x5A):
        buffer[-1] = mark
        file.seek(begin)
        if file.readinto(buffer) < size:
            break
        if buffer[-1] != mark:
            return buffer
    raise EOFError("the answer ended early")


def _http_client(parts: SplitResult, patience: Patience) -> Client:
    try:
        return HttpClient(parts, patience)
    except ImportError:
        raise ShardError(
            f"{parts.scheme}:// needs fsspec and aiohttp: `pip install 'fsspec[http]'`"
        ) from None


class HttpClient:
    """A client of the files below a URL, whose query, perhaps a token, is sent with every request.

    If the server ignores ranges, a file is read from its beginning each time.
    """

    def __init__(self, parts: SplitResult, patience: Patience) -> None:
        import aiohttp
        from fsspec.implementations.http import HTTPFileSystem

        self.faults: tuple[type[Exception], ...] = (
            OSError,
            EOFError,
            WrongSize,
            ValueError,
            aiohttp.ClientError,
        )
        self._parts = parts
        self._silence = patience.silence
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=patience.connect, sock_read=patience.silence
        )
        self._files = HTTPFileSystem(
            skip_instance_cache=True,
            client_kwargs={
                "timeout": timeout,
                "headers": {"Accept-Encoding": "identity"},
                "trust_env": True,
            },
        )

    def size(self, name: str) -> int:
        try:
            size = self._files.info(self._url(name))["size"]
        except FileNotFoundError as error:  # fsspec raises this error for every failure
            raise error.__cause__ or error from None
        if size is None:
            raise WrongSize("the server does not say its size")
        return size

    def names(self) -> list[str]:
        folder = self._parts._replace(path=self._parts.path.rstrip("/") + "/", query="").geturl()
        links = self._files.ls(self._url(""), detail=False)
        tails = [link.removeprefix(folder) for link in links if link.startswith(folder)]
        return sorted({unquote(tail.partition("?")[0]) for tail in tails if "/" not in tail} - {""})

    def pieces(self, name: str, start: int, stop: int | None) -> Iterator[bytes]:
        wanted = "" if stop is None else str(stop - 1)
        # No range of an empty file is valid, so a whole file is asked for without a range.
        headers = {"Range": f"bytes={start}-{wanted}"} if start or wanted else {}
        with self._files.open(self._url(name), block_size=0, size=1, headers=headers) as stream:
            position, total = _extent(stream.r)
            end = total if stop is None else stop
            if total is not None and end is not None and total < end:
                raise WrongSize(f"it has {total} bytes, {end} are expected")
            while end is None or position < end:
                piece = stream.read(_PIECE if end is None else min(_PIECE, end - position))
                if not piece:
                    break
                early = max(start - position, 0)
                position += len(piece)
                if position > start:
                    yield piece[early:]
            if end is not None and position < end:
                raise EOFError(f"the answer ended after {position} of {end} bytes")

    def trouble(self, error: Exception) -> Trouble:
        import aiohttp

        status = error.status if isinstance(error, aiohttp.ClientResponseError) else None
        if isinstance(error, FileNotFoundError) or status in (404, 410):
            return Trouble("missing", "HTTP status 404")
        if status is not None:
            words = f"HTTP status {status}"
            if status in (401, 403, 407):
                return Trouble("denied", words)
            passing = status in (408, 425, 429) or status >= 500
            return Trouble("passing" if passing else "final", words)
        if isinstance(error, TimeoutError):
            return Trouble("passing", f"silence for {self._silence:g} seconds")
        final = isinstance(error, (WrongSize, ValueError, aiohttp.ClientSSLError))
        return Trouble("final" if final else "passing", _line(error))

    def _url(self, name: str) -> str:
        path = self._parts.path.rstrip("/") + "/" + quote(name)
        return self._parts._replace(path=path).geturl()


def _extent(response: Any) -> tuple[int, int | None]:
    """The place in the file where an answer begins, and the file's size if the server says it."""
    if response.status == HTTPStatus.PARTIAL_CONTENT:
        said = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if said is None:
            raise WrongSize("the server answers a part without saying which")
        return int(said[1]), None if said[2] == "*" else int(said[2])
    return 0, response.content_length


def _line(error: Exception) -> str:
    """The first line of an error's message, cut to a length that fits into a sentence."""
    return (str(error) or type(error).__name__).partition("\n")[0][:300]


def shown(location: str) -> str:
    """A URI without anything that may be secret: passwords, keys and tokens."""
    parts = urlsplit(location)
    user, at, host = parts.netloc.rpartition("@")
    if at and (":" in user or parts.scheme not in ("gs", "hdfs")):
        user = "***"
    known = [(k, v) for k, v in parse_qsl(parts.query) if k in _S3_OPTIONS]
    query = urlencode(known, safe=":/") if parts.scheme not in ("http", "https") else ""
    return parts._replace(netloc=user + at + host, query=query, fragment="").geturl()
