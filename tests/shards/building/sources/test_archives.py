"""Folders, zips and tars read alike; damaged ones say so; processes do not disturb each other."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from shards.building.sources.archives import open_files
from shards.building.sources.draw import drawn
from shards.errors import ShardError

FILES = {
    "b/2.png": b"two",
    "b/1.png": bytes(range(256)) * 40,
    "a.txt": b"",
    "b/deep/er/3.png": b"three" * 1000,
}
HIDDEN = {".DS_Store": b"x", "b/._1.png": b"x", "__MACOSX/b/1.png": b"x", ".git/config": b"x"}
KINDS = ("folder", "zip", "tar", "tar.gz", "tar.xz")


# How the file train/a/1.png is called in archives of several programs.
ALIASES = (
    r"train\a\1.png",
    r"train\a/1.png",
    "./train/a/1.png",
    ".\\train\\a\\1.png",
    "train/./a//1.png",
    "/train/a/1.png",
    "C:/train/a/1.png",
    r"C:\train\a\1.png",
    r"\train\a\1.png",
)
ARCHIVES = ("zip", "tar", "tar.gz")


def pack(root: Path, kind: str, files: dict[str, bytes]) -> Path:
    path = root / f"set.{kind}"
    if kind == "folder":
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    elif kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.mkdir("b")
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        mode = {"tar": "w", "tar.gz": "w:gz", "tar.xz": "w:xz"}[kind]
        with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
            folder = tarfile.TarInfo("./b")
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
            for name, data in files.items():
                member = tarfile.TarInfo(f"./{name}" if name[0].isalnum() else name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_hold_the_same_visible_files(tmp_path: Path, kind: str) -> None:
    files = open_files(pack(tmp_path, kind, {**FILES, **HIDDEN}))
    assert files.names() == sorted(FILES)
    for name in reversed(files.names()):  # against the order of the archive
        assert files.read(name) == FILES[name]
    with pytest.raises(ShardError, match=r"nothing\.png"):
        files.read("nothing.png")


@pytest.mark.parametrize("kind", ARCHIVES)
@pytest.mark.parametrize("alias", ALIASES)
def test_names_are_alike_whatever_program_wrote_them(tmp_path: Path, kind: str, alias: str) -> None:
    junk = {"__MACOSX\\train\\._1.png": b"x", "train\\.DS_Store": b"x", "train\\a\\": b""}
    if kind == "zip":
        path = pack(tmp_path, kind, {alias: b"one", **junk})
    else:
        path = tmp_path / f"set.{kind}"
        with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as tar:
            for name, data in {alias: b"one", **junk}.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                member.type = tarfile.DIRTYPE if name.endswith("\\") else tarfile.REGTYPE
                tar.addfile(member, io.BytesIO(data))
    files = open_files(path)
    assert files.names() == ["train/a/1.png"]
    assert files.read("train/a/1.png") == files.open("train/a/1.png").read() == b"one"
    assert files.fingerprint(files.names())


def test_names_in_a_folder_may_be_those_of_windows_or_latin1(tmp_path: Path) -> None:
    (tmp_path / r"train\a.png").write_bytes(b"one")
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(b"two")
    files = open_files(tmp_path)
    assert files.names() == ["café.png", "train/a.png"]
    assert [files.read(name) for name in files.names()] == [b"two", b"one"]
    assert files.open("train/a.png").read() == b"one"
    assert files.fingerprint(files.names())


@pytest.mark.parametrize("kind", ARCHIVES)
def test_names_that_are_not_clear_are_refused(tmp_path: Path, kind: str) -> None:
    for names, message in (
        (["a/../b.png"], r"the name '(\./)?a/\.\./b\.png' leads out of its folder by '\.\.'"),
        (["..\\b.png"], "the name .* leads out of its folder"),
        (["a/b.png", "a\\b.png"], r"holds .* and .*, which both are a/b\.png: pack the files"),
        (["a/b.png", r"\a\b.png"], r"holds .*, which both are a/b\.png"),
    ):
        with pytest.raises(ShardError, match=rf"set\.{kind}.*{message}"):
            open_files(pack(tmp_path, kind, dict.fromkeys(names, b"x")))


def test_of_members_that_are_written_alike_the_last_counts(tmp_path: Path) -> None:
    path = pack(tmp_path, "tar", {"a.png": b"old"})
    with tarfile.open(path, "a") as tar:
        member = tarfile.TarInfo("./a.png")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"new"))
    assert open_files(path).read("a.png") == b"new"


@pytest.mark.parametrize("kind", KINDS)
def test_fingerprints_follow_names_and_sizes(tmp_path: Path, kind: str) -> None:
    def fingerprint(place: str, files: dict[str, bytes]) -> str:
        (tmp_path / place).mkdir()
        opened = open_files(pack(tmp_path / place, kind, files))
        return opened.fingerprint(opened.names())

    first = fingerprint("1", FILES)
    assert first == fingerprint("2", dict(reversed(FILES.items())))
    assert first != fingerprint("3", {**FILES, "b/2.png": b"two and more"})
    assert first != fingerprint("4", {**FILES, "c": b""})
    same_size = fingerprint("5", {**FILES, "b/2.png": b"owt"})
    assert (first != same_size) == (kind == "zip")  # which has CRCs


@pytest.mark.parametrize("kind", KINDS[1:])
def test_an_archive_cut_off_anywhere_is_refused(tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(0).bytes(3000)
    path = pack(tmp_path, kind, {"1.png": noise, "2.png": noise[::-1]})
    whole = path.read_bytes()
    # A tar ends with padding that nobody misses.
    end = len(whole) if kind != "tar" else whole.rindex(noise[:1:-1]) + 3584
    for cut in [0, 1, 2, 3, 100, *range(512, end - 1, 509)]:
        path.write_bytes(whole[:cut])
        with pytest.raises(ShardError, match=r"set\.(zip|tar).*download it again"):
            open_files(path)


def test_a_damaged_member_names_itself(tmp_path: Path) -> None:
    path = pack(tmp_path, "zip", FILES)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("b/1.png").header_offset + 30 + len("b/1.png")
    data[at + 20] ^= 0x10
    path.write_bytes(data)
    files = open_files(path)
    assert files.read("b/2.png") == b"two"
    with pytest.raises(ShardError, match=r"^b/1\.png in .*set\.zip cannot be read \(.+\): down"):
        files.read("b/1.png")


def test_a_locked_member_names_itself(tmp_path: Path) -> None:
    path = pack(tmp_path, "zip", {"1.png": b"secret"})
    data = bytearray(path.read_bytes())
    for magic, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = data.rindex(magic) + flags
        struct.pack_into("<H", data, at, struct.unpack_from("<H", data, at)[0] | 1)
    path.write_bytes(data)
    with pytest.raises(ShardError, match=r"^1\.png in .*encrypted"):
        open_files(path).read("1.png")


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "img_align_celeba.zip"
    page.write_text("<!DOCTYPE html><title>Google Drive - Quota exceeded</title>" * 20)
    with pytest.raises(ShardError, match=r"img_align_celeba\.zip is not a zip or tar"):
        open_files(page)
    with pytest.raises(ShardError, match=r"nothing cannot be read: No such file"):
        open_files(tmp_path / "nothing")


def test_a_replaced_archive_is_opened_anew(tmp_path: Path) -> None:
    path = pack(tmp_path, "zip", FILES)
    assert open_files(path) is open_files(path)
    (tmp_path / "new").mkdir()
    os.replace(pack(tmp_path / "new", "zip", {"new.png": b"new"}), path)
    assert open_files(path).names() == ["new.png"]


def test_a_folder_follows_links_once(tmp_path: Path) -> None:
    path = pack(tmp_path, "folder", FILES)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "4.png").write_bytes(b"four")
    (path / "linked").symlink_to(elsewhere)
    (elsewhere / "loop").symlink_to(path)
    (path / "gone").symlink_to(tmp_path / "nowhere")
    files = open_files(path)
    assert files.names() == sorted([*FILES, "linked/4.png"])
    assert files.read("linked/4.png") == b"four"


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_forked_processes_share_an_open_archive(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    content = {f"{i:03d}.png": rng.bytes(2000 + i) for i in range(150)}
    files = open_files(pack(tmp_path, kind, content))
    files.read("000.png")

    def all_right() -> bool:
        return all(files.read(name) == data for name, data in content.items())

    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            os._exit(0 if all_right() else 1)
        children.append(child)
    assert all_right()
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]


def test_a_draw_depends_on_names_and_seed_alone() -> None:
    names = [f"{i:06d}" for i in range(1000)]
    chosen = {name for _, name in drawn(names, 100, seed=7)}
    assert len(chosen) == 100
    assert {name for _, name in drawn(reversed(names), 100, seed=7)} == chosen
    assert {name for _, name in drawn(names, 100, seed=8)} != chosen
    assert {name for _, name in drawn(names, 99, seed=7)} < chosen
    assert drawn(names, 3, seed=0) == GOLDEN
    assert drawn(names, 0, seed=0) == []
    # As good as drawn evenly: the chi-square of ten bins of a hundred, 9 degrees, p = 0.001.
    bins = np.bincount([place // 100 for place, _ in drawn(names, 500, seed=0)], minlength=10)
    assert ((bins - 50) ** 2 / 50).sum() < 27.9


# No release may draw another split.
GOLDEN = [(426, "000426"), (819, "000819"), (865, "000865")]


def test_a_relative_folder_is_another_one_in_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files whose names on the disk are not plain are remembered by their folder."""
    for here, written in (("one", r"train\1.png"), ("other", r"\train\1.png")):
        (tmp_path / here / "data").mkdir(parents=True)
        (tmp_path / here / "data" / written).write_text(here, encoding="utf-8")
    for here in ("one", "other"):
        monkeypatch.chdir(tmp_path / here)
        assert open_files(Path("data")).read("train/1.png") == here.encode()
