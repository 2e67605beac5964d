"""Profiles: requests to Slurm that stay the same, in a YAML file under Slurm's own names.

partition: gpu
account: imaging
gres: gpu:4
cpus-per-task: 16
time: 8:00:00
setup: [module load cuda/12.4]
sbatch: [exclude=n7, exclusive]
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import ConfigDict, Field, ValidationError

from gencomp.errors import InputError
from gencomp.validation import sentence
from slurm.jobs.options import SlurmOptions

Options = TypeVar("Options", bound=SlurmOptions)
Count = Annotated[int, Field(ge=1)]


class Profile(SlurmOptions):
    """The content of a profile. None, like a missing key, leaves a choice open."""

    model_config = ConfigDict(alias_generator=lambda name: name.replace("_", "-"))

    nodes: Count | None = None
    cpus_per_task: Count | None = None


def read(path: Path) -> Profile:
    """The profile in a YAML file.

    Raises:
        InputError: the file cannot be read, is no mapping, or has an unknown key or a wrong value.
    """
    try:
        # Values are read as text, because YAML takes 4:00:00 for a number in the base of 60.
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"--profile {path} cannot be read: {reason}") from None
    except yaml.YAMLError as error:
        raise InputError(
            f"--profile {path} is not valid YAML: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(raw, dict):
        raise InputError(f"--profile {path} must be a mapping of options to values")
    try:
        return Profile.model_validate(raw)
    except ValidationError as error:
        raise InputError(f"--profile {path}: {sentence(error, Profile)}") from None


def merged(options: Options, profile: Profile) -> Options:
    """The options, with the profile's values for what they leave open.

    The lines of `setup` and `sbatch` are added after those of the profile.

    Args:
        options: the options of the command line.
        profile: the profile; keys that this kind of options does not have, such as `nodes`, are
            ignored.
    """
    changes: dict[str, Any] = {}
    for name in Profile.model_fields.keys() & type(options).model_fields.keys():
        given, usual = getattr(options, name), getattr(profile, name)
        if isinstance(given, tuple):
            changes[name] = (*usual, *given)
        elif given is None:
            changes[name] = usual
    return options.model_copy(update=changes)
