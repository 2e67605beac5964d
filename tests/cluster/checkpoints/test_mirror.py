"""Copies elsewhere: whole or none, fetched on a new disk, mirrored, never in training's way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from cluster.checkpoints import mirror, store
from cluster.checkpoints.store import MANIFEST, NETWORKS, OPTIMIZERS, PROGRESS
from cluster.checkpoints.writer import Saver, SavingError
from cluster.runs import Run, open_run
from gencomp.errors import InputError
from shards.errors import ShardError
from shards.remote import stores
from shards.remote.clients import Patience
from shards.remote.stores import Store
from tests import tiny
from tests.cluster.checkpoints.test_writer import content, last, steps
from tests.conftest import ROOT
from tests.processes import ENVIRONMENT
from tests.shards.object_server import Fault, Proxy, new_bucket, s3_client
from tests.waiting import wait_for

QUICK = Patience(connect=60, silence=60, attempts=2, pause=0.01, longest_pause=0.02)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, s3_credentials: None) -> None:
    monkeypatch.setattr(mirror, "PATIENCE", QUICK)


@pytest.fixture
def bucket(proxy: Proxy) -> str:
    return new_bucket({})


@pytest.fixture
def s3(proxy: Proxy, bucket: str) -> str:
    return proxy.s3(f"{bucket}/runs")


def place(uri: str, name: str = "run") -> Store:
    address, question, query = uri.partition("?")
    return stores.store(f"{address}/{name}{question}{query}", QUICK)


def contents(uri: str) -> dict[str, bytes]:
    """Every file of a run's copies."""
    there = place(uri)
    return {name: there.read(name) for name in there.walk()}


def copied_steps(uri: str) -> list[int]:
    """The steps of the copies that are whole."""
    return sorted(int(n.split("-")[1][:9]) for n in place(uri).walk() if n.endswith(MANIFEST))


def trained(
    path: Path, raw: dict[str, Any], uri: str | None, steps: int | None = None
) -> tuple[Run, int | None]:
    """What `gencomp train --copy-to` does; also which step was fetched."""
    run = tiny.started(path, raw)
    fetched = mirror.arrange(run, uri)
    tiny.trained(path, raw, None if steps is None else tiny.stop_after(steps))
    return run, fetched


@pytest.fixture
def raw(photos: Path) -> dict[str, Any]:
    return tiny.generator(photos)


