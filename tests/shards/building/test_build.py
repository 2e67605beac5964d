"""Building gives the same bytes however it went, loses nothing, overwrites nothing."""

from __future__ import annotations

import contextlib
import filecmp
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset
import xxhash
from webdataset.writer import TarWriter

from shards import open_set
from shards.building.build import OnError, build, build_source
from shards.building.sources import SOURCES, Listed, Source
from shards.building.sources import photos as photos_module
from shards.building.sources.photos import LEAST_DEVIATION, PHOTOGRAPHS, photos
from shards.building.writer import NewSample, write_shard
from shards.errors import ShardError
from shards.info import Transform, read_info
from tests.processes import ENVIRONMENT, descendants, gone
from tests.shards.numbered import driven, numbered
from tests.waiting import PATIENCE, wait_for

COUNTS = {"train": 130, "test": 35}


def same_files(a: Path, b: Path) -> bool:
    names = sorted(p.name for p in a.iterdir())
    assert names == sorted(p.name for p in b.iterdir())
    return not any(filecmp.cmpfiles(a, b, names, shallow=False)[1:])


def stamps(directory: Path) -> dict[str, tuple[int, int]]:
    """What changes when a file is written again."""
    found = sorted(directory.glob("*.tar"))
    return {p.name: (p.stat().st_mtime_ns, p.stat().st_ino) for p in found}


def building(out: Path) -> Path:
    return out.parent / f".{out.name}.building"


def started(directory: Path) -> dict[str, tuple[int, int]]:
    """The finished shards in the workplace of `directory`."""
    done = {p.name.removesuffix(".part") for p in building(directory).glob("*/parts/*.part")}
    places = building(directory).glob("*/set")
    return {n: s for place in places for n, s in stamps(place).items() if n in done}


def interrupted(source: Source, out: Path, on_error: OnError = "stop") -> None:
    """A build that leaves two shards of 20 behind."""

    def stop(split: str, done: int, total: int) -> None:
        if done >= 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_source(source, out, shard_size=20, on_error=on_error, processes=1, progress=stop)
    assert list(started(out)) == ["train-000000.tar", "train-000001.tar"]


