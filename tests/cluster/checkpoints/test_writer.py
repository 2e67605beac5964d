"""Checkpoints written in a thread: real copies, whole or not there, errors that are heard of."""

from __future__ import annotations

import gc
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cluster.checkpoints import store
from cluster.checkpoints.retention import chosen
from cluster.checkpoints.store import AVERAGES, Content
from cluster.checkpoints.writer import HostMemory, Kept, Saver, SavingError
from cluster.runs import open_run
from tests import tiny
from tests.conftest import ROOT
from tests.processes import ENVIRONMENT
from tests.waiting import PATIENCE


def content(step: int, size: int = 1000) -> Content:
    """All values are the step."""
    return Content(
        networks={"a": torch.full((size,), float(step)), "n": torch.tensor(step)},
        optimizers={"phase": {"state": {0: {"m": torch.full((size,), -float(step))}}, "lr": 0.1}},
        progress={"step": step, "samples": 8 * step, "world": 1},
    )


def last(count: int) -> Kept:
    return lambda steps: chosen(steps, last=count)


def steps(directory: Path) -> list[int]:
    return sorted(map(store.step_of, store.directories(directory)))


def assert_holds(checkpoint: store.Checkpoint | None, step: int, size: int = 1000) -> None:
    assert checkpoint is not None and checkpoint.step == step
    tiny.assert_identical(dict(content(step, size).networks), checkpoint.networks())
    found = checkpoint.optimizers()["phase"]
    assert found["lr"] == 0.1 and torch.equal(
        found["state"][0]["m"], torch.full((size,), -float(step))
    )
    assert checkpoint.progress() == content(step).progress


