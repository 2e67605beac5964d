"""Writing to stores: a directory, and moto's S3 with faults in between."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from shards.errors import ShardError
from shards.remote.clients import BLOCK, Patience
from shards.remote.stores import MissingObject, Store, store
from tests.shards.object_server import Fault, Proxy, new_bucket

QUICK = Patience(connect=60, silence=60, attempts=4, pause=0.01, longest_pause=0.05)
LARGE = np.random.default_rng(1).bytes(BLOCK + 3_000_001)
BODIES = {"empty": b"", "small": b"hello", "below/here/large": LARGE, "below/a b+c%20é": b"odd"}


@pytest.fixture
def s3(proxy: Proxy) -> Store:
    return store(proxy.s3(f"{new_bucket({})}/runs/x"), QUICK)


@pytest.fixture(params=["s3", "directory", "file"])
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "s3":
        found: Store = request.getfixturevalue("s3")
        return found
    return store(tmp_path / "x" if request.param == "directory" else f"file://{tmp_path}/x")


def pieces(body: bytes) -> list[bytes]:
    return [body[i : i + BLOCK] for i in range(0, len(body), BLOCK)]


def write(there: Store, name: str, body: bytes) -> None:
    there.write(name, lambda: pieces(body))


def test_what_is_written_is_read_listed_replaced_and_removed(there: Store) -> None:
    assert there.walk() == []
    for name, body in BODIES.items():
        write(there, name, body)
    assert there.walk() == sorted(BODIES)
    for name, body in BODIES.items():
        assert there.read(name) == body
    write(there, "small", b"other")
    assert there.read("small") == b"other"
    there.remove("below/here/large")
    assert there.walk() == ["below/a b+c%20é", "empty", "small"]
    there.remove("below")
    there.remove("nothing")
    assert there.walk() == ["empty", "small"]
    with pytest.raises(MissingObject):
        there.read("below/here/large")


@pytest.mark.parametrize("name", ["small", "below/here/large"])
def test_errors_of_the_server_are_tried_again(name: str, s3: Store, proxy: Proxy) -> None:
    proxy.faults = [Fault("x/", 2, status=500, method="PUT")]
    write(s3, name, BODIES[name])
    assert s3.read(name) == BODIES[name]
    assert not proxy.faults[0].times


def test_silence_is_tried_again(proxy: Proxy) -> None:
    s3 = store(proxy.s3(f"{new_bucket({})}/x"), QUICK._replace(silence=1))
    proxy.faults = [Fault("x/", gate=threading.Event(), method="PUT")]
    write(s3, "small", b"hello")
    assert s3.read("small") == b"hello"
    assert not proxy.faults[0].times


def test_what_stays_is_an_error_and_no_object(s3: Store, proxy: Proxy) -> None:
    proxy.faults = [Fault("x/", 99, status=500, method="PUT")]
    for name in ("small", "below/here/large"):
        with pytest.raises(ShardError, match=rf"x/{name} could not be written in 4 attempts"):
            write(s3, name, BODIES[name])
    assert s3.walk() == []


def test_what_is_forbidden_is_said_at_once(s3: Store, proxy: Proxy) -> None:
    proxy.faults = [Fault("x/", 99, status=403, method="PUT")]
    with pytest.raises(ShardError, match="x/small may not be written: access is denied"):
        write(s3, "small", b"hello")
    assert proxy.faults[0].times == 98


def test_a_web_server_can_only_be_read() -> None:
    with pytest.raises(ShardError, match=r"http://127.0.0.1:9/x can only be read: write to s3://"):
        write(store("http://127.0.0.1:9/x", QUICK), "small", b"hello")


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("a file")
    with pytest.raises(ShardError, match=r"x/small cannot be written: "):
        write(store(tmp_path / "x"), "small", b"hello")
