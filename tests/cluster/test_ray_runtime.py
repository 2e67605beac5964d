"""Addresses of clusters, slow starts of Ray, and our handlers of signals."""

from __future__ import annotations

import inspect
import os
import signal
from contextlib import suppress

import pytest
import ray

from cluster import ray_runtime
from gencomp.errors import InputError


@pytest.mark.parametrize(
    "address", ["auto", "http://10.0.0.1:8265", "ray://10.0.0.1:10001", "10.0.0.1", "local", "a:b"]
)
def test_what_is_no_address_of_a_head_is_refused(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger's cluster that happens to be there, a dashboard, a client server."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError, match="host:port"):
        ray_runtime.address()
    with pytest.raises(InputError, match="host:port"), ray_runtime.cluster():
        pass


class TestSlowStart:
    """A node that a busy machine does not start in Ray's 30 s is started again."""

    @pytest.fixture(autouse=True)
    def _own_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ray_runtime.os, "environ", dict(os.environ))

    def starts(self, monkeypatch: pytest.MonkeyPatch, failures: int, error: Exception) -> list[int]:
        """Begin a cluster whose first starts fail; the length of the result counts the starts."""
        found: list[int] = []

        def init(**options: object) -> None:
            found.append(len(found))
            if len(found) <= failures:
                raise error

        monkeypatch.setattr(ray, "init", init)
        monkeypatch.setattr(ray, "shutdown", lambda: None)
        try:
            with ray_runtime.cluster():
                pass
        except Exception as raised:
            assert raised is error
            found.append(-1)
        return found

    def test_it_is_started_again_and_given_up_in_the_end(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slow = Exception("The current node timed out during startup. This could happen because")
        assert self.starts(monkeypatch, 2, slow) == [0, 1, 2]
        assert self.starts(monkeypatch, 3, slow) == [0, 1, 2, -1]

    def test_other_errors_are_raised_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.starts(monkeypatch, 1, OSError("no room")) == [0, -1]

    def test_ray_still_says_it_in_these_words(self) -> None:
        assert ray_runtime._SLOW_START in inspect.getsource(ray._private.node)


@pytest.mark.parametrize("fails", [False, True])
def test_our_handler_outlives_that_of_ray(fails: bool) -> None:
    """It does so too where a start has failed, after which Ray is started again."""

    def ours(number: int, frame: object) -> None:
        """Ask the workers to stop."""

    before = signal.signal(signal.SIGTERM, ours)
    try:
        with suppress(RuntimeError), ray_runtime._own_handlers():
            signal.signal(signal.SIGTERM, lambda *_: None)  # as ray.init does
            if fails:
                raise RuntimeError("timed out during startup")
        assert signal.getsignal(signal.SIGTERM) is ours
    finally:
        signal.signal(signal.SIGTERM, before)
