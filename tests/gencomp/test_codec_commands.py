"""`gencomp compress` and `decompress` on folders: names, going on, bad files, what is said."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gencomp.cli import main
from gencomp.coding import container
from gencomp.system import Codec, Picture
from tests.processes import descendants, gone
from tests.waiting import PATIENCE, wait_for

ROOT = Path(__file__).resolve().parents[2]


def write_image(path: Path, seed: int, height: int = 64, width: int = 64) -> Path:
    """Smooth noise of its own grey and contrast."""
    generator = np.random.default_rng(seed)
    coarse = generator.normal(generator.uniform(60, 190), 40, (6, 6, 3)).clip(0, 255)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(coarse.astype(np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    image.save(path)
    return path


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def codec(codec_run: Path) -> Codec:
    from cluster.runs import open_run

    made = open_run(codec_run).system().codec()
    assert made is not None
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five images, two of them below, of several sizes and formats."""
    root = tmp_path / "in"
    write_image(root / "a.png", 1)
    write_image(root / "b.png", 2, 70, 130)
    write_image(root / "b.jpg", 3, 20, 300)
    write_image(root / "sub" / "a.PNG", 4)
    write_image(root / "sub" / "deeper" / "c.webp", 5)
    (root / "notes.txt").write_text("no image")
    (root / ".hidden.png").write_text("no image either")
    return root


