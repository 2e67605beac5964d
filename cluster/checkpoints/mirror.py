"""Copies of a run's checkpoints in another place: an object store, or a directory elsewhere.

    URI/NAME/identity.json                     the identity of the run whose copies these are
    URI/NAME/metrics.jsonl                     the metrics log as of the newest copy
    URI/NAME/checkpoints/step-000000200/...    as in the run; manifest.json is written last

The copies mirror the run directory: new checkpoints are sent, and those that are no longer kept are
removed. A directory without a manifest is a copy that was interrupted, and does not count. A
checkpoint that is fetched is checked against its manifest like any other. (For interrupted uploads,
a bucket may also need the rule `AbortIncompleteMultipartUpload`, which removes them.)
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import xxhash

from cluster.checkpoints import store
from cluster.checkpoints.retention import Retention
from cluster.checkpoints.store import MANIFEST, CorruptCheckpoint
from cluster.checkpoints.writer import Kept, SavingError, mend_of
from cluster.files import write_bytes, write_text
from cluster.runs import Run
from gencomp.errors import InputError
from gencomp.recipes.schema import BaseRecipe
from shards.errors import ShardError
from shards.remote import stores
from shards.remote.clients import Patience, shown
from shards.remote.stores import MissingObject, Store

log = logging.getLogger(__name__)

PATIENCE = Patience(attempts=4)
_WRITABLE = ("file", "gs", "hdfs", "s3")
_IDENTITY, _LOG, _CHECKPOINTS = "identity.json", "metrics.jsonl", "checkpoints"
_BLOCK = 8 << 20


def arrange(run: Run, uri: str | None) -> int | None:
    """Set where the copies of a run go from now on, and fetch the newest one if it is ahead.

    Every process that trains the run reads the place from RUN/copies.json, so this must be called
    before they start, with the run's lock held.

    Args:
        run: an entered run.
        uri: s3://, gs://, hdfs://, file:// or a directory; None for no copies.

    Returns:
        The step of the checkpoint that was fetched, or None.

    Raises:
        InputError: nothing can be written to the place, or it holds the copies of another run.
        ShardError: the place cannot be reached, and the run has no whole checkpoint to go on from.
        SavingError: there is no room for the checkpoint that is fetched.
    """
    if uri is None:
        _note(run).unlink(missing_ok=True)
        return None
    place, fetched = place_of(run, uri), None
    try:
        _claim(run, place)
        fetched = fetch_newest(run, place)
    except ShardError as error:
        if _local_step(run) is None:
            raise
        log.warning("the copies of %s cannot be looked at now: %s", run.path, error)
    absolute = uri if "://" in uri else str(Path(uri).absolute())
    write_text(_note(run), json.dumps({"uri": absolute}))
    return fetched


def fetch_newest(run: Run, place: Store) -> int | None:
    """Fetch the newest whole copy, unless the run itself has a whole checkpoint that is as new.

    Returns:
        The step of the checkpoint that was fetched, or None.

    Raises:
        ShardError: the store cannot be read.
        SavingError: there is no room for the checkpoint.
    """
    local = _local_step(run)
    for step in sorted(_whole(place.walk()), reverse=True):
        if local is not None and step <= local:
            return None
        try:
            _fetch(run, place, step)
        except (CorruptCheckpoint, MissingObject) as error:
            log.warning("the copy of step %d in %s is not whole: %s", step, place.uri, error)
            continue
        except OSError as error:
            raise SavingError(
                f"the checkpoint of step {step} could not be fetched into {run.checkpoints}: "
                f"{error.strerror or error}; {mend_of(error)}, and run the same command again"
            ) from error
        log.info("fetched the checkpoint of step %d from %s", step, place.uri)
        return step
    return None


def of(run: Run, recipe: BaseRecipe) -> Copier | None:
    """The copier of a run's checkpoints; None unless `arrange` has set a place for copies."""
    try:
        uri = json.loads(_note(run).read_text(encoding="utf-8"))["uri"]
    except FileNotFoundError:
        return None
    return Copier(run, place_of(run, uri), Retention(run.metrics, recipe).kept)


