"""The kept benchmarks of the CPU: each row says how far it is from what no such path can do without."""

import json
from pathlib import Path

import pytest

KEPT = json.loads((Path(__file__).parents[1] / "results" / "benchmarks-cpu.json").read_text(encoding="utf8"))
ROUNDING = 1.05  # two timings of the same work differ by a few percent


@pytest.mark.parametrize("row", KEPT, ids=lambda row: f"{row['benchmark']}, {row.get('size', 'skipped')}")
def test_each_row_says_how_far_it_is_from_its_limit(row):
    assert row.get("skipped") or 0 < row.get("of_limit", 0) <= ROUNDING