def writers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("checkpoint-")]


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """The kernel refuses to let files of this process grow beyond."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(params=[True, False], ids=["async", "sync"])
def background(request: pytest.FixtureRequest) -> bool:
    return request.param


class TestSaver:
    def test_what_is_saved_is_kept_and_removed(self, background: bool, tmp_path: Path) -> None:
        saver = Saver(tmp_path / "c", last(2), background)
        for step in (1, 2, 9, 10):
            saver.save(content(step))
        saver.flush()
        assert steps(tmp_path / "c") == [9, 10]
        assert_holds(store.newest(tmp_path / "c"), 10)
        assert {p.name for p in (tmp_path / "c").iterdir()} == {"step-000000009", "step-000000010"}

    def test_weights_may_change_as_soon_as_save_returns(self, tmp_path: Path) -> None:
        """32 MB: they change long before the thread has written them."""
        saver, live = Saver(tmp_path, last(9)), content(1, size=4 << 20)
        for step in range(1, 5):
            live.networks["a"].fill_(step)
            live.networks["n"].fill_(step)
            live.optimizers["phase"]["state"][0]["m"].fill_(-step)
            progress = {"step": step, "samples": 8 * step, "world": 1}
            saver.save(Content(live.networks, live.optimizers, progress))
            for tensor in (live.networks["a"], live.optimizers["phase"]["state"][0]["m"]):
                tensor.fill_(float("nan"))
        saver.flush()
        for path in store.directories(tmp_path):
            store.verify(path)
            assert_holds(store.Checkpoint(path), store.step_of(path), size=4 << 20)

    def test_damaged_ones_do_not_take_the_place_of_whole_ones(
        self, background: bool, tmp_path: Path
    ) -> None:
        """After a fall back from 20 to 10, step 12 is newer than the damaged 20."""
        saver = Saver(tmp_path, last(2), background)
        for step in (10, 20):
            saver.save(content(step))
        saver.flush()
        tiny.flip(tmp_path / "step-000000020" / store.NETWORKS)
        saver = Saver(tmp_path, last(2), background)
        saver.save(content(12))
        saver.flush()
        assert steps(tmp_path) == [10, 12]

    def test_an_error_is_heard_of_at_the_next_call_and_once(self, tmp_path: Path) -> None:
        saver = Saver(tmp_path, last(3))
        saver.save(content(10))
        saver.flush()
        before = tiny.tree(tmp_path)
        sentence = (
            r"the checkpoint of step 20 could not be written to .*: File too large; make room, "
            r"and the same command goes on from step 10$"
        )
        for ask in (lambda: saver.save(content(30)), saver.flush):
            with files_limited_to(2000):
                saver.save(content(20))
                for thread in writers():
                    thread.join()
            with pytest.raises(SavingError, match=sentence):
                ask()
            assert tiny.tree(tmp_path) == before
        saver.flush()
        saver.save(content(20))
        saver.flush()
        assert steps(tmp_path) == [10, 20]

    def test_without_a_thread_it_is_heard_of_at_once(self, tmp_path: Path) -> None:
        saver = Saver(tmp_path, last(3), background=False)
        with files_limited_to(2000), pytest.raises(SavingError, match="the same command starts"):
            saver.save(content(20))
        assert tiny.tree(tmp_path) == {}

    def test_a_place_that_may_not_be_written(self, background: bool, tmp_path: Path) -> None:
        (tmp_path / "c").write_text("not a directory")
        saver = Saver(tmp_path / "c", last(3), background)
        with pytest.raises(SavingError, match=r"not be written to .*: File exists; mend that"):
            saver.save(content(1))
            saver.flush()

    def test_close_waits_and_tells_the_log(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        saver = Saver(tmp_path, last(3))
        saver.save(content(1, size=1 << 20))
        saver.close()
        assert steps(tmp_path) == [1] and not writers()
        with files_limited_to(2000):
            saver.save(content(2))
            saver.close()
        assert "step 2 could not be written" in caplog.records[0].getMessage()
        saver.flush()

    def test_leftovers_of_killed_writers_are_cleared(self, tmp_path: Path) -> None:
        for name in (".step-000000003.partial", ".step-000000001.removed"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "x").write_text("x")
        Saver(tmp_path, last(1), background=False).save(content(4))
        assert [p.name for p in tmp_path.iterdir()] == ["step-000000004"]


_TENSORS = st.builds(
    lambda shape, dtype, last: (
        (torch.arange(shape[0] * shape[1] * 6).view(shape[0], shape[1], 2, 3))
        .to(dtype)
        .contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    ),
    st.tuples(st.integers(0, 3), st.integers(1, 3)),
    st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.float64]),
    st.booleans(),
)
_TREES = st.recursive(
    _TENSORS | st.none() | st.integers() | st.floats(allow_nan=False),
    lambda inner: (
        st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        | st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=8,
)


def tensors_of(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    inner = tree.values() if isinstance(tree, dict) else tree
    return (
        [t for x in inner for t in tensors_of(x)] if isinstance(tree, dict | list | tuple) else []
    )


class TestHostMemory:
    @settings(max_examples=60, deadline=None)
    @given(first=_TREES, second=_TREES)
    def test_a_copy_is_equal_and_shares_nothing(self, first: Any, second: Any) -> None:
        memory = HostMemory()
        for tree in (first, second, first):
            copy = memory.copy(Content({}, {"x": tree}, {"step": 1})).optimizers["x"]
            mine, theirs = tensors_of(tree), tensors_of(copy)
            assert len(mine) == len(theirs)
            for a, b in zip(mine, theirs, strict=True):
                assert torch.equal(a, b) and a.stride() == b.stride() and a.dtype == b.dtype
                assert a.numel() == 0 or a.data_ptr() != b.data_ptr()
            assert repr(copy) == repr(tree)

    def test_memory_is_used_again_and_given_back(self) -> None:
        memory = HostMemory()
        places = [
            {t.data_ptr() for t in memory.copy(content(step)).networks.values()}
            for step in (1, 2, 3)
        ]
        assert places[0] == places[1] == places[2]
        grown = memory.copy(content(4, size=2000))
        assert grown.networks["a"].shape == (2000,)
        assert grown.networks["n"].data_ptr() in places[0]
        memory.copy(Content({}, {}, {"step": 5}))
        gc.collect()
        assert not memory._buffers


_WRITER = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from cluster.checkpoints import store
from cluster.checkpoints.retention import chosen
from cluster.checkpoints.writer import Saver
from tests.cluster.checkpoints.test_writer import assert_holds, content

directory, rounds, size = Path(sys.argv[1]), int(sys.argv[2]), 1 << 18
chance, newest, cut = random.Random(1), 0, 0
begun = time.monotonic()
for _ in range(3):
    store.write(directory.with_name("usual"), content(1, size))
usual = (time.monotonic() - begun) / 3
for _ in range(rounds):
    heard, told = os.pipe()
    child = os.fork()
    if child == 0:
        saver = Saver(directory, lambda steps: chosen(steps, last=2))
        live, step = content(newest, size), newest
        os.write(told, b"x")
        while True:
            step += 1
            live.networks["a"].fill_(step)
            live.networks["n"].fill_(step)
            live.optimizers["phase"]["state"][0]["m"].fill_(-step)
            progress = {"step": step, "samples": 8 * step, "world": 1}
            saver.save(store.Content(live.networks, live.optimizers, progress))
            live.networks["a"].fill_(-1)
    os.read(heard, 1)
    time.sleep(chance.uniform(0, 4 * usual))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(heard)
    os.close(told)
    cut += any(p.name.endswith(".partial") for p in directory.glob(".step-*"))
    found = store.newest(directory)
    if found is not None:
        assert found.step >= newest, (found, newest)
        newest = found.step
        for path in store.directories(directory):
            store.verify(path)  # none that looks damaged, not only the newest
            assert_holds(store.Checkpoint(path), store.step_of(path), size)
print(newest, cut)
"""