@pytest.fixture
def run(codec_run: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """A command on the codec's run: exit code, output, errors."""

    def call(command: str, *words: object) -> tuple[int, str, str]:
        code = main([command, str(codec_run), *map(str, words)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


Run = Callable[..., tuple[int, str, str]]


class TestFolders:
    def test_there_and_back(self, run: Run, folder: Path, codec: Codec, tmp_path: Path) -> None:
        assert run("compress", folder, tmp_path / "gcp")[0] == 0
        assert names(tmp_path / "gcp") == [
            "a.png.gcp",
            "b.jpg.gcp",
            "b.png.gcp",
            "sub/a.PNG.gcp",
            "sub/deeper/c.webp.gcp",
        ]
        assert run("decompress", tmp_path / "gcp", tmp_path / "out")[0] == 0
        assert names(tmp_path / "out") == [
            "a.png",
            "b.jpg.png",
            "b.png",
            "sub/a.PNG",
            "sub/deeper/c.webp.png",
        ]
        for name in ("a.png", "b.png", "sub/a.PNG"):
            expected = codec.reconstruct(Picture(pixels(folder / name)))
            assert np.array_equal(pixels(tmp_path / "out" / name), expected)
        assert pixels(tmp_path / "out" / "b.jpg.png").shape == (20, 300, 3)

    def test_the_summary_is_of_the_files(
        self, run: Run, folder: Path, codec: Codec, tmp_path: Path
    ) -> None:
        _, said, _ = run("compress", folder, tmp_path / "gcp")
        streams = [(tmp_path / "gcp" / name).read_bytes() for name in names(tmp_path / "gcp")]
        found = [container.unpack(stream).members[0] for stream in streams]
        area = sum(one.height * one.width for one in found)
        written = 8 * sum(len(section) for one in found for section in one.sections)
        nominal = sum(codec.nominal_bits(one.height, one.width) or 0 for one in found)
        rest = 8 * sum(map(len, streams)) - written
        values = said.splitlines()[-1].split()
        assert values == [
            "5",
            "0",
            str(sum(map(len, streams))),
            *(f"{bits / area:.4g}" for bits in (nominal, written, rest)),
        ]
        assert written <= nominal + 8 * len(streams)  # a salt each
        assert written == sum(map(codec.code_bits, streams))

    def test_processes_do_not_matter(self, run: Run, folder: Path, tmp_path: Path) -> None:
        run("compress", folder, tmp_path / "gcp")
        (tmp_path / "gcp" / "bad.gcp").touch()
        outs, saids = (tmp_path / "1", tmp_path / "2"), []
        for processes, out in enumerate(outs, start=1):
            words = (tmp_path / "gcp", out, "--processes", processes)
            code, _, said = run("decompress", *words)
            assert code == 1
            # A slow machine shows progress before it.
            saids.append(said[said.index("gencomp: ") :])
        assert saids[0] == saids[1] and "bad.gcp cannot be decoded" in saids[0]
        assert names(outs[0]) == names(outs[1]) and len(names(outs[0])) == 5
        for name in names(outs[0]):
            assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes()

    def test_what_is_there_is_kept(self, run: Run, folder: Path, tmp_path: Path) -> None:
        gcp, out = tmp_path / "gcp", tmp_path / "out"
        for command, source, target in (("compress", folder, gcp), ("decompress", gcp, out)):
            assert run(command, source, target)[0] == 0
            (target / names(target)[2]).unlink()
            before = {name: (target / name).stat().st_mtime_ns for name in names(target)}
            code, said, _ = run(command, source, target)
            assert code == 0 and said.splitlines()[-1].split()[:2] == ["5", "4"]
            assert len(names(target)) == 5
            after = {name: (target / name).stat().st_mtime_ns for name in before}
            assert after == before
            code, said, _ = run(command, source, target, "--overwrite")
            assert code == 0 and said.splitlines()[-1].split()[:2] == ["5", "0"]
            assert all((target / name).stat().st_mtime_ns > before[name] for name in before)

    @pytest.mark.parametrize("joint", [False, True])
    def test_what_a_folder_leaves_out_is_counted_and_named(
        self, run: Run, folder: Path, tmp_path: Path, joint: bool
    ) -> None:
        for ending, form in (("jfif", "JPEG"), ("jpe", "JPEG"), ("dib", "BMP"), ("gif", "GIF")):
            with Image.open(folder / "a.png") as image:
                image.save(folder / f"rare.{ending}", form)
        with Image.open(folder / "a.png") as image:
            image.convert("1").save(folder / "rare.pbm", "PPM")
        (folder / "sub" / "photo.avif").write_bytes(b"not read here")
        (folder / ".git").mkdir()
        (folder / ".git" / "config").write_text("hidden")
        code, said, _ = run("compress", folder, tmp_path / "out", *(["--joint"] if joint else []))
        assert code == 0 and said.splitlines()[0] == (
            "left out 2 files without the ending of an image that can be read: "
            f"{folder / 'notes.txt'}, {folder / 'sub' / 'photo.avif'}"
        )
        if joint:
            assert "10 images" in said
            return
        assert len(names(tmp_path / "out")) == 10
        (tmp_path / "out" / "notes.txt").touch()
        code, said, _ = run("decompress", tmp_path / "out", tmp_path / "back")
        assert code == 0 and len(names(tmp_path / "back")) == 10
        left_out = tmp_path / "out" / "notes.txt"
        assert said.splitlines()[0] == f"left out 1 file without the ending .gcp: {left_out}"

    def test_what_is_something_else_is_not(
        self, run: Run, folder: Path, codec: Codec, tmp_path: Path
    ) -> None:
        gcp, out = tmp_path / "gcp", tmp_path / "out"
        run("compress", folder, gcp)
        run("decompress", gcp, out)
        whole = (gcp / "a.png.gcp").read_bytes()
        (gcp / "a.png.gcp").write_bytes(whole[:-1])
        other = container.Container(bytes(6), container.unpack(whole).members)
        (gcp / "b.png.gcp").write_bytes(container.pack(other))
        code, _, said = run("compress", folder, gcp)
        assert code == 1 and "2 of 5 images failed" in said
        assert "a.png.gcp exists and is no whole file of this codec" in said
        assert "b.png.gcp exists and is no whole file of this codec" in said
        assert run("compress", folder, gcp, "--overwrite")[0] == 0
        assert (gcp / "a.png.gcp").read_bytes() == whole

        (out / "a.png").write_bytes((out / "a.png").read_bytes()[:-20])
        shutil.copy(folder / "b.png", out / "b.png")
        code, _, said = run("decompress", gcp, out)
        assert code == 1 and "2 of 5 images failed" in said
        assert "a.png exists and is not what" in said and "--overwrite" in said
        # Another draw is another image.
        code, _, said = run("decompress", gcp, out, "--draw", "1")
        assert code == 1 and "5 of 5 images failed" in said

    def test_bad_files_name_themselves_and_stop_nothing(
        self, run: Run, folder: Path, tmp_path: Path
    ) -> None:
        (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:200])
        (folder / "text.jpg").write_text("no image")
        (folder / "headless.png").write_bytes((folder / "a.png").read_bytes()[8:])
        code, said, errors = run("compress", folder, tmp_path / "gcp")
        assert code == 1 and len(names(tmp_path / "gcp")) == 5
        assert said.splitlines()[-1].split()[0] == "5"
        assert "3 of 8 images failed" in errors
        for name in ("broken.png", "text.jpg", "headless.png"):
            assert f"{folder / name} is not a readable image" in errors

        flipped = bytearray((tmp_path / "gcp" / "b.jpg.gcp").read_bytes())
        flipped[-6] ^= 4
        (tmp_path / "gcp" / "b.jpg.gcp").write_bytes(flipped)
        (tmp_path / "gcp" / "empty.gcp").touch()
        code, _, errors = run("decompress", tmp_path / "gcp", tmp_path / "out")
        assert code == 1 and "2 of 6 images failed" in errors and len(names(tmp_path / "out")) == 4
        assert "b.jpg.gcp cannot be decoded" in errors and "empty.gcp cannot be" in errors

    def test_refusals(self, run: Run, folder: Path, tmp_path: Path, generator_run: Path) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "file").touch()
        for words, sentence in (
            (("compress", tmp_path / "empty", tmp_path / "o"), "holds no images (.bmp"),
            (
                ("decompress", tmp_path / "empty", tmp_path / "o"),
                "holds no compressed files (.gcp)",
            ),
            (("compress", folder, tmp_path / "file"), "is a file, but many files need a folder"),
            (("compress", folder, tmp_path / "no" / "o"), "does not exist"),
            (("compress", folder, tmp_path / "o", "--processes", 0), "--processes is 0"),
            (("decompress", folder, tmp_path / "o"), "holds no compressed files"),
        ):
            code, _, said = run(*words)
            assert code == 2 and sentence in said
        assert main(["compress", str(generator_run), str(folder), str(tmp_path / "o")]) == 2
        for name in ("a.png.gcp", "a.gcp"):
            shutil.copy(write_image(tmp_path / "x.png", 1), tmp_path / "empty" / name)
        code, _, said = run("decompress", tmp_path / "empty", tmp_path / "o")
        assert code == 2 and "would both become a.png" in said
        assert not (tmp_path / "o").exists()


class TestImages:
    def test_draws(self, run: Run, codec: Codec, tmp_path: Path) -> None:
        """Draw 0 is the default; every draw is the same again, and another image."""
        image = write_image(tmp_path / "a.png", 1)
        run("compress", image, tmp_path / "a.gcp")
        decoded = {}
        for draw in (0, 1, 2**64 - 1):
            for go in range(2):
                out = tmp_path / f"{draw}-{go}.png"
                assert run("decompress", tmp_path / "a.gcp", out, "--draw", draw)[0] == 0
                assert np.array_equal(pixels(out), decoded.setdefault(draw, pixels(out)))
        assert np.array_equal(decoded[0], codec.reconstruct(Picture(pixels(image))))
        assert len({one.tobytes() for one in decoded.values()}) == 3
        for draw in (-1, 2**64):
            code, _, said = run(
                "decompress", tmp_path / "a.gcp", tmp_path / "o.png", "--draw", draw
            )
            assert code == 2 and "a draw is a number from 0 to" in said

    def test_a_file_that_claims_too_many_pixels_is_refused(
        self, run: Run, codec: Codec, tmp_path: Path
    ) -> None:
        run("compress", write_image(tmp_path / "a.png", 1), tmp_path / "a.gcp")
        out = tmp_path / "back.png"
        code, _, said = run("decompress", tmp_path / "a.gcp", out, "--max-pixels", 4095)
        assert code == 2 and not out.exists()
        assert (
            "a.gcp claims a picture of 64×64 pixels, which is more than the limit of 4095" in said
        )
        code, _, said = run("decompress", tmp_path / "a.gcp", out, "--max-pixels", 0)
        assert code == 2 and "--max-pixels is 0, it must be at least 1" in said
        assert run("decompress", tmp_path / "a.gcp", out, "--max-pixels", 4096)[0] == 0
        huge = container.Container(
            codec.writer_fingerprint, (container.Member(65535, 65535, (b"x",)),)
        )
        (tmp_path / "huge.gcp").write_bytes(container.pack(huge))
        code, _, said = run("decompress", tmp_path / "huge.gcp", tmp_path / "huge.png")
        assert code == 2 and "huge.gcp claims a picture of 65535×65535 pixels" in said

    def test_what_was_done_to_images_is_said(self, run: Run, tmp_path: Path) -> None:
        root = tmp_path / "in"
        clear = Image.open(write_image(root / "a.png", 1)).convert("RGBA")
        clear.putpixel((0, 0), (1, 2, 3, 0))
        clear.save(root / "a.png")
        write_image(root / "b.png", 2)
        Image.fromarray(np.full((64, 64), 40_000, np.uint16)).save(root / "deep.png")
        clear.save(root / "moves.png", save_all=True, append_images=[Image.new("RGBA", (64, 64))])
        code, said, wrong = run("compress", root, tmp_path / "gcp", "--processes", 1)
        white = "transparent pixels were laid over white"
        upper = "of more than 8 bits a channel the upper 8 were kept"
        assert code == 1 and f"{white}: 1 of 3 images" in said and f"{upper}: 1 of 3 images" in said
        assert "moves.png is not taken: it holds several pages or frames" in wrong
        code, said, _ = run("compress", root / "a.png", tmp_path / "a.gcp")
        assert code == 0 and said.splitlines()[-1] == f"{root / 'a.png'}: {white}"
        names = (root / name for name in ("a.png", "b.png", "deep.png"))
        code, said, _ = run("compress", *names, tmp_path / "all.gcp")
        assert code == 0 and f"{white}: 1 of 3 images" in said and f"{upper}: 1 of 3 images" in said

    def test_a_limit_of_pixels_to_compress(self, run: Run, tmp_path: Path) -> None:
        image = write_image(tmp_path / "a.png", 1)
        words = ("compress", image, tmp_path / "a.gcp", "--max-pixels")
        code, _, said = run(*words, 4095)
        assert code == 2 and "its 64x64 pixels exceed the limit of 4095 pixels" in said
        code, _, said = run(*words, 0)
        assert code == 2 and "--max-pixels is 0, it must be at least 1" in said
        assert run(*words, 4096)[0] == 0

    def test_orientation_tags_are_applied(self, run: Run, tmp_path: Path) -> None:
        image = Image.open(write_image(tmp_path / "a.png", 1, 64, 128))
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(tmp_path / "turned.jpg", exif=exif)
        run("compress", tmp_path / "turned.jpg", tmp_path / "a.gcp")
        (found,) = container.unpack((tmp_path / "a.gcp").read_bytes()).members
        assert (found.height, found.width) == (128, 64)


class TestJointFiles:
    """Several images in one file, through the command line."""

    @pytest.fixture
    def images(self, tmp_path: Path) -> list[Path]:
        """Eleven images, whose places have two digits."""
        sizes = [(64, 64)] * 9 + [(70, 130), (20, 30)]
        return [
            write_image(tmp_path / "in" / f"{i:02}.png", i, *size) for i, size in enumerate(sizes)
        ]

    def test_there_and_back(
        self, run: Run, images: list[Path], codec: Codec, tmp_path: Path
    ) -> None:
        """They keep the order in which they are named, each as it is alone, in fewer bytes."""
        code, said, _ = run("compress", *images[::-1], tmp_path / "all.gcp")
        stream = (tmp_path / "all.gcp").read_bytes()
        assert code == 0 and f"11 images in {len(stream)} bytes = " in said
        members = container.unpack(stream).members
        assert [(one.height, one.width) for one in members[:2]] == [(20, 30), (70, 130)]
        code, said, _ = run("decompress", tmp_path / "all.gcp", tmp_path / "out")
        assert code == 0
        assert names(tmp_path / "out") == [f"{place:02}.png" for place in range(11)]
        values = said.splitlines()[-1].split()
        assert values[:3] == ["11", "0", str(len(stream))]
        alone = 0
        for place, image in enumerate(images[::-1]):
            picture = Picture(pixels(image))
            decoded = pixels(tmp_path / "out" / f"{place:02}.png")
            assert np.array_equal(decoded, codec.reconstruct(picture))
            alone += len(codec.compress(picture))
        assert len(stream) < alone

    def test_a_folder(self, run: Run, images: list[Path], tmp_path: Path) -> None:
        """It gives the same file as its images in the order of their names."""
        assert run("compress", *images, tmp_path / "named.gcp")[0] == 0
        assert run("compress", tmp_path / "in", tmp_path / "folder.gcp", "--joint")[0] == 0
        assert (tmp_path / "folder.gcp").read_bytes() == (tmp_path / "named.gcp").read_bytes()

    def test_one_picture_of_them(self, run: Run, images: list[Path], tmp_path: Path) -> None:
        gcp = tmp_path / "all.gcp"
        run("compress", *images, gcp)
        run("decompress", gcp, tmp_path / "out")
        code, said, _ = run("decompress", gcp, tmp_path / "nine.png", "--place", 9)
        assert code == 0 and "130×70 pixels" in said
        shown = pixels(tmp_path / "nine.png")
        assert np.array_equal(shown, pixels(tmp_path / "out" / "09.png"))
        for place in (-1, 11):
            code, _, said = run("decompress", gcp, tmp_path / "no.png", "--place", place)
            assert code == 2 and f"holds 11 pictures, there is no number {place}" in said

    def test_what_is_there_is_kept(self, run: Run, images: list[Path], tmp_path: Path) -> None:
        gcp, out = tmp_path / "all.gcp", tmp_path / "out"
        run("compress", *images, gcp)
        assert run("decompress", gcp, out)[0] == 0
        (out / "03.png").unlink()
        shutil.copy(out / "05.png", out / "07.png")  # another picture of the same file
        before = (out / "04.png").stat().st_mtime_ns
        code, said, errors = run("decompress", gcp, out)
        assert code == 1 and "1 of 11 images failed" in errors
        assert "07.png exists and is not what" in errors
        assert said.splitlines()[-1].split()[:2] == ["10", "9"]
        assert len(names(out)) == 11 and (out / "04.png").stat().st_mtime_ns == before
        assert run("decompress", gcp, out, "--overwrite")[0] == 0
        # The joint file itself is whole or not there, so nothing of it is kept.
        code, _, said = run("compress", *images, gcp)
        assert code == 2 and "all.gcp exists; add --overwrite" in said
        whole = gcp.read_bytes()
        assert run("compress", *images, gcp, "--overwrite")[0] == 0 and gcp.read_bytes() == whole

    def test_processes_do_not_matter(self, run: Run, images: list[Path], tmp_path: Path) -> None:
        run("compress", *images, tmp_path / "all.gcp")
        for processes, out in ((1, tmp_path / "1"), (2, tmp_path / "2")):
            assert run("decompress", tmp_path / "all.gcp", out, "--processes", processes)[0] == 0
        for name in names(tmp_path / "1"):
            assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()

    def test_refusals(self, run: Run, images: list[Path], tmp_path: Path) -> None:
        joint, broken, out = tmp_path / "all.gcp", tmp_path / "broken.png", tmp_path / "o.gcp"
        run("compress", *images, joint)
        broken.write_bytes(images[0].read_bytes()[:100])
        Image.new("RGB", (65536, 1)).save(tmp_path / "wide.png")
        (tmp_path / "gcps").mkdir()
        shutil.copy(joint, tmp_path / "gcps" / "a.gcp")
        for words, sentence in (
            (("compress", images[0]), "missing OUT"),
            (("compress",), "missing IMAGE, OUT"),
            (("compress", *images), "10.png is the name of an image; end the compressed file in"),
            (("compress", images[0], tmp_path / "in", out), "is a folder: name image files, or"),
            (("compress", *images, tmp_path / "in"), "is a folder, but one file is to be written"),
            (("compress", *images, broken, out), "broken.png is not a readable image"),
            (("compress", *images, tmp_path / "no.png", out), "no.png does not exist"),
            (("compress", *images, tmp_path / "wide.png", out), "wide.png cannot be compressed: "),
            (("decompress", joint, tmp_path / "o.png"), "holds 11 pictures: name a folder"),
            (("decompress", joint, images[0]), "holds 11 pictures: name a folder"),
            (("decompress", joint, tmp_path / "o", "--max-pixels", 9099), "of 9100 pixels, which"),
            (("decompress", joint, joint), "is a file, but many files need a folder"),
            (("decompress", tmp_path / "gcps", tmp_path / "o", "--place", 1), "is a folder"),
        ):
            code, _, said = run(*words)
            assert code == 2 and sentence in said, (words, said)
            assert not out.exists() and not (tmp_path / "o").exists()
        code, _, said = run("decompress", tmp_path / "gcps", tmp_path / "o")
        assert code == 1 and "a.gcp holds 11 pictures, which need a folder of their own" in said


# What a codec has no use for, and what would take longer to import than an image to decode.
UNUSED = {"matplotlib", "optuna", "pandas", "pyarrow", "ray", "scipy", "skimage", "submitit"}
_MODULES = """
import sys
from gencomp.cli import main
code = main(sys.argv[1:])
print(*{name.partition(".")[0] for name in sys.modules})
sys.exit(code)
"""


def test_one_image_imports_what_a_codec_needs(codec_run: Path, tmp_path: Path) -> None:
    image = write_image(tmp_path / "a.png", 1)
    for words in (
        ("compress", codec_run, image, tmp_path / "a.gcp"),
        ("decompress", codec_run, tmp_path / "a.gcp", tmp_path / "back.png"),
    ):
        command = [sys.executable, "-c", _MODULES, *map(str, words)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        imported = set(done.stdout.splitlines()[-1].split())
        assert {"gencomp", "torch"} <= imported and not imported & UNUSED


def test_a_killed_command_goes_on(codec_run: Path, tmp_path: Path) -> None:
    """kill -9 in the middle: no half files, no left-over processes, and the rest follows."""
    for i in range(200):
        write_image(tmp_path / "in" / f"{i:03}.png", i)
    words = [str(codec_run), str(tmp_path / "in"), str(tmp_path / "gcp")]
    command = [sys.executable, "-m", "gencomp.cli", "compress", *words, "--processes", "2"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    assert wait_for(lambda: len(list((tmp_path / "gcp").glob("*.gcp"))) >= 10)
    workers = descendants(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert gone(workers)
    assert main(["compress", *words, "--processes", "1"]) == 0
    assert len(list((tmp_path / "gcp").glob("*.gcp"))) == 200


@pytest.mark.slow
def test_a_thousand_images_through_other_processes(
    gencomp: Callable[..., subprocess.CompletedProcess[str]],
    codec_run: Path,
    codec: Codec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Compressed by processes of one thread, decompressed by one process of two: bit-identical to
    what a third process's encoder shows, in files of the stated size and no more."""
    for i in range(1000):
        write_image(tmp_path / "in" / f"{i % 9}" / f"{i:04}.png", i, 64 + i % 3, 64)
    for threads, words in (
        ("1", ("compress", codec_run, tmp_path / "in", tmp_path / "gcp")),
        ("2", ("decompress", codec_run, tmp_path / "gcp", tmp_path / "out", "--processes", 1)),
    ):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        done = gencomp(*map(str, words), timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
    found = names(tmp_path / "in")
    assert names(tmp_path / "out") == found and len(found) == 1000
    for name in found:
        original = pixels(tmp_path / "in" / name)
        assert np.array_equal(pixels(tmp_path / "out" / name), codec.reconstruct(Picture(original)))
        stream = (tmp_path / "gcp" / f"{name}.gcp").read_bytes()
        nominal = codec.nominal_bits(*original.shape[:2])
        assert nominal is not None
        # A byte of salt may stand beside the code.
        assert container.unpack(stream).code_bytes <= -(-nominal // 8) + 1
