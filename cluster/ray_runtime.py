"""The only place where Ray is started, joined and stopped.

A cluster of our own listens on loopback only, asks for a token, runs no dashboard, reports no
usage, lives in a short temporary directory of its own and dies with the process that started it. We
never run `ray stop`, and never join a cluster that happens to be there: only an explicit
RAY_ADDRESS makes us join one.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from functools import cache
from pathlib import Path

from cluster import workplace
from gencomp.errors import InputError
from shards.remote.cache import cache_root

OBJECT_STORE_BYTES = 100 * 2**20
# The variable that is set if the cluster at RAY_ADDRESS has all the nodes that it will ever have.
COMPLETE = "GENCOMP_CLUSTER_IS_COMPLETE"
# How often a cluster of our own is started on a machine that is too busy for Ray's patience.
STARTS = 3
_SLOW_START = "timed out during startup"
_HOST_AND_PORT = re.compile(r"([\w.-]+|\[[0-9A-Fa-f:]+\]):\d{1,5}")
# The variables that a process that computes needs from its start on.
WORKER_ENVIRONMENT = {
    # Waiting threads must not spin on cores that other workers need.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Otherwise glibc returns large tensors after every use, which costs a third of a step on a CPU.
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
}
SAFE_DEFAULTS = {
    # Without this a "local" cluster listens on every interface.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Without this a node that starts slowly on a busy host is given up after 30 s.
    "RAY_raylet_start_wait_time_s": "120",
    # Reports wait for the next poll; the default of 2 s also delays the end of a run by seconds.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # Workers start in places that were free a moment before (see `cluster.ray_train.scaling`).
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
    # A rank that never reports becomes an error instead of a wait without end.
    "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "1800",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    # An actor of 200 MB that warns workers of nodes that will go; ours go on without a warning.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # Tune's new console prints unwanted tables even when it is told to be quiet.
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # A trial that is asked to stop before its first evaluation has no score, which is no error.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    **WORKER_ENVIRONMENT,
}


@contextmanager
def cluster(cpus: int | None = None) -> Iterator[None]:
    """A Ray cluster for the body: the one at RAY_ADDRESS, or one of our own that is then stopped.

    Args:
        cpus: the CPUs that our own cluster may use; None: all on which this process may run.
    """
    for name, value in SAFE_DEFAULTS.items():
        os.environ.setdefault(name, value)
    _make_places_absolute()
    joined = address()
    if joined is not None:
        with _connected(address=joined):
            yield
        return
    workplace.remove_leftovers()
    os.environ.setdefault("RAY_AUTH_TOKEN_PATH", str(_token()))
    directory = workplace.ray_directory()
    try:
        with _connected(
            address="local",
            num_cpus=cpus or usable_cpus(),
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            _temp_dir=str(directory),
        ):
            yield
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _make_places_absolute() -> None:
    """Name places in the environment so that Ray's workers find them, which start elsewhere."""
    os.environ["GENCOMP_CACHE"] = str(cache_root().absolute())
    for name in ("PYTHONPATH", "RAY_AUTH_TOKEN_PATH"):
        if places := os.environ.get(name):
            absolute = (os.path.abspath(place) for place in places.split(os.pathsep) if place)
            os.environ[name] = os.pathsep.join(absolute)


def address() -> str | None:
    """The address of the cluster that we join, or None if we start one of our own."""
    found = os.environ.get("RAY_ADDRESS")
    if found == "auto":
        raise InputError("RAY_ADDRESS=auto could join a stranger's cluster; give host:port")
    if found and not _HOST_AND_PORT.fullmatch(found):
        raise InputError(
            f"RAY_ADDRESS={found} is not host:port of a cluster's head, such as 10.0.0.1:6379;"
            " addresses of a dashboard or a client server are of another kind"
        )
    return found or None


def is_complete() -> bool:
    """Whether our cluster never grows, because it is our own or belongs to an allocation."""
    return address() is None or os.environ.get(COMPLETE) == "1"


@cache
def _token() -> Path:
    """The file with the token of all clusters of this process, since Ray reads it only once."""
    return workplace.private_file("token", secrets.token_hex(32))


def usable_cpus() -> int:
    """The number of CPUs on which this process may run, by its affinity mask."""
    return len(os.sched_getaffinity(0))


@contextmanager
def _connected(**options: object) -> Iterator[None]:
    import ray

    # Tune warns of files that are not needed, and prints tracebacks that our own messages sum up.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    try:
        _initialise(options)
    except ConnectionError as error:
        raise InputError(
            f"no Ray cluster answers at RAY_ADDRESS={os.environ.get('RAY_ADDRESS')} from this"
            " machine: it must be up, have a node here, and accept the token in RAY_AUTH_TOKEN_PATH"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _own_handlers() -> Iterator[None]:
    """Our own handler of SIGTERM is in place after the body, even a failed one; Ray replaces it."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _initialise(options: Mapping[str, object]) -> None:
    """Call `ray.init`, again where a busy machine did not start a node in the 30 s that Ray waits.

    What an attempt has started ends with this process at the latest.
    """
    import ray

    for attempts_left in reversed(range(STARTS)):
        try:
            # Ray puts the current directory on the path of its workers, where users' files may have
            # the names of our packages.
            with chdir(workplace.directory()), _own_handlers():
                ray.init(log_to_driver=False, logging_level="WARNING", **options)
            return
        except Exception as error:
            # Ray raises a bare Exception, which only its words tell from others.
            if not attempts_left or _SLOW_START not in str(error):
                raise
            ray.shutdown()
