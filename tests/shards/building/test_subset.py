"""Sets cut out of others hold the very bytes of their samples, and no test image is trained on."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from shards.building.build import build
from shards.building.foreign import index_tars
from shards.building.subset import _drawn, sample_set, split_set
from shards.checking.verify import verify
from shards.checking.whole_set import rows_at
from shards.errors import ShardError
from shards.reading.reader import ShardSet, open_set
from tests.shards.handmade import make_set, noise, sample
from tests.shards.object_server import LOCAL, FolderServer

Files = dict[str, bytes]


def members(shard_set: ShardSet, split: str) -> dict[str, Files]:
    """Every sample of a split as the tars have it, by key; read without our index."""
    found: dict[str, Files] = {}
    for shard in shard_set.info.splits[split].shards:
        with tarfile.open(Path(shard_set.path) / shard.name) as tar:
            for info in tar:
                name = info.name.rpartition("/")[2].partition(".")[2]
                stream = tar.extractfile(info)
                assert stream is not None
                found.setdefault(info.name[: -len(name) - 1], {})[name] = stream.read()
    return found


def all_members(shard_set: ShardSet) -> dict[str, Files]:
    return {k: v for split in shard_set.splits for k, v in members(shard_set, split).items()}


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture
def handmade(tmp_path: Path) -> ShardSet:
    """34 samples in two splits, with labels and maps; the pictures 3, 5 and 8 stand twice."""
    grey = np.arange(54, dtype=np.uint8).reshape(6, 9)
    train = [
        sample(f"t{i:02d}", noise(i), label=i % 3, maps={"label": grey + i}) for i in range(20)
    ]
    train += [sample(f"again{i}", noise(i), label=0, maps={"label": grey}) for i in (3, 5)]
    val = [sample(f"v{i:02d}", noise(i + 50), label=1, maps={"label": grey}) for i in range(11)]
    val += [sample("again8", noise(8), label=2, maps={"label": grey})]
    return make_set(tmp_path / "source", {"train": train, "val": val}, classes=["a", "b", "c"])


class TestSplit:
    def test_round_trip(self, handmade: ShardSet, tmp_path: Path) -> None:
        made = split_set(handmade.path, tmp_path / "out", test_images=9, seed=4, shard_size=6)
        assert made.splits == {"train": 25, "test": 9}
        assert all_members(made) == all_members(handmade)
        assert made.info.classes == handmade.info.classes and made.info.maps == ["label.png"]
        assert made.info.transform == handmade.info.transform
        origin = made.info.parameters["origin"]
        assert origin["index_hash"] == handmade.index_hash and origin["source"] == "handmade"
        assert verify(made.path).ok and not verify(handmade.path).ok

    def test_rows_are_those_of_the_source(self, handmade: ShardSet, tmp_path: Path) -> None:
        made = split_set(handmade.path, tmp_path / "out", test_fraction=0.25)
        assert made.splits["test"] == 8
        columns = [
            "key",
            "image_ext",
            "span",
            "check",
            "width",
            "height",
            "label",
            "source",
            "hash",
        ]
        before, after = (
            pq.read_table(Path(s.path) / "index.parquet", columns=columns).to_pylist()
            for s in (handmade, made)
        )
        by_key = {row["key"]: row for row in before}
        assert {row["key"]: row for row in after} == by_key
        order = {key: place for place, key in enumerate(by_key)}
        for split in made.splits:  # in the order of the source
            places = [order[key] for key in members(made, split)]
            assert places == sorted(places)

    def test_images_that_stand_twice_are_not_drawn(
        self, handmade: ShardSet, tmp_path: Path
    ) -> None:
        made = split_set(handmade.path, tmp_path / "out", test_images=28)
        twice = {"t03", "t05", "t08", "again3", "again5", "again8"}
        assert set(members(made, "train")) == twice
        with pytest.raises(ShardError, match=r"29 of the 34 samples .* choose 1 to 28"):
            split_set(handmade.path, tmp_path / "more", test_images=29)

    def test_one_split_alone(self, handmade: ShardSet, tmp_path: Path) -> None:
        made = split_set(handmade.path, tmp_path / "out", test_images=5, from_split="val")
        assert made.splits == {"train": 7, "test": 5}
        assert all_members(made) == members(handmade, "val")
        with pytest.raises(ShardError, match="no split 'dev': it has train, val"):
            split_set(handmade.path, tmp_path / "x", test_images=5, from_split="dev")

    def test_a_third_split_beside_the_others(self, handmade: ShardSet, tmp_path: Path) -> None:
        """The kept split stays as it is, and none of its images is drawn out of the other."""
        made = split_set(
            handmade.path,
            tmp_path / "out",
            test_images=16,
            from_split="train",
            name="choice",
            keep=True,
        )
        assert made.splits == {"train": 6, "choice": 16, "val": 12}
        assert members(made, "val") == members(handmade, "val")
        assert members(made, "train") | members(made, "choice") == members(handmade, "train")
        # Four are copies inside train, and t08 has its copy in val.
        twice = {"t03", "t05", "t08", "again3", "again5"}
        assert twice < set(members(made, "train"))
        arguments = {"test_images": 3, "from_split": "val", "keep": True}
        other = split_set(handmade.path, tmp_path / "other", **arguments, name="few")
        assert other.splits == {"val": 9, "few": 3, "train": 22}
        for name in ("val", "train"):
            with pytest.raises(ShardError, match=f"cannot be called '{name}'"):
                split_set(handmade.path, tmp_path / "x", **arguments, name=name)
        with pytest.raises(ShardError, match="name the split to divide"):
            split_set(handmade.path, tmp_path / "x", test_images=3, keep=True)

    def test_the_draw_looks_at_images_alone(self, tmp_path: Path) -> None:
        """Neither the shards nor the order nor the keys decide; the seed does."""
        train = [sample(f"a{i}", noise(i)) for i in range(30)]
        other = [sample(f"b{i}", noise(i), label=1) for i in reversed(range(30))]
        sets = [
            make_set(tmp_path / "a", {"train": train}, shard_size=7),
            make_set(tmp_path / "b", {"train": other[:11], "test": other[11:]}, shard_size=4),
        ]

        def drawn(number: int, seed: int) -> set[bytes]:
            out = tmp_path / f"{number}-{seed}"
            made = split_set(sets[number].path, out, test_images=6, seed=seed)
            return {files["png"] for files in members(made, "test").values()}

        assert drawn(0, 1) == drawn(1, 1)
        assert drawn(0, 1) != drawn(0, 2)

    def test_each_sample_is_as_likely(self) -> None:
        """400 draws of 10 out of 40: counts of 100, 5 standard deviations are 43: fails 1e-5."""
        hashes = np.random.default_rng(0).integers(0, 1 << 64, (40, 2), dtype=np.uint64)
        counts = Counter(
            row for seed in range(400) for row in _drawn(hashes, np.arange(40), 10, seed).tolist()
        )
        assert len(counts) == 40 and all(57 <= count <= 143 for count in counts.values())

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ({}, "either a number of images or a fraction"),
            ({"test_images": 3, "test_fraction": 0.1}, "either"),
            ({"test_images": 0}, "choose 1 to 28"),
            ({"test_images": 34}, "choose 1 to 28"),
            ({"test_fraction": 1.5}, "not between 0 and 1"),
            ({"test_fraction": 0.001}, "a test split of 0 "),
            ({"test_images": 3, "seed": -1}, "seed -1"),
            ({"test_images": 3, "shard_size": 0}, "shard size 0"),
        ],
    )
    def test_refusals(
        self, handmade: ShardSet, tmp_path: Path, arguments: dict[str, float], said: str
    ) -> None:
        with pytest.raises(ShardError, match=said):
            split_set(handmade.path, tmp_path / "out", **arguments)  # type: ignore[arg-type]
        assert not (tmp_path / "out").exists()


class TestSample:
    def test_round_trip(self, handmade: ShardSet, tmp_path: Path) -> None:
        made = sample_set(handmade.path, tmp_path / "out", count=15, seed=1)
        assert made.splits == {"train": 15, "val": 12}
        for split in made.splits:
            source = members(handmade, split)
            found = members(made, split)
            assert found.items() <= source.items()
            assert list(found) == [key for key in source if key in found]
        assert made.info.parameters["count"] == 15
        with pytest.raises(ShardError, match="at least 1"):
            sample_set(handmade.path, tmp_path / "none", count=0)

    def test_one_split_alone(self, handmade: ShardSet, tmp_path: Path) -> None:
        made = sample_set(handmade.path, tmp_path / "out", count=3, split="val")
        assert made.splits == {"val": 3}

    def test_a_larger_sample_holds_the_smaller(self, handmade: ShardSet, tmp_path: Path) -> None:
        few, many = (
            set(all_members(sample_set(handmade.path, tmp_path / str(n), count=n))) for n in (4, 9)
        )
        assert few < many

    def test_processes_and_place_do_not_matter(self, built: Path, tmp_path: Path) -> None:
        options = {"count": 30, "shard_size": 8}
        alone = sample_set(built, tmp_path / "a" / "out", **options, processes=1)
        both = sample_set(built, tmp_path / "b" / "out", **options, processes=2)
        assert content(both.path) == content(alone.path)
        with FolderServer(built) as server:
            uri = f"http://{LOCAL}:{server.port}"
            remote = sample_set(uri, tmp_path / "c" / "out", **options)
        assert content(remote.path) == content(alone.path)


def test_rows_of_many_row_groups(handmade: ShardSet, tmp_path: Path) -> None:
    path = tmp_path / "small.parquet"
    table = pq.read_table(Path(handmade.path) / "index.parquet")
    pq.write_table(table, path, row_group_size=5)
    index = pq.ParquetFile(path)
    for rows in ([], [0], [4, 5], [0, 7, 8, 20, 33], list(range(34))):
        wanted = np.array(rows, dtype=np.int64)
        found = rows_at(index, wanted, ["split", "key", "members"])
        assert found.to_pylist() == table.select(found.column_names).take(wanted).to_pylist()


def test_nothing_is_written_over(handmade: ShardSet, tmp_path: Path) -> None:
    first = split_set(handmade.path, tmp_path / "out", test_images=5)
    before = content(tmp_path / "out")
    assert split_set(handmade.path, tmp_path / "out", test_images=5).info == first.info
    with pytest.raises(ShardError, match="already a shard set with seed = 0"):
        split_set(handmade.path, tmp_path / "out", test_images=5, seed=2)
    with pytest.raises(ShardError, match="already a shard set of the source 'split'"):
        sample_set(handmade.path, tmp_path / "out", count=5)
    with pytest.raises(ShardError, match="already a shard set of the source 'handmade'"):
        sample_set(handmade.path, handmade.path, count=5)
    assert content(tmp_path / "out") == before


def test_a_changed_sample_is_not_copied(handmade: ShardSet, tmp_path: Path) -> None:
    shard, key, offset = handmade.split("train").place(7)
    path = Path(handmade.path) / shard
    data = bytearray(path.read_bytes())
    data[offset + 40] ^= 1
    path.write_bytes(data)
    with pytest.raises(ShardError, match=rf"{shard}, key '{key}', byte \d+: .* has changed"):
        split_set(handmade.path, tmp_path / "out", test_images=5)


class TestForeign:
    def write(self, path: Path, samples: dict[str, Files]) -> None:
        with tarfile.open(path, "w") as tar:
            for key, files in samples.items():
                for name, data in files.items():
                    info = tarfile.TarInfo(f"{key}.{name}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))

    def test_keys_that_begin_anew_in_each_tar(self, tmp_path: Path) -> None:
        pictures = [sample("", noise(i)).members["png"] for i in range(9)]
        tars = tmp_path / "tars"
        tars.mkdir()
        for shard in range(3):
            self.write(
                tars / f"train-{shard}.tar",
                {f"{i:03d}": {"png": pictures[3 * shard + i]} for i in range(3)},
            )
        index_tars(tars)
        made = sample_set(tars, tmp_path / "out", count=9)
        assert members(made, "train") == {
            f"train-{n // 3}/{n % 3:03d}": {"png": pictures[n]} for n in range(9)
        }
        assert verify(made.path).ok

    def test_other_members(self, tmp_path: Path) -> None:
        """A second picture that is no map, text, and members that only some samples have."""
        tars = tmp_path / "tars"
        tars.mkdir()
        left, right = (sample("", noise(i)).members["png"] for i in (1, 2))
        samples = {
            "a": {"jpg": left, "right.png": right, "txt": b"a house"},
            "b": {"jpg": right, "json": b"{}"},
        }
        self.write(tars / "train.tar", samples)
        index_tars(tars)
        made = split_set(tars, tmp_path / "out", test_images=1)
        assert all_members(made) == samples
        assert verify(made.path).ok and made.info.maps == []
        assert open_set(tmp_path / "out").split("test").read(0).maps == {}


def test_a_killed_cut_goes_on(built: Path, tmp_path: Path) -> None:
    """What a build has finished before it was stopped is used, also for a set cut out of one."""

    def stop(split: str, done: int, total: int) -> None:
        if split == "test" and done > 20:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        sample_set(built, out, count=60, shard_size=7, processes=1, progress=stop)
    assert not out.exists()
    left = sum(1 for _ in tmp_path.glob(".out.building/*/parts/*.part"))
    assert left >= 8
    made = sample_set(built, out, count=60, shard_size=7, processes=1)
    shutil.copytree(out, tmp_path / "first")
    shutil.rmtree(out)
    again = sample_set(built, out, count=60, shard_size=7, processes=1)
    assert content(out) == content(tmp_path / "first") and made.info == again.info


def test_photos_and_folder(tmp_path: Path, images: Path) -> None:
    """A real chain: build, split, sample, all of them whole."""
    first = build("folder", tmp_path / "a", path=images, shard_size=5)
    second = split_set(first.path, tmp_path / "b", test_images=4)
    third = sample_set(second.path, tmp_path / "c", count=2)
    assert third.splits == {"train": 2, "test": 2}
    assert all(verify(made.path).ok for made in (first, second, third))
    assert third.info.parameters["origin"]["parameters"]["origin"]["index_hash"] == first.index_hash