def killed_writers(directory: Path, rounds: int) -> tuple[int, int]:
    """Newest step, and how many rounds of kill -9 met a checkpoint half written."""
    done = subprocess.run(
        [sys.executable, "-c", _WRITER, str(directory), str(rounds)],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    newest, cut = map(int, done.stdout.split())
    return newest, cut


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """A writer does hardly anything but write, so most of the kills meet it at that."""
    newest, cut = killed_writers(tmp_path / "run", rounds=12)
    assert newest >= 2 and cut >= 2


@pytest.mark.slow
def test_killed_at_any_of_many_moments(tmp_path: Path) -> None:
    newest, cut = killed_writers(tmp_path / "run", rounds=300)
    assert newest >= 30 and cut >= 30


class TestInTraining:
    def test_files_are_the_same_with_and_without_a_thread(
        self, photos: Path, tmp_path: Path
    ) -> None:
        """Every byte of every file of every checkpoint, moving averages among them."""
        trees = []
        for background in (True, False):
            overrides = {
                "training.checkpoint_async": background,
                "training.checkpoint_every": 1,
                "training.keep_checkpoints": 99,
                "training.ema_decay": 0.9,
            }
            run, _ = tiny.trained(tmp_path / str(background), tiny.generator(photos, overrides))
            assert (run.checkpoints / "step-000000007" / AVERAGES).exists()
            assert len(steps(run.checkpoints)) == 12
            trees.append(tiny.tree(run.checkpoints))
        assert trees[0] == trees[1]

    def test_a_run_goes_on_with_other_settings_of_saving(
        self, photos: Path, generator_run: Path, tmp_path: Path
    ) -> None:
        """None of them makes it another run, and none changes what is learned."""
        tiny.trained(tmp_path / "run", tiny.generator(photos), tiny.stop_after(6))
        others = {
            "training.checkpoint_async": False,
            "training.checkpoint_every": 3,
            "training.keep_checkpoints": 1,
            "training.keep_best": 1,
            "training.keep_best_metric": "mse",
            "training.keep_every": 9,
            "training.sample_every": 4,
            "training.log_every": 2,
        }
        run, outcome = tiny.trained(tmp_path / "run", tiny.generator(photos, others))
        assert outcome.finished
        tiny.assert_identical(tiny.state(run), tiny.state(open_run(generator_run)))

    def test_no_thread_outlives_a_loop_that_breaks(self, photos: Path, tmp_path: Path) -> None:
        with pytest.raises(tiny.Crash):
            tiny.trained(tmp_path / "run", tiny.generator(photos), tiny.crash_after(4))
        assert not writers()
        assert steps(tmp_path / "run" / "checkpoints") == [4]


def test_the_memory_of_a_snapshot_is_all_there_is(tmp_path: Path) -> None:
    """Peak memory of saving 42 MB, thrice: one copy, and no more than small change besides."""
    script = (
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from cluster.checkpoints.store import Content\n"
        "from cluster.checkpoints.writer import Saver\n"
        "live = {str(i): torch.full((1 << 20,), 1.0) for i in range(5)}\n"
        "adam = {'p': {i: torch.full((1 << 20,), 1.0) for i in range(5)}}\n"
        "saver = Saver(Path(sys.argv[1]), lambda steps: {max(steps)})\n"
        "torch.save({}, sys.argv[1] + '.warm')\n"
        "peak = lambda: int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
        "before = peak()\n"
        "for step in (1, 2, 3):\n"
        "    saver.save(Content(live, adam, {'step': step}))\n"
        "saver.flush()\n"
        "print((peak() - before) / 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "c")],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert 38 < float(done.stdout) < 52
