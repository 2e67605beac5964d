"""`gencomp shards build`, which makes a shard set from a data set as it is shipped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from gencomp.cli.console import print_conversions, progress
from gencomp.cli.shards.index import index
from gencomp.cli.shards.showing import print_set, print_skipped
from gencomp.errors import InputError

SourceName = Literal[
    "photos", "digits", "glyphs", "shapes", "folder", "kodak", "clic", "celeba", "lsun",
    "cityscapes", "ade20k", "coco_stuff", "mnist", "fashion-mnist", "svhn", "cifar10",
    "imagenet32", "wds",
]  # fmt: skip
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]


@dataclass(frozen=True)
class SourceOptions:
    """What is taken from the source; some options are only for the sources that they name.

    Attributes:
        size: Stored size in pixels, a side such as 64 or HEIGHTxWIDTH such as 512x1024: images are
            scaled to cover it and cropped around their centre. Each source has its own default.
        storage: Format of the stored images: original (the files' bytes), png, webp (lossless) or
            jpeg:QUALITY. Each source has its own default.
        test_images: For celeba, lsun, folder: how many images a seeded test split has.
        test_fraction: For folder: the fraction of all images that a seeded test split has.
        seed: For celeba, lsun, folder: the seed of the test split.
        maps: For folder: maps of pixels beside the images, as NAME=PATH of a folder or archive of
            PNG files of ids that are named like the images; --maps label=LABELS --maps
            instance=INSTANCES gives both.
        class_names: For folder with --maps label=LABELS: the names of the labels 0, 1, ..., one a
            line of this file; or cityscapes or ade20k for their lists.
        max_pixels: For folder and wds: how many pixels an image may have; by default 268435456
            (2^28).
        attributes: For celeba: keep the 40 attributes of each face.
        no_labels: For cityscapes: store images without label maps.
        no_instances: For cityscapes: leave instance maps out.
    """

    size: str | None = None
    storage: str | None = None
    test_images: int | None = None
    test_fraction: float | None = None
    seed: int | None = None
    maps: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    class_names: str | None = None
    max_pixels: int | None = None
    attributes: Flag = False
    no_labels: Flag = False
    no_instances: Flag = False

    def given(self) -> dict[str, Any]:
        """The options that were given, by their names in the source: labels=False for no_labels."""
        return {
            name.removeprefix("no_"): not name.startswith("no_") if value is True else value
            for name, value in _chosen(self).items()
        }


@dataclass(frozen=True)
class TarOptions:
    """How the tars are made.

    Attributes:
        shard_size: How many samples a tar holds; by default 1000.
        limit: The largest number of images in each split; by default there is no limit.
        on_error: What to do with a file that is no image, cannot be read or belongs to no split:
            stop (the default), or skip, which leaves the file out and lists it in dataset.json.
    """

    shard_size: int | None = None
    limit: int | None = None
    on_error: Literal["stop", "skip"] | None = None


def build(
    source: Annotated[SourceName, tyro.conf.arg(metavar="SOURCE")],
    path: Annotated[str | None, tyro.conf.arg(metavar="[PATH]")] = None,
    /,
    out: Path | None = None,
    processes: int | None = None,
    content: Annotated[SourceOptions, tyro.conf.OmitArgPrefixes] = SourceOptions(),
    tar: Annotated[TarOptions, tyro.conf.OmitArgPrefixes] = TarOptions(),
) -> None:
    """Make a shard set, WebDataset tars with a Parquet index, from a data set as it is shipped.

    Each SOURCE needs its own kind of PATH:
      photos         no PATH: crops of the photographs inside scikit-image
      digits         no PATH: handwritten digits inside scikit-learn
      glyphs         no PATH: digits and capital letters drawn from the fonts inside matplotlib
      shapes         no PATH: striped shapes drawn in code, with maps of labels and instances
      folder         images of any kind in a folder or an archive; sub-folders become labels
      kodak          folder or archive of kodim01.png to kodim24.png
      clic           a zip of CLIC, the folder that it unpacks to, or a folder of several
      celeba         img_align_celeba.zip or its folder, with list_eval_partition.txt beside it
      lsun           a category's LMDB (bedroom_train_lmdb), or a folder of exported images
      cityscapes     folder of leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip
      ade20k         ADEChallengeData2016.zip, or the folder from it
      coco_stuff     folder of train2017.zip, val2017.zip, stuffthingmaps_trainval2017.zip and
                     labels.txt
      mnist          folder of the four idx files, with or without .gz; the same for fashion-mnist
      svhn           folder of train_32x32.mat, test_32x32.mat and, if wanted, extra_32x32.mat
      cifar10        cifar-10-python.tar.gz, or the folder from it
      imagenet32     folder or zip of the batches, as pickles or .npz
      wds            WebDataset tars, local or remote: they are indexed in place, nothing is copied

    When the same command is given again, a build that was killed goes on where it was. A set that
    exists already with the same parameters is left as it is.

    Args:
        source: The kind of the data set.
        path: The files of the data set.
        out: Directory to make, by default data/SOURCE; for wds, the directory for the index, by
            default that of the tars. Nothing is ever overwritten.
        processes: How many processes work at once; by default as many as pay off on this machine.
        content: What is taken from the source.
        tar: How the tars are made.
    """
    if source == "wds":
        others = replace(content, max_pixels=None), replace(tar, on_error=None)
        _require_nothing(name for one in others for name in _chosen(one))
        if path is None:
            raise InputError("wds needs PATH: tars, or the directory or URI where they lie")
        on_error = tar.on_error or "stop"
        index((path,), out, None, processes, on_error, max_pixels=content.max_pixels)
        return
    from shards.building.build import build as build_set

    with progress("building", "images") as show:
        made = build_set(
            source,
            out or Path("data") / source,
            path=path,
            options=content.given(),
            processes=processes,
            progress=show,
            **_chosen(tar),
        )
    print_set(made.path, made.info)
    print_conversions(made.info.conversions, sum(made.info.counts.values()))
    print_skipped(made.info)


def _chosen(options: SourceOptions | TarOptions) -> dict[str, Any]:
    """The options that were given, by their names in the class."""
    return {
        name: value
        for name, value in vars(options).items()
        if value is not None and value is not False and value != ()
    }


def _require_nothing(chosen: Iterable[str]) -> None:
    """Raise `InputError` for an option that tars which are taken as they are cannot have."""
    for name in chosen:
        raise InputError(
            f"wds takes tars as they are, so --{name.replace('_', '-')} cannot be chosen"
        )
