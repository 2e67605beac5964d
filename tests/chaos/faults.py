"""What happens to a run, done on purpose: each fault is a function of a scene.

A fault that ends the command gives it again; from the others Ray recovers by itself.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from cluster.checkpoints import store
from tests import tiny
from tests.chaos.scene import Scene
from tests.processes import Process, gone

Fault = Callable[[Scene], None]
STOPPED = 130  # exit code of a command that was asked to stop


def kill_worker(scene: Scene) -> None:
    """kill -9 of one of the workers."""
    os.kill(_one(scene).pid, signal.SIGKILL)


def kill_worker_twice(scene: Scene) -> None:
    """And of one of the next ones before it has trained."""
    before = scene.workers()
    kill_worker(scene)
    scene.driver.wait_for(lambda: bool(set(scene.workers()) - set(before)))
    os.kill(min(set(scene.workers()) - set(before)).pid, signal.SIGKILL)


def kill_driver(scene: Scene) -> None:
    """kill -9 of the command; its workers die with it, or soon."""
    scene.driver.crash()
    scene.start()


def terminate(scene: Scene) -> None:
    """SIGTERM: a checkpoint, and an end in good order."""
    scene.driver.process.send_signal(signal.SIGTERM)
    assert scene.driver.end() == STOPPED, scene.driver.words()
    scene.start()


def stop_worker(scene: Scene) -> None:
    """SIGSTOP of a worker: the others miss it after --stall-seconds."""
    worker = _one(scene)
    os.kill(worker.pid, signal.SIGSTOP)
    scene.driver.wait_for(lambda: not worker.alive())


def remove_node(scene: Scene) -> None:
    """A node of the cluster is lost, with the worker on it; another one joins."""
    assert scene.cluster is not None
    worker = _one(scene)
    (node,) = [node for node in scene.nodes if worker in node.processes()]
    scene.cluster.remove(node)
    scene.nodes.remove(node)
    scene.nodes.append(scene.cluster.add(1))


def fill_disk(scene: Scene) -> None:
    """The disk is full until the command has given up."""
    assert scene.disk is not None
    with scene.disk.filled():
        assert scene.driver.end() == 1, scene.driver.words()
    assert "No space left on device" in scene.driver.err.read_text(), scene.driver.words()
    scene.start()


def damage_checkpoint(scene: Scene) -> None:
    """The newest checkpoint is not what it was when the command is given again."""
    scene.driver.wait_for(lambda: len(_whole(scene)) >= 2)
    workers = scene.workers()
    scene.driver.crash()
    assert gone(set(workers)), "workers outlive their driver"
    scene.chance.choice((_truncate, _flip, _drop_manifest))(scene)
    scene.start()


def _truncate(scene: Scene) -> None:
    file = _file_of_newest(scene)
    os.truncate(file, scene.chance.randrange(file.stat().st_size))


def _flip(scene: Scene) -> None:
    file = _file_of_newest(scene)
    tiny.flip(file, scene.chance.randrange(file.stat().st_size))


def _drop_manifest(scene: Scene) -> None:
    (_whole(scene)[0] / store.MANIFEST).unlink()


def _file_of_newest(scene: Scene) -> Path:
    return scene.chance.choice(sorted(_whole(scene)[0].iterdir()))


def _whole(scene: Scene) -> list[Path]:
    """Whole checkpoints, newest first; each round damages one, so the others may be no longer."""
    found = []
    for path in store.directories(scene.run.checkpoints):
        try:
            store.verify(path)
        except store.CorruptCheckpoint:
            continue
        found.append(path)
    return found


def _one(scene: Scene) -> Process:
    """One of the workers; there may be none for a moment, while more of them are started."""
    scene.driver.wait_for(lambda: bool(scene.training()))
    return scene.chance.choice(scene.training())