@contextlib.contextmanager
def driver(out: Path, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """A process, the first of its group, that builds the source `driven`."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.shards.numbered", str(out), str(seconds)],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    with child:
        try:
            yield child
        finally:
            child.kill()


def test_photos(built: Path) -> None:
    made = open_set(built)
    table = pq.read_table(built / "index.parquet").to_pylist()
    assert sum(made.splits.values()) == len(table)
    for row in table:
        assert row["source"] in PHOTOGRAPHS[row["split"]]
        assert row["key"].startswith(Path(row["source"]).stem)
    for sample in made.split("test").read_many(np.arange(10)):
        assert sample.image.shape == (32, 32, 3) and sample.image.dtype == np.uint8
        assert sample.image.mean(axis=2).std() >= LEAST_DEVIATION
        name, reduction, y, x = sample.key.rsplit("-", 3)
        whole = photos_module._reduced(f"{name}.png", int(reduction[1:]))
        corner = int(x[1:]), int(y[1:])
        crop = whole.crop((*corner, corner[0] + 32, corner[1] + 32))
        assert np.array_equal(sample.image, np.asarray(crop))


def test_the_default_photo_set_is_large_enough() -> None:
    """Counts of crops before and after the near-constant ones are dropped, without encoding."""

    def kept(crop: photos_module.Crop) -> bool:
        box = (crop.x, crop.y, crop.x + 64, crop.y + 64)
        pixels = np.asarray(photos_module._reduced(crop.path, crop.reduction).crop(box), np.float64)
        return bool(pixels.mean(axis=2).std() >= LEAST_DEVIATION)

    splits = photos().splits.items()
    counts = {split: sum(map(kept, items.block(0, len(items)))) for split, items in splits}
    assert counts == {"train": 5257, "test": 922}


def test_the_two_views_of_one_scene_share_a_split() -> None:
    assert {"motorcycle_left.png", "motorcycle_right.png"} <= set(PHOTOGRAPHS["train"])
    assert not set(PHOTOGRAPHS["train"]) & set(PHOTOGRAPHS["test"])


def test_photos_keep_their_pixels_in_every_lossless_storage(built: Path, tmp_path: Path) -> None:
    options = {"size": "32", "storage": "webp"}
    webp = build("photos", tmp_path / "webp", options=options, shard_size=20, limit=30)
    assert webp.info.transform.storage == "webp" and webp.info.transform.size == (32, 32)
    png, other = open_set(built).split("train"), webp.split("train")
    for row in range(len(other)):
        assert png.key(row) == other.key(row)
        assert np.array_equal(png.read(row).image, other.read(row).image)


def test_a_set_holds_what_its_source_gave(tmp_path: Path) -> None:
    source = numbered(COUNTS, bad=(7, 60), keep=3)
    made = build_source(source, tmp_path / "set", shard_size=20, on_error="skip", processes=1)
    table = pq.read_table(made.path / "index.parquet").to_pylist()
    kept = {split: [i for i in range(n) if i % 3 == 0 and i != 60] for split, n in COUNTS.items()}
    assert made.splits == {split: len(numbers) for split, numbers in kept.items()}
    assert [s.path for s in made.info.skipped] == ["item 7", "item 60", "item 7"]
    assert made.info.maps == ["label.png", "instance.png"] and made.info.classes == ["even", "odd"]
    for row in table:
        number = int(row["key"].removeprefix("n/"))
        assert row["shard"] == f"{row['split']}-{number // 20:06d}.tar"
        assert row["source"] == f"number {number}" and row["label"] == number % 2
        content = (made.path / row["shard"]).read_bytes()
        names = [member["name"] for member in row["members"]]
        assert names == ["png", "label.png", "instance.png", "cls", "json"]
        last = row["members"][-1]
        assert json.loads(content[last["offset"] :][: last["size"]]) == {"number": number}
    for shard in (s for split in made.info.splits.values() for s in split.shards):
        content = (made.path / shard.name).read_bytes()
        assert (shard.bytes, shard.hash) == (len(content), xxhash.xxh3_128_hexdigest(content))


def test_any_number_of_processes_gives_the_same_bytes(tmp_path: Path) -> None:
    source = numbered(COUNTS, bad=(7, 60), keep=3)
    for processes in (1, 2, 3):
        out = tmp_path / str(processes) / "set"
        made = build_source(source, out, shard_size=20, on_error="skip", processes=processes)
        assert same_files(tmp_path / "1" / "set", made.path)
    assert not building(out).exists()


def test_a_build_killed_at_any_moment_goes_on(tmp_path: Path) -> None:
    """SIGKILL, again and again: the same bytes in the end, and no finished shard made twice."""
    moments = random.Random(0)
    out = tmp_path / "killed" / "set"
    done: dict[str, tuple[int, int]] = {}
    for _ in range(3):
        with driver(out, seconds=0.02) as child:  # 0.4 s a shard
            assert wait_for(lambda before=done: len(started(out)) > len(before))
            time.sleep(moments.uniform(0, 0.3))
            workers = descendants(child.pid)
            child.kill()
        assert gone(workers), "workers outlived the build"
        assert not out.exists()
        now = started(out)
        assert done.items() <= now.items(), "a finished shard was written again"
        done = now
    assert 3 <= len(done) < 15
    with driver(out, seconds=0.0) as child:
        _, errors = child.communicate()
        assert (child.returncode, errors) == (0, "")
    assert done.items() <= stamps(out).items()
    assert not building(out).exists()
    source = driven()
    whole = build_source(source, tmp_path / "whole" / "set", shard_size=20, on_error="skip")
    assert same_files(whole.path, out)


def test_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    with driver(tmp_path / "set", seconds=1.0) as child:  # 20 seconds a shard
        assert child.stdout is not None and child.stdout.readline()
        workers = descendants(child.pid)
        os.killpg(child.pid, signal.SIGINT)
        _, errors = child.communicate()
        assert child.returncode != 0 and errors.rstrip().endswith("KeyboardInterrupt")
        assert errors.count("Traceback") == 1, "workers have nothing to say about it"
        assert gone(workers) and not started(tmp_path / "set"), "a shard was waited for"


def test_a_killed_worker_is_one_sentence_and_loses_nothing(tmp_path: Path) -> None:
    with driver(tmp_path / "set", seconds=0.01) as child:
        assert child.stdout is not None and child.stdout.readline()

        def workers() -> list[int]:
            return [p.pid for p in descendants(child.pid) if "spawn_main" in p.command()]

        assert wait_for(lambda: len(started(tmp_path / "set")) > 1)
        os.kill(workers()[0], signal.SIGKILL)
        _, errors = child.communicate()
        assert child.returncode != 0 and "ShardError: a worker process was killed" in errors
    done = started(tmp_path / "set")
    source = driven()
    build_source(source, tmp_path / "set", shard_size=20, on_error="skip")
    assert done and done.items() <= stamps(tmp_path / "set").items()


def test_a_second_build_of_the_same_set_is_refused(tmp_path: Path) -> None:
    refused = []

    def build_again(split: str, done: int, total: int) -> None:
        with pytest.raises(
            ShardError, match=rf"is being built by process {os.getpid()} on .*: wait"
        ):
            build_source(numbered({"train": 40}), tmp_path / "set", shard_size=20)
        refused.append(done)

    build_source(numbered({"train": 40}), tmp_path / "set", shard_size=20, progress=build_again)
    assert refused[-1] == 40


@pytest.mark.parametrize("processes", [1, 2])
def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path: Path, processes: int) -> None:
    """Later items are larger: past some shard, files come upon the limit of their size."""
    source, out = numbered({"train": 100}, growth=2), tmp_path / "set"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, limits[1]))
        with pytest.raises(ShardError, match=r"cannot write .*: File too large: mend that and run"):
            build_source(source, out, shard_size=10, processes=processes)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    done = started(out)
    assert len(done) > 1 and not out.exists()
    assert not list(building(out).glob("*/parts/*.tmp"))
    build_source(source, out, shard_size=10)
    assert done.items() <= stamps(out).items()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small disk")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this container may not mount")
    try:
        source = numbered({"train": 200}, growth=4)
        with pytest.raises(ShardError, match=r"cannot write .*: No space left on device: mend"):
            build_source(source, disk / "set", shard_size=10)
        done = started(disk / "set")
        assert done and not (disk / "set").exists()
        subprocess.run(["mount", "-o", "remount,size=60m", str(disk)], check=True)
        build_source(source, disk / "set", shard_size=10)
        assert done.items() <= stamps(disk / "set").items()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("processes", [1, 3])
def test_the_first_bad_item_is_named_whoever_meets_one_first(
    tmp_path: Path, processes: int
) -> None:
    """Item 40 is the first of its shard, item 39 the last of the shard before."""
    source = numbered({"train": 200}, bad=(39, 40, 99), seconds=0.003)
    with pytest.raises(ShardError, match=r"^item 39 is no number$"):
        build_source(source, tmp_path / "set", shard_size=20, processes=processes)
    done = started(tmp_path / "set")
    assert "train-000000.tar" in done and not (tmp_path / "set").exists()
    made = build_source(source, tmp_path / "set", shard_size=20, on_error="skip")
    assert [s.path for s in made.info.skipped] == ["item 39", "item 40", "item 99"]
    assert done.items() <= stamps(made.path).items(), "finished shards serve `skip` too"


def test_what_a_build_that_skips_left_still_stops_one_that_does_not(tmp_path: Path) -> None:
    source, out = numbered({"train": 100}, bad=(25,)), tmp_path / "set"
    interrupted(source, out, on_error="skip")
    with pytest.raises(ShardError, match=r"^item 25 is no number$"):
        build_source(source, out, shard_size=20)


def test_other_parameters_start_anew(tmp_path: Path) -> None:
    out = tmp_path / "set"
    interrupted(numbered({"train": 100}), out)
    made = build_source(numbered({"train": 70}), out, shard_size=20)
    assert made.splits == {"train": 70} and len(stamps(out)) == 4
    assert list(tmp_path.iterdir()) == [out]


def test_a_damaged_shard_of_an_unfinished_build_is_made_again(tmp_path: Path) -> None:
    source = numbered({"train": 100}, bad=(99,))
    with pytest.raises(ShardError, match="item 99"):
        build_source(source, tmp_path / "set", shard_size=20, processes=1)
    before = started(tmp_path / "set")
    (place,) = building(tmp_path / "set").glob("*/set")
    whole = (place / "train-000001.tar").read_bytes()
    (place / "train-000001.tar").write_bytes(whole[:3000] + b"\1" + whole[3001:])
    (place / "train-000002.tar").unlink()
    part = place.parent / "parts" / "train-000003.tar.part"
    part.write_bytes(part.read_bytes()[:-1])
    made = build_source(source, tmp_path / "set", shard_size=20, on_error="skip", processes=1)
    assert (made.path / "train-000001.tar").read_bytes() == whole
    kept = [name for name, stamp in stamps(made.path).items() if before.get(name) == stamp]
    assert kept == ["train-000000.tar"]
    assert made.splits == {"train": 99}


def test_three_million_items_need_little_memory(tmp_path: Path) -> None:
    """Nearly all of them are left out by their source; the parent only counts and merges."""
    source = numbered({"train": 3_000_000}, keep=200_000, growth=1 << 40)
    tracemalloc.start()
    try:
        made = build_source(source, tmp_path / "set", shard_size=50_000, processes=2)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert made.splits == {"train": 15}


def test_progress_is_finer_than_shards_and_reaches_the_end(tmp_path: Path) -> None:
    for processes in (1, 2):
        seen: dict[str, list[tuple[int, int]]] = {"train": [], "test": []}
        build_source(
            numbered({"train": 100, "test": 10}, seconds=0.02), tmp_path / str(processes),
            shard_size=50, processes=processes,
            progress=lambda split, done, total, seen=seen: seen[split].append((done, total)),
        )  # fmt: skip
        for split, total in (("train", 100), ("test", 10)):
            assert seen[split] == sorted(set(seen[split])) and seen[split][-1] == (total, total)
        assert len(seen["train"]) > 2, "the shards of train"


def test_a_split_without_samples_is_left_out(tmp_path: Path) -> None:
    source = numbered({"train": 10, "val": 0, "test": 3}, bad=(0, 1, 2))
    made = build_source(source, tmp_path / "set", on_error="skip")
    assert made.splits == {"train": 7} and len(made.info.skipped) == 6
    with pytest.raises(ShardError, match="the source numbered gave no image that can be read"):
        build_source(source, tmp_path / "none", limit=3, on_error="skip")
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_a_script_without_a_main_guard_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(
        "from shards.building.build import build_source\n"
        "from tests.shards.numbered import numbered\n"
        "build_source(numbered({'train': 40}), 'set', shard_size=10, processes=2)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=ENVIRONMENT, capture_output=True,
        text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert '(a script needs `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]


def test_webdataset_reads_what_we_write(tmp_path: Path) -> None:
    made = build_source(numbered({"train": 50}), tmp_path / "set", shard_size=20)
    ours = made.split("train")
    urls = [str(tmp_path / "set" / s.name) for s in made.info.splits["train"].shards]
    theirs = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert len(theirs) == len(ours) == 50
    for row, sample in enumerate(theirs):
        assert sample["__key__"] == ours.key(row)
        assert int(sample["cls"]) == ours.label(row)
        assert json.loads(sample["json"]) == {"number": row}
        decoded = next(iter(webdataset.decode("rgb8")([dict(sample)])))
        assert np.array_equal(decoded["png"], ours.read(row).image)


def test_tars_are_those_that_webdataset_writes(tmp_path: Path) -> None:
    """Byte for byte, where members are in webdataset's order (by name); also for long names."""
    samples = [
        NewSample(
            f"{'deep/' * 30}näme{i}", {"cls": b"3", "png": bytes(500 * i)}, "png", 1, 1, 3, ""
        )
        for i in range(3)
    ]
    with open(tmp_path / "theirs", "wb") as stream:
        with TarWriter(
            stream, user="gencomp", group="gencomp", mode=0o444, mtime=0, encoder=False,
            compress=False, format="PAX_FORMAT",
        ) as writer:  # fmt: skip
            for sample in samples:
                writer.write({"__key__": sample.key, **sample.members})
    write_shard(tmp_path / "ours", "train", "ours", samples)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_a_key_that_webdataset_would_cut_is_refused(tmp_path: Path) -> None:
    for keys in (("a.b",), ("a", "a")):
        samples = [NewSample(key, {"png": b"x"}, "png", 1, 1, None, "") for key in keys]
        with pytest.raises(ShardError, match=r"keys must differ|has two members"):
            write_shard(tmp_path / "x.tar", "train", "x.tar", samples)


def test_a_file_name_that_is_not_utf8_is_latin1(tmp_path: Path, images: Path) -> None:
    os.rename(images / "loose.v2.webp", os.fsencode(images) + b"/caf\xe9.webp")
    split = build(
        "folder", tmp_path / "set", path=images, options={"test_fraction": 0}, processes=1
    ).split("train")
    assert "café" in [split.key(row) for row in range(len(split))]


@pytest.mark.parametrize(
    ("key", "name", "said"),
    [
        ("caf\udce9", "caf\udce9.png", r"the name 'caf\\udce9' is not UTF-8: rename it"),
        ("a/__pairs__/b", "a/__pairs__/b.png", "begins and ends with two underscores"),
    ],
)
def test_a_name_that_cannot_stand_in_a_set_is_skipped(
    key: str, name: str, said: str, tmp_path: Path
) -> None:
    samples = [
        NewSample(one, {"png": b"x"}, "png", 1, 1, None, source)
        for one, source in (("good", "good.png"), (key, name))
    ]
    source = Source("test", {}, Transform(size=None, geometry="", storage="original"),
                    {"train": Listed(samples)}, iter)  # fmt: skip
    with pytest.raises(ShardError, match=said):
        build_source(source, tmp_path / "stop", processes=1)
    made = build_source(source, tmp_path / "skip", processes=1, on_error="skip")
    assert made.splits == {"train": 1}
    (skipped,) = made.info.skipped
    assert re.search(said, skipped.reason) and skipped.path.startswith(name[:3])


def test_an_existing_set_is_returned_untouched_or_refused(photo_set: Path) -> None:
    options = {"size": "32"}
    before = {p.name: (p.stat().st_mtime_ns, p.stat().st_ino) for p in photo_set.iterdir()}
    build("photos", photo_set, options=options, shard_size=20, limit=70)
    with pytest.raises(
        ShardError, match=r"photos is already a shard set with limit = 70 \(asked: 60"
    ):
        build("photos", photo_set, options=options, shard_size=20, limit=60)
    with pytest.raises(ShardError, match=r"with storage = png \(asked: webp\)"):
        webp = {"size": "32", "storage": "webp"}
        build("photos", photo_set, options=webp, shard_size=20, limit=70)
    with pytest.raises(ShardError, match=r"is already a shard set of the source 'photos'"):
        build_source(numbered({"train": 9}), photo_set)
    assert before == {p.name: (p.stat().st_mtime_ns, p.stat().st_ino) for p in photo_set.iterdir()}
    next(photo_set.glob("train-*.tar")).write_bytes(b"")
    with pytest.raises(ShardError, match="another size than when it was built"):
        build("photos", photo_set, options=options, shard_size=20, limit=70)


def test_sets_that_differ_in_their_transform_alone_are_told_apart(tmp_path: Path) -> None:
    source = numbered({"train": 9})
    build_source(source, tmp_path / "set")
    other = Source(
        **{**vars(source), "transform": source.transform.model_copy(update={"size": (8, 8)})}
    )
    with pytest.raises(ShardError, match=r"with size = None \(asked: \[8, 8\]\)"):
        build_source(other, tmp_path / "set")


def test_other_things_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ShardError, match="mine exists and is no shard set"):
        build("photos", tmp_path / "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    (tmp_path / "empty").mkdir()
    assert build_source(numbered({"train": 9}), tmp_path / "empty").splits == {"train": 9}
    assert read_info(tmp_path / "empty").name == "empty"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"source": "celebs"},
            "no source 'celebs': use one of photos, digits, glyphs, shapes, folder",
        ),
        ({"source": "photos", "path": "x"}, "takes no path"),
        ({"source": "photos", "options": {"size": "4096"}}, "8 to 256 pixels"),
        ({"source": "photos", "options": {"size": "32x64"}}, "8 to 256 pixels"),
        ({"source": "photos", "options": {"storage": "original"}}, "no original bytes"),
        ({"source": "photos", "options": {"zoom": 2}}, "no option 'zoom': .* are size, storage"),
        ({"source": "photos", "shard_size": 0}, "at least 1"),
        ({"source": "photos", "limit": 0}, "at least 1"),
        ({"source": "photos", "processes": 0}, "at least 1 is needed"),
        ({"source": "photos", "on_error": "pray"}, "not one of stop, skip"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=message):
        build(arguments.pop("source"), tmp_path / "set", **arguments)
    assert not list(tmp_path.iterdir())


def test_every_source_is_there() -> None:
    for name, place in SOURCES.items():
        module, _, function = place.partition(":")
        made = getattr(__import__(module, fromlist=[function]), function)
        assert callable(made), name


def test_missing_sets_and_splits_say_what_there_is(built: Path) -> None:
    with pytest.raises(ShardError, match=r"there is no shard set .*nope; .* holds photos"):
        open_set(built.parent / "nope")
    with pytest.raises(ShardError, match=r"no split 'val': it has train \(\d+ samples\), test"):
        open_set(built).split("val")
    with pytest.raises(ShardError, match=r"is not a shard set"):
        open_set(built.parent)
