"""What the cost of each path grows with: the kept record, and how it is measured and told."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.extend([str(ROOT), str(ROOT / "book" / "_ext")])

import growth as page  # noqa: E402

from benchmarks import growth  # noqa: E402

KEPT = json.loads((ROOT / "results" / "growth.json").read_text(encoding="utf8"))


def test_every_path_is_kept_in_its_present_sizes():
    assert [(row["path"], row["sizes"]) for row in KEPT] == [(name, path.sizes) for name, path in growth.PATHS.items()]


@pytest.mark.parametrize("row", KEPT, ids=lambda row: row["path"])
def test_no_path_grows_faster_than_it_must(row):
    assert row["exponent"] <= row["expected"] + 0.2
    assert row["memory_exponent"] <= 1.2  # no matrix of N x M is held
    assert row["exponent"] == round(growth.slope(row["sizes"][1:], row["seconds"][1:]), 2)


def test_the_slope_of_a_power():
    assert growth.slope([1, 2, 4, 8], [3 * n**1.7 for n in (1, 2, 4, 8)]) == pytest.approx(1.7)


@pytest.mark.parametrize("name", growth.PATHS)
def test_every_path_can_be_run(name):
    call = growth.PATHS[name].prepare(64)
    call()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from Linux's /proc")
def test_memory_is_that_of_the_call(monkeypatch):
    held = []
    monkeypatch.setitem(growth.PATHS, "one", growth.Growing("N", [1], 1, lambda n: lambda: held.append(bytearray(n))))
    assert 50 < growth.measured("one", 64 << 20)["peak_mb"] < 90


def test_a_million_is_carried_on_by_the_measured_slope():
    row = {"sizes": [1000, 10_000], "seconds": [1.0, 10.0], "exponent": 2.0}
    assert page.million(row) == pytest.approx(1e5)
    words = ["0.25 s", "10 s", "5 min", "2 hours", "2 days"]
    assert [page.duration(s) for s in (0.25, 10, 300, 7200, 200_000)] == words
    drawn = page.figure(KEPT)
    assert drawn.startswith("<svg") and "currentColor" in drawn and page.INK not in drawn
    assert all(row["path"] in drawn for row in KEPT)
