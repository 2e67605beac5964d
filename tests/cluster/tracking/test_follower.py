"""A tracker gets each row once, whatever dies in between, and no failure of it stops a run."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path

import pytest

from cluster import beside
from cluster.locks import LockLost
from cluster.logs import metrics_log
from cluster.runs import Run
from cluster.tracking import choice, keeping, record, results
from cluster.tracking.follower import Follower
from gencomp.errors import InputError
from tests.cluster.tracking.in_memory import Dies, Server, grid, log, new_run
from tests.waiting import wait_for

EVERY_ROW = [(1, False), (2, False), (3, False), (4, False), (4, True), (5, False), (6, False)]


def follower(run: Run, server: Server) -> Follower:
    return Follower(run, "mlflow", lambda: None, connect=server.connect)


def test_rows_grids_and_the_end_arrive_once(tmp_path: Path) -> None:
    run, server = new_run(tmp_path / "run"), Server()
    mine = follower(run, server)
    mine.send()  # nothing was logged yet
    assert server.runs == []
    log(run, [1, 2, 3])
    grid(run, 2)
    mine.send()
    mine.send()
    log(run, [4, 5, 6])
    grid(run, 4)
    mine.end("finished")
    mine.end("finished")
    assert server.steps() == EVERY_ROW
    assert server.grids == [("step-000000002.png", 2), ("step-000000004.png", 4)]
    assert sorted(server.numbers) == list(range(9))
    assert server.ends == ["finished"]
    (described,) = server.runs
    assert described.values == {"system": "dplc", "training.steps": 9}
    assert described.name == "run"


def test_steps_that_are_computed_again_are_not_sent_again(tmp_path: Path) -> None:
    """The loop rewinds its log to the checkpoint, and its rows come with other times."""
    run, server = new_run(tmp_path / "run"), Server()
    log(run, [1, 2, 3, 4, 5])
    follower(run, server).send()
    metrics_log.begin(run.metrics, step=2, starts=2)
    log(run, [3], attempt=2)
    second = follower(run, server)
    second.send()
    log(run, [4, 5, 6], attempt=2)
    second.end("stopped")
    assert server.steps() == EVERY_ROW
    assert [row["attempt"] for row in server.rows] == [1] * 6 + [2]
    assert len({described.id for described in server.runs}) == 1


@pytest.mark.parametrize("error", [Dies(), ConnectionError("reset")], ids=["death", "connection"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("answers", [True, False])
@pytest.mark.parametrize("same_process", [True, False])
def test_a_break_between_sending_and_noting(
    tmp_path: Path, answers: bool, when: str, same_process: bool, error: BaseException
) -> None:
    """Who can be asked gets each row exactly once; who cannot gets none twice."""
    run, server = new_run(tmp_path / "run"), Server(answers)
    mine = follower(run, server)
    log(run, [1, 2])
    mine.send()
    log(run, [3, 4])
    server.fault = (when, error)
    with pytest.raises(type(error)):
        mine.send()
    if not same_process:  # the run goes on from a checkpoint
        mine = follower(run, server)
        metrics_log.begin(run.metrics, step=3, starts=2)
        log(run, [4], attempt=2)
    mine.send()
    log(run, [5, 6], attempt=2)
    mine.end("finished")
    lost = when == "before" and not answers
    assert server.steps() == [one for one in EVERY_ROW if not (lost and one[0] in (3, 4))]
    assert server.numbers == sorted(set(server.numbers))  # W&B's own step never falls


@pytest.mark.parametrize("kept", [0, 2, 4, 6])
def test_what_died_with_its_process_is_sent_again(tmp_path: Path, kept: int) -> None:
    """W&B took rows and a grid, and had not written all of them."""
    run, server = new_run(tmp_path / "run"), Server(answers=False)
    log(run, [1, 2])
    follower(run, server).end("stopped")
    log(run, [3, 4])
    grid(run, 4)
    follower(run, server).send()
    assert len(server.rows) == 5
    server.tells = True
    del server.rows[kept:]
    if kept < 6:
        server.grids.clear()
    metrics_log.begin(run.metrics, step=3, starts=2)
    second = follower(run, server)
    log(run, [4, 5], attempt=2)
    second.send()
    log(run, [6], attempt=2)
    second.end("finished")
    assert server.steps() == (EVERY_ROW if kept else EVERY_ROW[2:])
    assert server.grids == [("step-000000004.png", 4)]


@pytest.mark.parametrize("when", ["before a grid", "after a grid"])
def test_a_break_at_a_grid(tmp_path: Path, when: str) -> None:
    run, server = new_run(tmp_path / "run"), Server()
    grid(run, 2)
    server.fault = (when, Dies())
    with pytest.raises(Dies):
        follower(run, server).send()
    follower(run, server).send()
    assert server.grids == [("step-000000002.png", 2)]


def test_many_rows_are_sent_in_batches(tmp_path: Path) -> None:
    run, server = new_run(tmp_path / "run"), Server()
    log(run, range(1, 1202), every=10_000)
    server.fault = ("after", Dies())
    with pytest.raises(Dies):
        follower(run, server).send()
    assert len(server.rows) == 500  # of two metrics each
    follower(run, server).send()
    assert [step for step, _ in server.steps()] == list(range(1, 1202))


def test_nothing_is_sent_by_who_has_lost_the_run(tmp_path: Path) -> None:
    run, server = new_run(tmp_path / "run"), Server()
    log(run, [1])

    def lost() -> None:
        raise LockLost("taken over")

    with pytest.raises(LockLost):
        Follower(run, "mlflow", lost, connect=server.connect).send()
    assert server.rows == [] and not (run.path / record.FILE).exists()


def test_each_tracker_has_its_own_record(tmp_path: Path) -> None:
    run, one, other = new_run(tmp_path / "run"), Server(), Server()
    log(run, [1, 2])
    Follower(run, "mlflow", lambda: None, connect=one.connect).send()
    Follower(run, "wandb", lambda: None, connect=other.connect).send()
    assert one.steps() == other.steps() == EVERY_ROW[:2]
    assert one.runs[0].id != other.runs[0].id


def test_the_project_stays_that_of_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, server = new_run(tmp_path / "run"), Server()
    for name in ("first", "second"):
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
        follower(run, server).opened()
    assert [described.project for described in server.runs] == ["first", "first"]


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "PERIOD", 0.01)
    monkeypatch.setattr(beside, "_PATIENCE", 0.2)


@pytest.mark.usefixtures("fast")
def test_a_tracker_that_comes_back_gets_what_it_missed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning while it is away, one word when it is back."""
    caplog.set_level(logging.INFO, "cluster")
    run, server, tries = new_run(tmp_path / "run"), Server(), 0

    def connect(name: choice.Name, described: object) -> object:
        nonlocal tries
        tries += 1
        if tries < 5:
            raise ConnectionError("no route\nto host")
        return server.connect(name, described)  # type: ignore[arg-type]

    with keeping.tracked(run, "mlflow", lambda: None, connect):  # type: ignore[arg-type]
        log(run, [1, 2, 3])
        assert wait_for(lambda: len(server.rows) == 3)
        log(run, [4, 5, 6])
        (run.path / "result.json").write_text("{}")
    assert server.steps() == EVERY_ROW and server.ends == ["finished"]
    said = [(one.levelname, one.getMessage()) for one in caplog.records]
    assert [level for level, _ in said] == ["WARNING", "INFO", "INFO"]
    assert "ConnectionError: no route to host; the run goes on" in said[0][1]


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("damage", ["server", "record"])
def test_a_tracker_that_never_works_does_not_stop_a_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    run, server = new_run(tmp_path / "run"), Server()
    if damage == "record":
        (run.path / record.FILE).write_text("{")

    def connect(name: choice.Name, described: object) -> object:
        raise OSError("away")

    with keeping.tracked(
        run,
        "mlflow",
        lambda: None,
        connect if damage == "server" else server.connect,  # type: ignore[arg-type]
    ):
        log(run, [1, 2, 3])
    assert server.rows == []
    assert [one.levelname for one in caplog.records] == ["WARNING"]


