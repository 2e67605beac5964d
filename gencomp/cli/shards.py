"""`gencomp shards build|index|split|sample`: make shard sets; the other commands are beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from gencomp.cli.console import progress
from gencomp.errors import InputError

if TYPE_CHECKING:
    from shards.info import DatasetInfo

SourceName = Literal[
    "photos", "digits", "folder", "kodak", "clic", "celeba", "lsun", "cityscapes", "ade20k",
    "mnist", "fashion-mnist", "svhn", "cifar10", "imagenet32", "wds",
]  # fmt: skip
Location = Annotated[str, tyro.conf.arg(metavar="LOCATION")]
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
_MOST_SKIPPED = 10  # that are named on the console; dataset.json names all


def build(
    source: Annotated[SourceName, tyro.conf.arg(metavar="SOURCE")],
    path: Annotated[str | None, tyro.conf.arg(metavar="[PATH]")] = None,
    /,
    out: Path | None = None,
    size: str | None = None,
    storage: str | None = None,
    test_images: int | None = None,
    test_fraction: float | None = None,
    seed: int | None = None,
    attributes: Flag = False,
    no_labels: Flag = False,
    no_instances: Flag = False,
    shard_size: int | None = None,
    limit: int | None = None,
    on_error: Literal["stop", "skip"] | None = None,
    processes: int | None = None,
) -> None:
    """Make a shard set, WebDataset tars with a Parquet index, from a data set as it is shipped.

    SOURCE and what PATH is:
      photos         none: crops of the photographs inside scikit-image
      digits         none: handwritten digits inside scikit-learn
      folder         images of any kind in a folder or an archive; sub-folders become labels
      kodak          folder or archive of kodim01.png to kodim24.png
      clic           a zip of CLIC, the folder that it unpacks to, or a folder of several
      celeba         img_align_celeba.zip or its folder, with list_eval_partition.txt beside it
      lsun           a category's LMDB (bedroom_train_lmdb), or a folder of exported images
      cityscapes     folder of leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip
      ade20k         ADEChallengeData2016.zip, or the folder from it
      mnist          folder of the four idx files, with or without .gz; likewise fashion-mnist
      svhn           folder of train_32x32.mat, test_32x32.mat and, if wanted, extra_32x32.mat
      cifar10        cifar-10-python.tar.gz, or the folder from it
      imagenet32     folder or zip of the batches, as pickles or .npz
      wds            WebDataset tars, local or remote: they are indexed in place, nothing is copied

    A build that was killed goes on where it was when the same command is given again. A set that
    is there with the same parameters is left as it is.

    Args:
        source: What the files are.
        path: The files.
        out: Directory to make, by default data/SOURCE; for wds, where the index goes, by default
            beside the tars. Nothing is ever overwritten.
        size: Stored size in pixels, a side such as 64 or HEIGHTxWIDTH such as 512x1024: images are
            scaled to cover it and cropped around their centre. By default the source's.
        storage: original (the files' bytes), png, webp (lossless) or jpeg:QUALITY. By default the
            source's.
        test_images: Images of a seeded test split: celeba, lsun, folder.
        test_fraction: Its share of all images: folder.
        seed: Seed of that draw: celeba, lsun, folder.
        attributes: Keep the 40 attributes of each face: celeba.
        no_labels: Store images without label maps: cityscapes.
        no_instances: Leave instance maps out: cityscapes.
        shard_size: Samples in a tar; by default 1000.
        limit: At most so many images in each split.
        on_error: stop (by default), or skip: leave out images that cannot be read and list them
            in dataset.json.
        processes: Processes that work at once; by default as many as pay off here.
    """
    given = {
        "size": size, "storage": storage, "test_images": test_images,
        "test_fraction": test_fraction, "seed": seed, "attributes": attributes or None,
        "labels": False if no_labels else None, "instances": False if no_instances else None,
    }  # fmt: skip
    options = {name: value for name, value in given.items() if value is not None}
    how = {"shard_size": shard_size, "limit": limit, "on_error": on_error}
    chosen: dict[str, Any] = {name: value for name, value in how.items() if value is not None}
    if source == "wds":
        if unfit := [*options, *chosen]:
            raise InputError(
                f"wds takes tars as they are, so --{unfit[0].replace('_', '-')} cannot be chosen"
            )
        if path is None:
            raise InputError("wds needs PATH: tars, or the directory or URI where they lie")
        index((path,), out, None, processes)
        return
    from shards.building.build import build as build_set

    with progress("building", "images") as show:
        made = build_set(
            source,
            out or Path("data") / source,
            path=path,
            options=options,
            processes=processes,
            progress=show,
            **chosen,
        )
    print_set(made.path, made.info)
    skipped = made.info.skipped
    for one in skipped[:_MOST_SKIPPED]:
        print(f"skipped {one.path}: {one.reason}")
    if len(skipped) > _MOST_SKIPPED:
        print(f"and {len(skipped) - _MOST_SKIPPED} more skipped, which dataset.json lists")


def index(
    tars: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TARS ...")],
    /,
    out: Path | None = None,
    split: str | None = None,
    processes: int | None = None,
) -> None:
    """Index WebDataset tars that are there already, local or remote; nothing is copied or changed.

    Args:
        tars: A directory or URI of tars; or tars, also as a pattern: s3://BUCKET/a-{000..012}.tar.
        out: Directory for the index; by default beside the tars, if these are local.
        split: Split of all of them; by default the word train, val or test in each file's name.
        processes: Processes that read tars at once; by default one a CPU.
    """
    from shards.building.foreign import index_tars
    from shards.pool import usable_cpus

    if not tars:
        raise InputError("missing TARS; see gencomp shards index --help")
    wanted = usable_cpus() if processes is None else processes
    with progress("indexing", "tars") as show:
        info = index_tars(tars, out, split, wanted, show)
    print_set(out or tars[0], info)


def split(
    location: Location,
    /,
    out: Path,
    test_images: int | None = None,
    test_fraction: float | None = None,
    seed: int = 0,
    from_: Annotated[str | None, tyro.conf.arg(name="from")] = None,
    shard_size: int = 1000,
    processes: int | None = None,
) -> None:
    """Divide the samples of a shard set anew into train and test; members are copied as they are.

    Images that stand more than once in the set are never drawn for the test split.

    Args:
        location: The shard set, a directory or a URI.
        out: Directory of the new set. Nothing is ever overwritten.
        test_images: Samples in the test split; either this or --test-fraction.
        test_fraction: Share of the samples in the test split.
        seed: Seed of the draw.
        from_: Divide this split alone and leave the others out.
        shard_size: Samples in a tar.
        processes: Processes that work at once; by default as many as pay off here.
    """
    from shards.building.subset import split_set

    with progress("copying", "samples") as show:
        made = split_set(
            location,
            out,
            test_images=test_images,
            test_fraction=test_fraction,
            seed=seed,
            from_split=from_,
            shard_size=shard_size,
            processes=processes,
            progress=show,
        )
    print_set(made.path, made.info)


def sample(
    location: Location,
    /,
    out: Path,
    count: int,
    split: str | None = None,
    seed: int = 0,
    shard_size: int = 1000,
    processes: int | None = None,
) -> None:
    """Cut a small shard set out of a large one; members are copied as they are.

    Args:
        location: The shard set, a directory or a URI.
        out: Directory of the new set. Nothing is ever overwritten.
        count: Samples of each split; all of a split that has fewer.
        split: Take this split alone.
        seed: Seed of the draw.
        shard_size: Samples in a tar.
        processes: Processes that work at once; by default as many as pay off here.
    """
    from shards.building.subset import sample_set

    with progress("copying", "samples") as show:
        made = sample_set(
            location,
            out,
            count=count,
            split=split,
            seed=seed,
            shard_size=shard_size,
            processes=processes,
            progress=show,
        )
    print_set(made.path, made.info)


def print_set(where: str | Path, info: DatasetInfo) -> None:
    """One line about a set: where it is, its samples, its size, its index."""
    counts = ", ".join(f"{split} {samples}" for split, samples in info.counts.items())
    size = sum(shard.bytes for split in info.splits.values() for shard in split.shards)
    print(f"{where}: {counts} samples, {megabytes(size)}; index {info.index_hash[:16]}")


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