class Copier:
    """Mirrors a run's checkpoints in a thread of its own, the newest first.

    A failure is logged as a warning, and the copier tries again at the next checkpoint. Training
    waits for the copier only at its end.
    """

    def __init__(self, run: Run, place: Store, kept: Kept) -> None:
        self._run, self._place, self._kept = run, place, kept
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._again = False
        self._giving_up = threading.Event()
        self._under_way: int | None = None
        self._failure: Exception | None = None

    def send(self) -> None:
        """Begin to copy what is new, without waiting."""
        with self._lock:
            self._again = True
            if self._thread is None:
                # The process may end before the thread: an interrupted copy does not count.
                self._thread = threading.Thread(target=self._work, name="copies", daemon=True)
                self._thread.start()

    def under_way(self) -> int | None:
        """The step of the checkpoint that is being read now."""
        return self._under_way

    def flush(self) -> None:
        """Wait until everything is copied.

        Raises:
            SavingError: the last attempt to copy has failed too.
        """
        self._join()
        if self._again or self._failure is not None:
            self.send()
            self._join()
        if self._failure is not None:
            raise SavingError(
                f"the checkpoints of {self._run.path} could not be copied: {self._failure}; they "
                "lie whole in the run, and the same command tries again"
            )

    def close(self) -> None:
        """Interrupt the copying that is under way."""
        self._giving_up.set()
        self._join()
        self._giving_up.clear()

    def _join(self) -> None:
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._again or self._giving_up.is_set():
                    self._thread = None
                    return
                self._again = False
            try:
                self._mirror()
                self._failure = None
            except _GivenUp:
                self._again = True
            except Exception as error:
                self._failure = error
                log.warning("checkpoints are not copied now: %s; training goes on", error)
            self._under_way = None

    def _mirror(self) -> None:
        """Send the checkpoints that are kept, the newest first, and remove all other copies."""
        _claim(self._run, self._place)
        names = self._place.walk()
        whole = _whole(names)
        local = {store.step_of(p): p for p in store.directories(self._run.checkpoints)}
        if ahead := [step for step in whole if step > max(local, default=-1)]:
            # The store did not answer when the run started; its later checkpoints must not be lost.
            log.warning(
                "%s has copies up to step %d: nothing is copied there until training has passed it",
                self._place.uri,
                max(ahead),
            )
            return
        kept = self._kept(local)
        for step in sorted(kept, reverse=True):
            self._under_way = step
            try:
                self._send(local[step], step in whole)
            except _Gone:
                log.info("the checkpoint of step %d was removed before it was copied", step)
        self._under_way = None
        for name in sorted({name.split("/")[1] for name in names if _is_checkpoint(name)}):
            if store.step_of(Path(name)) not in kept:
                _remove(self._place, f"{_CHECKPOINTS}/{name}")

    def _send(self, path: Path, there: bool) -> None:
        """Copy one checkpoint, unless its copy exists already."""
        target = f"{_CHECKPOINTS}/{path.name}"
        manifest = b"".join(self._pieces(path / MANIFEST))
        if there:
            if self._place.read(f"{target}/{MANIFEST}") == manifest:
                return
            self._place.remove(f"{target}/{MANIFEST}")
        for name, entry in json.loads(manifest).items():
            self._place.write(
                f"{target}/{name}",
                lambda: self._pieces(path / name, entry["xxh3_128"]),  # noqa: B023
            )
        if self._run.metrics.exists():
            self._place.write(_LOG, lambda: self._pieces(self._run.metrics))
        self._place.write(f"{target}/{MANIFEST}", lambda: [manifest])

    def _pieces(self, path: Path, expected: str | None = None) -> Iterator[bytes]:
        """The bytes of a file, whose hash is compared while it is read."""
        hasher = xxhash.xxh3_128()
        try:
            with path.open("rb") as file:
                while piece := file.read(_BLOCK):
                    if self._giving_up.is_set():
                        raise _GivenUp
                    hasher.update(piece)
                    yield piece
        except FileNotFoundError:
            raise _Gone from None
        if expected is not None and hasher.hexdigest() != expected:
            raise CorruptCheckpoint(f"{path} does not match the hash in its manifest")