@pytest.mark.usefixtures("fast")
def test_a_tracker_that_hangs_does_not_hold_the_end_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, free = new_run(tmp_path / "run"), threading.Event()

    def connect(name: choice.Name, described: object) -> object:
        free.wait()
        raise OSError("away")

    with keeping.tracked(run, "mlflow", lambda: None, connect):  # type: ignore[arg-type]
        log(run, [1])
    assert "the same command sends it" in caplog.records[-1].getMessage()
    free.set()


@pytest.mark.parametrize(
    ("body", "outcome"), [("stop", "stopped"), ("finish", "finished"), ("fail", "failed")]
)
def test_the_tracker_is_told_how_the_run_ended(tmp_path: Path, body: str, outcome: str) -> None:
    run, server = new_run(tmp_path / "run"), Server()
    log(run, [1])
    try:
        with keeping.tracked(run, "mlflow", lambda: None, server.connect):
            if body == "finish":
                (run.path / "result.json").write_text("{}")
            if body == "fail":
                raise RuntimeError("training failed")
    except RuntimeError:
        assert body == "fail"
    assert server.ends == [outcome]


def test_a_result_is_sent_once(generator_run: Path, tmp_path: Path) -> None:
    server = Server()
    run = Run(tmp_path / "run")
    run.path.symlink_to(generator_run)
    result = tmp_path / "evaluations" / "mine" / "metrics.json"
    result.parent.mkdir(parents=True)

    def send(value: float) -> None:
        content = {"metrics": {"mse": {"value": value, "low": 0}, "pv": {"value": None}}}
        result.write_text(json.dumps(content))
        results.send_evaluation(run, "mlflow", result, server.connect)

    server.fault = ("before", ConnectionError("reset"))
    with pytest.raises(results.NotTaken, match="which is written: ConnectionError: reset"):
        send(0.25)
    send(0.25)
    assert server.values == {"evaluations/mine/mse": 0.25}
    assert server.files == {"evaluations/mine/metrics.json": result.read_bytes()}
    server.values.clear()
    send(0.25)
    assert server.values == {}
    send(0.5)
    assert server.values == {"evaluations/mine/mse": 0.5}
    assert server.ends[-1] == "finished"
    (generator_run / record.FILE).unlink()


@pytest.mark.parametrize(
    ("name", "module", "address", "said"),
    [
        ("mlflow", None, "http://127.0.0.1:1", r"pip install 'gencomp\[mlflow\]'"),
        ("wandb", None, "", r"pip install 'gencomp\[wandb\]'"),
        ("mlflow", object(), "", "MLFLOW_TRACKING_URI"),
    ],
)
def test_a_tracker_that_cannot_be_had_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    name: choice.Name,
    module: object,
    address: str,
    said: str,
) -> None:
    monkeypatch.setattr(choice, "find_spec", lambda name: module)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(InputError, match=said):
        choice.require(name)