@pytest.fixture(scope="module")
def template(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped at step 9, and its copies."""
    folder = tmp_path_factory.mktemp("template")
    trained(folder / "run", tiny.generator(photos), f"file://{folder}/copies", 9)
    return folder


@pytest.fixture(params=["file", "s3"])
def uri(request: pytest.FixtureRequest, tmp_path: Path, template: Path) -> str:
    """The address of the copies of the checkpoints of steps 8 and 9."""
    if request.param == "file":
        shutil.copytree(template / "copies", tmp_path / "copies")
        return f"file://{tmp_path}/copies"
    bucket = request.getfixturevalue("bucket")
    for name, body in tiny.tree(template / "copies").items():
        s3_client().put_object(Bucket=bucket, Key=f"runs/{name}", Body=body)
    found: str = request.getfixturevalue("s3")
    return found


only_file = pytest.mark.parametrize("uri", ["file"], indirect=True)
only_s3 = pytest.mark.parametrize("uri", ["s3"], indirect=True)


@pytest.fixture
def stopped(uri: str, tmp_path: Path, template: Path) -> Run:
    """A run of its own, with checkpoints of steps 8 and 9 and copies of both."""
    run = open_run(shutil.copytree(template / "run", tmp_path / "run"))
    assert mirror.arrange(run, uri) is None
    return run


def assert_same_end(run: Run, straight: Path) -> None:
    tiny.assert_identical(tiny.state(run), tiny.state(open_run(straight)))
    assert tiny.rows(run) == tiny.rows(open_run(straight))
    assert tiny.result(run) == tiny.result(open_run(straight))


_SEND = """
import sys
from cluster.checkpoints import mirror
from cluster.runs import open_run
run = open_run(sys.argv[1])
copier = mirror.of(run, run.recipe())
copier.send()
copier.flush()
"""


class LateCopier(mirror.Copier):
    """Its copying takes until everything else is done, as over a slow network."""

    def __init__(self, run: Run) -> None:
        super().__init__(run, place(f"file://{run.path.parent}/late"), last(2))
        self.gate = threading.Event()

    def flush(self) -> None:
        self.gate.set()
        super().flush()

    def _send(self, path: Path, there: bool) -> None:
        self.gate.wait()
        super()._send(path, there)


class TestMirror:
    def test_everything_is_copied_and_what_is_not_kept_is_removed(
        self, stopped: Run, uri: str, raw: dict[str, Any]
    ) -> None:
        for copied in ([8, 9], [9, 12]):
            there = contents(uri)
            local = {
                f"checkpoints/{name}": body for name, body in tiny.tree(stopped.checkpoints).items()
            }
            assert copied_steps(uri) == copied
            assert {n: b for n, b in there.items() if n.startswith("checkpoints/")} == local
            assert json.loads(there["identity.json"]) == stopped.identity()
            rows = [json.loads(line)["step"] for line in there["metrics.jsonl"].splitlines()]
            assert max(rows) == copied[-1]
            if copied == [8, 9]:
                trained(stopped.path, raw, uri)

    @only_file
    def test_what_was_kept_for_copying_alone_goes_in_the_end(self, stopped: Run, uri: str) -> None:
        """The checkpoint of step 9 is being copied when those that replace it are written."""
        copier = LateCopier(stopped)
        saver = Saver(stopped.checkpoints, last(2), copies=copier)
        assert wait_for(lambda: copier.under_way() == 9)
        for step in (10, 11):
            saver.save(content(step))
        saver.flush()
        there = place(f"file://{stopped.path.parent}/late")
        assert steps(stopped.checkpoints) == [10, 11]
        assert {name.split("/")[1] for name in there.walk() if name.startswith("checkpoints")} == {
            "step-000000010",
            "step-000000011",
        }

    def test_the_manifest_comes_last(
        self, raw: dict[str, Any], tmp_path: Path, s3: str, proxy: Proxy
    ) -> None:
        trained(tmp_path / "run", raw, s3, 4)
        written = [
            r.path.partition("?")[0].rpartition("/")[2]
            for r in proxy.requests
            if r.method == "PUT" and "step-000000004/" in r.path
        ]
        names = [name for name in written if name]
        assert names[-1] == MANIFEST and names.count(MANIFEST) == 1
        assert {NETWORKS, OPTIMIZERS, PROGRESS} <= set(names)

    @only_s3
    def test_nothing_is_sent_twice(self, stopped: Run, proxy: Proxy) -> None:
        copier = mirror.of(stopped, stopped.recipe())
        assert copier is not None
        copier.send()
        copier.flush()
        assert not [r for r in proxy.requests if r.method in ("PUT", "POST", "DELETE")]


class TestNewDisk:
    def test_training_goes_on_as_if_nothing_had_happened(
        self, stopped: Run, uri: str, raw: dict[str, Any], generator_run: Path
    ) -> None:
        shutil.rmtree(stopped.path)
        run, fetched = trained(stopped.path, raw, uri)
        assert fetched == 9
        assert_same_end(run, generator_run)
        assert copied_steps(uri) == [9, 12]

    @only_file
    def test_a_damaged_copy_is_passed_over(
        self,
        stopped: Run,
        uri: str,
        raw: dict[str, Any],
        generator_run: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        whole = place(uri).read(f"checkpoints/step-000000009/{NETWORKS}")
        for body in (whole[:-1], whole[:100] + b"x" + whole[101:]):
            place(uri).write(f"checkpoints/step-000000009/{NETWORKS}", lambda: [body])  # noqa: B023
            shutil.rmtree(stopped.path)
            run = tiny.started(stopped.path, raw)
            assert mirror.arrange(run, uri) == 8
            assert NETWORKS in caplog.records[-1].getMessage()
            assert [p.name for p in run.checkpoints.iterdir()] == ["step-000000008"]
        tiny.trained(stopped.path, raw)
        assert_same_end(stopped, generator_run)

    def test_a_cut_copy_counts_as_none(self, stopped: Run, uri: str, raw: dict[str, Any]) -> None:
        place(uri).remove(f"checkpoints/step-000000009/{MANIFEST}")
        shutil.rmtree(stopped.path)
        assert mirror.arrange(tiny.started(stopped.path, raw), uri) == 8

    @only_file
    def test_names_in_a_bucket_do_not_choose_where_files_go(
        self, stopped: Run, uri: str, raw: dict[str, Any]
    ) -> None:
        there = place(uri)
        folder = "checkpoints/step-000000009"
        manifest = json.loads(there.read(f"{folder}/{MANIFEST}"))
        manifest["../../escaped"] = manifest[PROGRESS]
        body = json.dumps(manifest).encode()
        there.write(f"{folder}/{MANIFEST}", lambda: [body])
        there.write("checkpoints/escaped", lambda: [b"x"])
        there.write(f"{folder}/more", lambda: [b"x"])
        there.write(f"checkpoints/step-٣/{MANIFEST}", lambda: [b"x"])
        shutil.rmtree(stopped.path)
        run = tiny.started(stopped.path, raw)
        assert mirror.arrange(run, uri) == 8
        assert {p.name for p in run.path.rglob("*")} & {"escaped", "more"} == set()

    @only_file
    def test_a_damaged_checkpoint_here_is_mended_from_there(
        self, stopped: Run, uri: str, raw: dict[str, Any]
    ) -> None:
        tiny.flip(stopped.checkpoints / "step-000000009" / OPTIMIZERS)
        assert mirror.arrange(stopped, uri) == 9
        newest = store.newest(stopped.checkpoints)
        assert newest is not None and newest.step == 9

    @only_file
    def test_what_is_newer_here_stays(self, stopped: Run, uri: str, raw: dict[str, Any]) -> None:
        trained(stopped.path, raw, None, 2)
        before = tiny.tree(stopped.path)
        assert mirror.arrange(stopped, uri) is None
        (stopped.path / "copies.json").unlink()
        assert tiny.tree(stopped.path) == before
        assert copied_steps(uri) == [8, 9]
        trained(stopped.path, raw, uri, 0)
        assert copied_steps(uri) == [9, 11]

    def test_a_node_that_was_left_behind_catches_up(
        self, raw: dict[str, Any], tmp_path: Path, generator_run: Path
    ) -> None:
        """Two nodes with disks of their own take turns."""
        uri = str(tmp_path / "copies")
        for count, node in ((3, "a"), (4, "b"), (2, "a"), (None, "b")):
            run, _ = trained(tmp_path / node / "run", raw, uri, count)
        assert_same_end(run, generator_run)


class TestFaults:
    def test_a_store_that_fails_does_not_stop_training(
        self,
        raw: dict[str, Any],
        tmp_path: Path,
        s3: str,
        proxy: Proxy,
        generator_run: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """The checkpoint of step 4 cannot be copied; later ones are."""
        run = tiny.started(tmp_path / "run", raw)
        mirror.arrange(run, s3)
        proxy.faults = [Fault(f"4/{OPTIMIZERS}", 99, status=503, method="PUT")]
        tiny.trained(run.path, raw)
        assert_same_end(run, generator_run)
        assert copied_steps(s3) == [8, 12]

    def test_one_that_fails_to_the_end_is_an_error_and_the_same_command_mends_it(
        self,
        raw: dict[str, Any],
        tmp_path: Path,
        s3: str,
        proxy: Proxy,
        generator_run: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        run = tiny.started(tmp_path / "run", raw)
        mirror.arrange(run, s3)
        proxy.faults = [Fault(f"/{OPTIMIZERS}", 10_000, status=503, method="PUT")]
        with pytest.raises(
            SavingError,
            match=r"run could not be copied: s3://.*optimizers.pt could not be written in 2 "
            r"attempts.*; they lie whole in the run, and the same command tries again",
        ):
            tiny.trained(run.path, raw)
        assert run.result() is None and copied_steps(s3) == []
        assert any("training goes on" in r.getMessage() for r in caplog.records)
        proxy.faults = []
        tiny.trained(run.path, raw)
        assert_same_end(run, generator_run)
        assert copied_steps(s3) == [8, 12]

    @only_file
    def test_damage_is_not_copied(self, stopped: Run, uri: str, raw: dict[str, Any]) -> None:
        path = stopped.checkpoints / "step-000000009"
        place(uri).remove(f"checkpoints/{path.name}")
        tiny.flip(path / NETWORKS)
        copier = mirror.of(stopped, stopped.recipe())
        assert copier is not None
        copier.send()
        with pytest.raises(SavingError, match="does not match the hash in its manifest"):
            copier.flush()
        assert copied_steps(uri) == [8]

    @only_s3
    def test_giving_up_leaves_no_thread_and_no_copy(
        self, stopped: Run, uri: str, proxy: Proxy
    ) -> None:
        place(uri).remove("checkpoints/step-000000009")
        gate = threading.Event()
        proxy.faults = [Fault(f"9/{OPTIMIZERS}", gate=gate, method="PUT")]
        copier = mirror.of(stopped, stopped.recipe())
        assert copier is not None
        copier.send()
        assert wait_for(lambda: not proxy.faults[0].times)
        closing = threading.Thread(target=copier.close)
        closing.start()
        assert wait_for(copier._giving_up.is_set)
        gate.set()
        closing.join()
        assert "copies" not in {thread.name for thread in threading.enumerate()}
        assert copied_steps(uri) == [8]
        copier.send()
        copier.flush()
        assert copied_steps(uri) == [8, 9]

    @only_s3
    def test_killed_while_it_sends(self, stopped: Run, uri: str, proxy: Proxy) -> None:
        place(uri).remove("checkpoints/step-000000009")
        proxy.faults = [Fault(f"9/{OPTIMIZERS}", gate=threading.Event(), method="PUT")]
        words = [sys.executable, "-c", _SEND, str(stopped.path)]
        with subprocess.Popen(words, cwd=ROOT, env=ENVIRONMENT | dict(os.environ)) as process:
            assert wait_for(lambda: not proxy.faults[0].times or process.poll() is not None)
            assert process.poll() is None
            process.kill()
        assert f"checkpoints/step-000000009/{NETWORKS}" in place(uri).walk()
        assert copied_steps(uri) == [8]
        shutil.rmtree(stopped.checkpoints)
        assert mirror.arrange(stopped, uri) == 8

    def test_a_store_that_does_not_answer(
        self, raw: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """There is no checkpoint here, and a start from nothing would be worse than none."""
        with Proxy(1) as proxy:
            uri = proxy.s3("bucket/runs")
        run = tiny.started(tmp_path / "run", raw)
        with pytest.raises(ShardError, match="could not be read in 2 attempts"):
            mirror.arrange(run, uri)
        assert not (run.path / "copies.json").exists()
        tiny.trained(run.path, raw, tiny.stop_after(2))
        assert mirror.arrange(run, uri) is None
        assert "cannot be looked at now" in caplog.records[-1].getMessage()
        assert (run.path / "copies.json").exists()


class TestArrange:
    @only_file
    def test_copies_that_are_ahead_are_kept_until_they_are_passed(
        self, stopped: Run, uri: str, raw: dict[str, Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        """The store did not answer at the start, and training began from an older checkpoint."""
        before = contents(uri)
        shutil.rmtree(stopped.checkpoints / "step-000000009")
        shutil.rmtree(stopped.checkpoints / "step-000000008")
        tiny.trained(stopped.path, raw, tiny.stop_after(5))
        assert contents(uri) == before
        assert "copies up to step 9: nothing is copied there until" in caplog.text
        tiny.trained(stopped.path, raw, tiny.stop_after(5))
        assert copied_steps(uri) == [8, 10]

    @only_file
    def test_copies_of_another_run_are_left_alone(
        self, stopped: Run, uri: str, photos: Path, tmp_path: Path
    ) -> None:
        before = contents(uri)
        raw = tiny.generator(photos, {"training.seed": 5, "loss.mmd_weight": 3})
        run = tiny.started(tmp_path / "other" / "run", raw)
        with pytest.raises(
            InputError,
            match=r"holds the copies of another run, which differs in loss.mmd_weight, "
            r"training.seed: choose another place",
        ):
            mirror.arrange(run, uri)
        assert contents(uri) == before and not (run.path / "copies.json").exists()

    @pytest.mark.parametrize(
        ("uri", "sentence"),
        [
            (
                "http://host/x",
                "copies cannot go to http://host/x: allowed are file://, gs://, hdfs://, s3:// and"
                " plain paths",
            ),
            (
                "s3://key:secret@bucket/x",
                r"copies to s3://\*\*\*@bucket/x would write its password into .*copies.json",
            ),
            ("s3://bucket/x?color=red", "has the option 'color'"),
            ("s3:///x", "lacks a bucket"),
        ],
    )
    def test_what_cannot_be_is_refused(
        self, uri: str, sentence: str, raw: dict[str, Any], tmp_path: Path
    ) -> None:
        run = tiny.started(tmp_path / "run", raw)
        with pytest.raises((InputError, ShardError), match=sentence) as caught:
            mirror.arrange(run, uri)
        assert "secret" not in str(caught.value)
        assert not (run.path / "copies.json").exists()

    @only_file
    def test_none_ends_it(self, stopped: Run, uri: str, raw: dict[str, Any]) -> None:
        before = contents(uri)
        trained(stopped.path, raw, None)
        assert contents(uri) == before

    def test_a_plain_path(
        self, raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It means the same place wherever the workers run."""
        monkeypatch.chdir(tmp_path)
        run = tiny.started(tmp_path / "run", raw)
        mirror.arrange(run, "elsewhere")
        monkeypatch.chdir("/")
        tiny.trained(run.path, raw, tiny.stop_after(4))
        assert (
            tmp_path / "elsewhere" / "run" / "checkpoints" / "step-000000004" / MANIFEST
        ).exists()