class _GivenUp(Exception):
    """Raised where copying is to be interrupted."""


class _Gone(Exception):
    """Raised where a local file no longer exists."""


def _note(run: Run) -> Path:
    return run.path / "copies.json"


def place_of(run: Run, uri: str) -> Store:
    """The place of the copies of one run. The place itself is not asked for anything yet.

    Raises:
        InputError: no copies can go to that place.
    """
    if "://" not in uri:
        return stores.store(Path(uri).absolute() / run.name)
    parts = urlsplit(uri)
    if parts.scheme not in _WRITABLE:
        allowed = ", ".join(f"{scheme}://" for scheme in _WRITABLE)
        raise InputError(f"copies cannot go to {shown(uri)}: allowed are {allowed} and plain paths")
    if parts.password:
        raise InputError(
            f"copies to {shown(uri)} would write its password into {_note(run)}: leave it out and "
            "give the credentials in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
        )
    stores.store(uri, PATIENCE)  # an impossible address is refused here
    address, question, options = uri.partition("?")
    slash = "" if address.endswith("/") else "/"
    return stores.store(f"{address}{slash}{quote(run.name)}{question}{options}", PATIENCE)


def _claim(run: Run, place: Store) -> None:
    """Write the identity of the run beside its copies, or compare it with the one that is there."""
    mine = run.identity()
    try:
        theirs = json.loads(place.read(_IDENTITY))
    except MissingObject:
        text = json.dumps(mine, indent=1).encode()
        place.write(_IDENTITY, lambda: [text])
        return
    except ValueError as error:
        if isinstance(error, ShardError):
            raise
        raise InputError(f"{place.uri}/{_IDENTITY} is damaged: {error}") from None
    if theirs != mine:
        keys = sorted(k for k in {*mine, *theirs} if mine.get(k) != theirs.get(k))
        raise InputError(
            f"{place.uri} holds the copies of another run, which differs in {', '.join(keys)}: "
            "choose another place, or another --name"
        )


def _local_step(run: Run) -> int | None:
    """The step of the newest whole checkpoint in the run."""
    try:
        found = store.newest(run.checkpoints)
    except CorruptCheckpoint:
        return None
    return None if found is None else found.step


def _is_checkpoint(name: str) -> bool:
    parts = name.split("/")
    if len(parts) != 3 or parts[0] != _CHECKPOINTS:
        return False
    prefix, _, number = parts[1].partition("-")
    return prefix == "step" and number.isascii() and number.isdigit()


def _whole(names: list[str]) -> set[int]:
    """The steps whose copies are whole."""
    return {
        store.step_of(Path(name).parent)
        for name in names
        if _is_checkpoint(name) and name.endswith(f"/{MANIFEST}")
    }


def _remove(place: Store, folder: str) -> None:
    """Remove a copy, its manifest first, so that an interrupted removal leaves no whole copy."""
    place.remove(f"{folder}/{MANIFEST}")
    place.remove(folder)


def _fetch(run: Run, place: Store, step: int) -> None:
    folder = f"{_CHECKPOINTS}/{store.name_of(step)}"
    run.checkpoints.mkdir(exist_ok=True)
    with store.partial(run.checkpoints, step) as partial:
        names = [n.rpartition("/")[2] for n in place.walk() if n.startswith(f"{folder}/")]
        # Other names are ignored: the content of a bucket must not choose where files are written.
        for name in store.FILES:
            if name in names:
                with store.HashedFile(partial / name) as file:
                    for piece in place.pieces(f"{folder}/{name}"):
                        file.write(piece)
        store.verify(partial)
        try:
            # The log that reaches up to this step is written before the checkpoint takes its name.
            write_bytes(run.metrics, place.read(_LOG))
        except MissingObject:
            log.warning("%s has no %s: the log of the run begins here", place.uri, _LOG)
