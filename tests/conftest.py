"""What every test starts from: one thread, no network habits, fixed seeds, repeatable examples."""

from __future__ import annotations

import os

# Before torch and Ray are imported, and inherited by every process that a test starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import atexit
import fcntl
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from hypothesis import settings

from tests.hosts import why_impossible
from tests.shards.object_server import Proxy, s3_port
from tests.slurm_cluster import MEND, Cluster, missing_programs
from tests.slurm_cluster.sessions import session_directory, sessions_left_behind
from tests.waiting import PATIENCE, wait_for

# Tests share their machine: an example may be slow, and a failure must come again.
settings.register_profile("gencomp", deadline=None, derandomize=True)
settings.load_profile("gencomp")

ROOT = Path(__file__).resolve().parent.parent

# Tests neither use nor fill the cache of whoever runs them.
if "GENCOMP_CACHE" not in os.environ:
    os.environ["GENCOMP_CACHE"] = tempfile.mkdtemp(prefix="gencomp-test-cache-")
    atexit.register(shutil.rmtree, os.environ["GENCOMP_CACHE"], ignore_errors=True)


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture
def gencomp() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run one gencomp command line in a process of its own and return what it printed."""

    def run(
        *words: str, cwd: Path = ROOT, timeout: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        return subprocess.run(
            [sys.executable, "-m", "gencomp.cli", *words],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture
def refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Run a command line in `tmp_path` that must be refused: it returns the one sentence that is
    said, and all files stay as they were."""
    from gencomp.cli import main
    from tests import tiny

    def run(*words: str | Path) -> str:
        capsys.readouterr()
        before = tiny.tree(tmp_path)
        with monkeypatch.context() as here:
            here.chdir(tmp_path)
            assert main([str(word) for word in words]) == 2
        err = capsys.readouterr().err
        assert err.startswith("gencomp: error: ") and err.endswith("\n"), err
        assert err.count("\n") == 1, err
        assert tiny.tree(tmp_path) == before
        return err.strip()

    return run


@pytest.fixture
def refused_figure(refused: Callable[..., str], tmp_path: Path) -> Callable[..., str]:
    """Run a figure command that must be refused: it returns the one sentence that is said."""

    def run(*words: str | Path) -> str:
        out = [] if "--out" in words else ["--out", tmp_path / "figure.png"]
        return refused("figure", *words, *out)

    return run


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """43 training and 47 test crops of 64×64, in three shards each, that no test changes."""
    from shards.building.build import build

    out = tmp_path_factory.mktemp("data") / "photos"
    build("photos", out, options={"size": "64"}, shard_size=16, limit=48)
    return out


@pytest.fixture(scope="session")
def generator_run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a tiny generator that no test changes."""
    from tests import tiny

    path = tmp_path_factory.mktemp("runs") / "generator"
    tiny.trained(path, tiny.generator(photos))
    return path


@pytest.fixture(scope="session")
def codec_run(photos: Path, generator_run: Path) -> Path:
    """A finished run of a tiny codec on it that no test changes."""
    from tests import tiny

    path = generator_run.with_name("codec")
    tiny.trained(path, tiny.codec(photos, generator_run))
    return path


@pytest.fixture
def s3_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a client of the tests' S3 server finds in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def proxy(s3_credentials: None) -> Iterator[Proxy]:
    """A proxy with faults before the tests' S3 server."""
    with Proxy(s3_port()) as proxy:
        yield proxy


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Start command lines as `tests.processes.Driver`; what they leave is killed and cleared."""
    from cluster import workplace
    from tests.processes import Driver

    drivers: list[Driver] = []

    def start(*words: str) -> Driver:
        folder = tmp_path / f"driver{len(drivers)}"
        folder.mkdir()
        drivers.append(Driver(list(words), folder))
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.close()
    workplace.remove_leftovers()


def spread(items: list[pytest.Item]) -> list[pytest.Item]:
    """The tests by file, with a file of long tests after every dozen of others.

    Long tests mostly wait, so others fill the cores beside them. All at once they would overload a
    machine, and none should be left at the end.
    """
    by_file: dict[Path, list[pytest.Item]] = {}
    for item in items:
        by_file.setdefault(item.path, []).append(item)
    waiting = [path for path in by_file if any(map(is_long, by_file[path]))]
    others = [path for path in by_file if path not in waiting]
    order = []
    for place, path in enumerate(others):
        if place % 12 == 0 and waiting:
            order.append(waiting.pop(0))
        order.append(path)
    return [item for path in (*order, *waiting) for item in by_file[path]]


def is_long(item: pytest.Item) -> bool:
    return item.get_closest_marker("long") is not None


# So many long tests run at once on a machine, and each may take so many seconds. More of them would
# start Ray so slowly that its own patience ends.
_LONG_AT_ONCE, _LONG_SECONDS = 2, 1800


@pytest.fixture(autouse=True)
def _turn_of_long_tests(request: pytest.FixtureRequest) -> Iterator[None]:
    """A long test waits until fewer than two others run, in whatever process."""
    if not is_long(request.node):
        yield
        return
    folder = Path(tempfile.gettempdir())
    names = [f"long-test-of-gencomp-{os.getuid()}-{turn}" for turn in range(_LONG_AT_ONCE)]
    files = [(folder / name).open("w") for name in names]
    try:
        assert wait_for(lambda: any(map(_locked, files)), _LONG_SECONDS, pause=0.5)
        yield
    finally:
        for file in files:
            file.close()


def _locked(file: IO[str]) -> bool:
    """Whether this process now holds the lock of a file, which it loses when it closes the file."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread the files with long tests; skip those of Slurm and of hosts where there are none."""
    items[:] = spread(items)
    for item in items:
        longer = is_long(item) or item.get_closest_marker("slow")
        if longer and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_LONG_SECONDS))
    marked = [item for item in items if item.get_closest_marker("slurm")]
    if marked and (missing := missing_programs()):
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=f"no {', '.join(missing)} here: {MEND}"))
    on_hosts = [item for item in items if item.get_closest_marker("hosts")]
    if on_hosts and (reason := why_impossible()) is not None:
        for item in on_hosts:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def _cluster_of_session() -> Iterator[Cluster]:
    """A Slurm for the tests of this session; those of sessions that were killed are cleared."""
    for left in sessions_left_behind():
        left.down()
    cluster = Cluster(session_directory(os.getpid()))
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


@pytest.fixture
def slurm_cluster(
    _cluster_of_session: Cluster, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cluster]:
    """The private Slurm, which this test and its processes see; calm again when the test ends."""
    environment = _cluster_of_session.environment()
    for name in os.environ.keys() - environment.keys():
        monkeypatch.delenv(name)
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, environment[name])
    yield _cluster_of_session
    _cluster_of_session.settle()


@pytest.fixture(autouse=True)
def _slurm_where_marked(request: pytest.FixtureRequest) -> None:
    """Only marked tests see a Slurm: `--executor auto` would choose it. Hosts have their own."""
    marked = request.node.get_closest_marker
    if marked("slurm") and not marked("hosts"):
        request.getfixturevalue("slurm_cluster")
