"""The time budget of a sweep counts the seconds of all its attempts."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

from sweeps.time_budget import TimeBudget


def test_time_goes_on_in_the_next_process(tmp_path: Path) -> None:
    def spent() -> float:
        return float(json.loads((tmp_path / "time.json").read_text())["seconds"])

    before = time.time()
    first = TimeBudget(tmp_path, 100.0)
    assert before + 100 <= first.deadline <= time.time() + 100 and not first.is_used_up()
    first.save()
    while spent() == 0:
        first.save()
    earlier, before = spent(), time.time()
    second = TimeBudget(tmp_path, 100.0)
    assert before + 100 - earlier <= second.deadline <= time.time() + 100 - earlier
    assert TimeBudget(tmp_path, earlier / 2).is_used_up()
    assert not TimeBudget(tmp_path, math.inf).is_used_up()
    second.save()
    assert spent() >= earlier
