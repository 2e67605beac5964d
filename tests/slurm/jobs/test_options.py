"""Requests to Slurm: times, scripts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gencomp.errors import InputError
from slurm.jobs import options
from slurm.jobs.options import Shape, SlurmOptions
from slurm.jobs.sbatch import script


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90),
        ("1", 1),
        ("00:01:00", 1),
        ("00:00:01", 1),
        ("02:30:00", 150),
        ("1-00:00:30", 1441),
    ],
)
def test_times_become_minutes(text: str, expected: int) -> None:
    assert options.minutes(text) == expected


@given(st.integers(0, 30), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_a_time_is_never_shortened(days: int, hours: int, minutes: int, seconds: int) -> None:
    asked = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    text = f"{days}-{hours:02}:{minutes:02}:{seconds:02}"
    if asked == 0:
        with pytest.raises(InputError, match="without a time limit"):
            options.minutes(text)
    else:
        assert 0 <= options.minutes(text) * 60 - asked < 60


@pytest.mark.parametrize("text", ["0", "00:00:00", "0-00:00:00"])
def test_no_time_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="at least a minute"):
        options.minutes(text)


@pytest.mark.parametrize("text", ["", "-1", "1h", "10:00", "1-10", "00:61:00", "1.5", "1:2:3:4"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="must be minutes, HH:MM:SS or D-HH:MM:SS"):
        options.minutes(text)


def test_the_script_says_what_was_asked_and_no_more() -> None:
    asked = SlurmOptions(
        partition="a,b",
        gres="gpu:1",
        time="02:00:00",
        sbatch=("reservation=night", "exclusive"),
        setup=("module load cuda",),
    )
    shape = Shape(
        "gencomp-ais-g-ais",
        "gencomp:plan=x",
        cpus=2,
        environment=options.environment(2),
        dependency="afterok:17",
        parallel=3,
    )
    values = options.parameters(asked, shape)
    assert script(Path("/logs dir"), values, jobs=8) == "\n".join(
        [
            "#!/bin/bash",
            "",
            "# Parameters",
            "#SBATCH --array=0-7%3",
            "#SBATCH --comment=gencomp:plan=x",
            "#SBATCH --cpus-per-task=2",
            "#SBATCH --dependency=afterok:17",
            "#SBATCH --error='/logs dir/%A_%a_0_log.err'",
            "#SBATCH --exclusive",
            "#SBATCH --gres=gpu:1",
            "#SBATCH --job-name=gencomp-ais-g-ais",
            "#SBATCH --kill-on-invalid-dep=yes",
            "#SBATCH --nodes=1",
            "#SBATCH --open-mode=append",
            "#SBATCH --output='/logs dir/%A_%a_0_log.out'",
            "#SBATCH --partition=a,b",
            "#SBATCH --requeue",
            "#SBATCH --reservation=night",
            "#SBATCH --signal=B:USR2@120",
            "#SBATCH --time=120",
            "",
            "# setup",
            "trap '' USR2",
            "module load cuda",
            "export OMP_NUM_THREADS=2",
            "export OMP_WAIT_POLICY=PASSIVE",
            "export MALLOC_MMAP_THRESHOLD_=1073741824",
            "export MALLOC_TRIM_THRESHOLD_=1073741824",
            "",
            "# command",
            "export SUBMITIT_EXECUTOR=slurm",
            f"exec {sys.executable} -P -u -m submitit.core._submit '/logs dir'",
            "",
        ]
    )


def test_the_warning_fits_into_a_short_limit() -> None:
    values = options.parameters(SlurmOptions(time="1"), Shape("n", "c"))
    assert values["additional_parameters"]["signal"] == "B:USR2@30"


def test_a_warning_of_ones_own_is_known() -> None:
    asked = SlurmOptions(sbatch=("signal=B:USR2@600",))
    assert asked.warning == 600
    values = options.parameters(asked, Shape("n", "c", nodes=2))
    assert values["additional_parameters"]["signal"] == "B:USR2@600"
    text = script(Path("/logs"), values, jobs=1)
    assert "#SBATCH --nodes=2\n" in text and "#SBATCH --ntasks-per-node=1\n" in text


@pytest.mark.parametrize("word", ["", "=1", "KEY=1", "a b=1"])
def test_malformed_sbatch_words_are_refused(word: str) -> None:
    with pytest.raises(InputError, match="must be KEY=VALUE"):
        options.parameters(SlurmOptions(sbatch=(word,)), Shape("n", "c"))
