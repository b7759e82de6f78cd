"""Faults, counted: the kept record, a sample of every kind, and that the judges notice what they must."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("hypothesis")
ROOT = Path(__file__).parent.parent
sys.path.extend([str(ROOT), str(ROOT / "book" / "_ext")])

import counted as page  # noqa: E402

from faults import __main__ as command  # noqa: E402
from faults import cases, damage, dependencies, fuzz, kills, lists, models, parameters, pictures, storage, weights  # noqa: E402
from faults.process import Ended  # noqa: E402
from memlib.errors import Refused  # noqa: E402

KEPT = json.loads((ROOT / "results" / "faults.json").read_text(encoding="utf8"))
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a case is a forked process")


def test_every_kind_is_kept_in_full():
    assert [row["kind"] for row in KEPT["kinds"]] == list(command.KINDS)
    for row in KEPT["kinds"]:
        inputs = row["kind"] not in kills.KINDS | storage.KINDS | damage.KINDS
        wanted = command.KINDS[row["kind"]].cases * (fuzz.INPUTS if inputs else 1)
        assert 0.9 * wanted <= row["cases"] <= wanted  # Hypothesis may draw fewer where there are few
        assert row["cases"] == sum(row[outcome] for outcome in cases.OUTCOMES)


def test_nothing_was_lost_and_nothing_was_wrong():
    assert [row["kind"] for row in KEPT["kinds"] if row["lost"] or row["wrong"]] == []
    assert sum(row["kills"] for row in KEPT["kinds"] if row["kind"] in kills.KINDS) >= 250
    rooms = (pictures, lists, weights, models, parameters)
    assert sum(row["cases"] for row in KEPT["kinds"] for room in rooms if row["kind"] in room.KINDS) >= 2000
    assert sum(row["seconds"] for row in KEPT["kinds"]) <= 3600 and KEPT["date"]
    assert len({row["commit"] for row in KEPT["kinds"]}) == 1
    assert all(row["commit"] for row in KEPT["kinds"])


def test_the_page_tells_the_counts():
    told = page.summary(KEPT)
    assert "Nothing was lost and nothing was wrong" in told and KEPT["date"] in told
    worse = KEPT | {"kinds": [row | {"lost": 2, "wrong": 1} for row in KEPT["kinds"][:1]]}
    assert "2 were lost and 1 went wrong" in page.summary(worse)


def test_a_sample_of_every_kind(tmp_path):
    """In a process of its own, which must have one thread to fork; the second run finds every case finished."""
    run = [
        sys.executable,
        "-m",
        "faults",
        "--sample",
        "--cases",
        str(tmp_path / "cases"),
        "--out",
        str(tmp_path / "out"),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    first = subprocess.run(run, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stdout.splitlines()[-1] == "nothing lost, nothing wrong"
    found = json.loads((tmp_path / "out").read_text(encoding="utf8"))["kinds"]
    assert [row["kind"] for row in found] == list(command.KINDS) and all(row["cases"] for row in found)


def test_a_finished_case_is_not_run_again(tmp_path):
    seen = []
    kind = cases.Kind(5, lambda seed: seen.append(seed) or cases.one("recovered", kills=seed))
    assert cases.total(list(cases.finished(tmp_path, "a kind", kind, 3))).kills == 3
    assert cases.total(list(cases.finished(tmp_path, "a kind", kind, 5))).counts["recovered"] == 5
    assert seen == [0, 1, 2, 3, 4]


def test_the_judges_notice(tmp_path, monkeypatch):
    """Work that was done again, other bits, a traceback, and more than a sentence."""

    def job(folder):
        raise NotImplementedError

    monkeypatch.setattr(kills, "reference", lambda job: ("right", 1.0))
    file = tmp_path / "samples" / "000000.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"kept")
    before, right = kills.state(tmp_path), Ended("done", {"digest": "right", "first": None})
    assert kills.judged(job, before, tmp_path, right, 1) == cases.one("recovered", kills=1)
    assert kills.judged(job, before, tmp_path, Ended("failed", "Traceback"), 1).counts == {"wrong": 1}
    assert kills.judged(job, before, tmp_path, Ended("done", {"digest": "other"}), 1).counts == {"wrong": 1}
    again = Ended("done", {"digest": "right", "first": 3})
    assert kills.judged(job, (before[0], 4), tmp_path, again, 1).counts == {"lost": 1}
    (tmp_path / "new").write_bytes(b"kept")
    os.replace(tmp_path / "new", file)
    assert kills.judged(job, before, tmp_path, right, 1).counts == {"lost": 1}
    assert cases.sentence("give another") and not cases.sentence("two\nlines") and not cases.sentence("")


@pytest.mark.parametrize(
    ("error", "found"),
    [(None, "recovered"), (Refused("a sentence"), "refused"), (Refused("a\nb"), "wrong"), (KeyError("x"), "wrong")],
)
def test_an_input_is_read_or_refused_or_wrong(error, found):
    def read(folder, given):
        if error:
            raise error

    assert fuzz.outcome(read, "anything")[0] == found


@pytest.mark.parametrize("name", sorted(models.MODELS))
def test_a_pickle_in_the_place_of_weights_is_refused_and_runs_nothing(name, tmp_path):
    make, read, _ = models.MODELS[name]
    given = models.Folder(0, "a pickle", [(0, "drop", None)], [], [], 2)
    assert fuzz.outcome(models.reader(make, read), given) == ("refused", "")


@pytest.mark.parametrize("call", sorted(weights.CALLS))
def test_the_programs_would_run(call, tmp_path):
    """What is put into files does run where pickles are opened: that nothing ran is then a finding."""
    import pickle

    (tmp_path / "it-ran.before").touch()
    function, *arguments = weights.CALLS[call](tmp_path / "it-ran")
    pickle.loads(pickle.dumps(weights.Bomb(function, *arguments)))
    assert list(tmp_path.glob("it-ran")) or list(tmp_path.glob("it-ran.npy"))


def test_a_licence_is_stated_for_what_is_installed():
    rows = {name: stated for name, _, stated in dependencies.licences()}
    assert "BSD" in rows["numpy"] and len(rows) > 100
    assert list(rows.values()).count("not stated") < 0.1 * len(rows)
