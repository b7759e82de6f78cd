"""What a notebook needs: parameters that become settings, claims on the record, tables, and kept runs."""

import json
import math
from dataclasses import replace

import pytest
import tiny_notebook as tiny
import tiny_study
import torch

from memlib import chapters, papers
from memlib.chapters import claims, parameters
from memlib.claim import Claim
from memlib.errors import Refused
from memlib.run import Run


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty cache and current folder; torch's determinism as it was."""
    monkeypatch.setenv("MEMLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


def cell(**changes):
    """The globals of a notebook after its parameters cell, with `changes` as a second assignment would make them."""
    namespace = {}
    exec(tiny.PARAMETERS, namespace)
    return namespace | changes


def begin(**changes):
    namespace = cell(**changes)
    return chapters.begin("07_tiny", namespace, tiny_study), namespace


# Parameters.


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lambada": 3}, ["lambada"]),
        ({"n_trian": 3}, ["n_trian", "closest: n_train"]),
        ({"seed": "abc"}, ["seed", "'abc'", "int"]),
        ({"n_train": 101}, ["n_train", "101", "between 2 and 100"]),
        ({"scale": "bok"}, ["scale", "'bok'", "closest: book"]),
        ({"scale": "paper"}, ["'paper'", "'fast' or 'book'"]),
        ({"settings": {"haf": "report"}}, ["unknown setting haf", "closest: half"]),
        ({"settings": {"half": "raport"}}, ["half", "'raport'", "closest: report"]),
        ({"settings": {"levels": [99]}}, ["levels", "99", "between 0 and 10"]),
        ({"settings": 3}, ["settings", "3"]),
        ({"settings": "nowhere.yml"}, ["nowhere.yml", "cannot be read"]),
    ],
)
def test_a_wrong_parameter_is_refused_in_one_sentence(change, words):
    with pytest.raises(Refused) as refused:
        begin(**change)
    sentence = str(refused.value)
    assert all(word in sentence for word in words), sentence
    assert "\n" not in sentence


def test_values_are_converted_and_written_back(capsys):
    page, namespace = begin(weight=9)
    assert namespace["weight"] == 9.0 and type(namespace["weight"]) is float
    assert page.settings == tiny_study.Settings(weight=9.0)
    assert capsys.readouterr().out == "scale fast: weight = 9.0\n"
    begin()
    assert capsys.readouterr().out == ""


def test_a_scale_sets_what_was_not_given(capsys):
    history = ["", "n_train: int = 8", "# Parameters\nscale = 'book'\nweight = 3.0"]
    page, namespace = begin(scale="book", weight=3.0, In=history)
    assert (page.run.scale, page.settings.n_train, namespace["n_train"], page.settings.weight) == ("book", 16, 16, 3.0)
    assert capsys.readouterr().out == "scale book: n_train = 16, weight = 3.0\n"
    edited, _ = begin(n_train=12, In=[""])  # a reader who edits the cell, at the fast scale
    assert edited.settings.n_train == 12


def test_further_settings_come_by_name_or_from_a_file(tmp_path):
    page, _ = begin(settings={"levels": [1, 2], "half": "explore"})
    assert page.settings.levels == [1.0, 2.0] and page.settings.half == "explore"
    (tmp_path / "mine.yml").write_text("half: explore\nlimit: 3\n")
    page, _ = begin(settings=str(tmp_path / "mine.yml"))
    assert (page.settings.half, page.settings.limit) == ("explore", 3)
    for text, words in {"- 1\n": "holds a list", "half: [": "cannot be read", "1: 2": "names and values"}.items():
        (tmp_path / "mine.yml").write_text(text)
        with pytest.raises(Refused, match=words):
            begin(settings=str(tmp_path / "mine.yml"))


@pytest.mark.parametrize(
    ("text", "value"),
    [("[1e-3, 1e-2]", [1e-3, 1e-2]), ("(1, 2)", (1, 2)), ("[cat, dog, 3]", ["cat", "dog", 3]), ("[true]", [True])],
)
def test_lists_that_come_as_text_are_read(text, value):
    """As `papermill -p rates "[1e-3, 1e-2]"` gives them."""
    annotations = {"rates": list, "note": str, "settings": dict}
    namespace = {"rates": text, "note": text, "settings": "{'rates': [1]}", "__annotations__": annotations}
    settled = parameters.settle(namespace, ["rates"])
    assert settled["note"] == text and list(settled["rates"]) == list(value)
    assert parameters.further(settled["settings"]) == {"rates": [1]}
    for wrong in ("1e-3, 1e-2", "[1e-3", "cat"):
        with pytest.raises(Refused, match="parameter rates is"):
            parameters.settle(namespace | {"rates": wrong}, [])


def test_images_of_ones_own_are_checked_before_the_first_cell(monkeypatch):
    """And only these: the study of the defaults needs no look at its images."""
    seen = []

    def check_sources(settings, run):
        seen.append((settings.n_train, run.scale, float(torch.rand(()))))
        if settings.n_train > 50:
            raise Refused("too few images")

    monkeypatch.setattr(tiny_study, "check_sources", check_sources, raising=False)
    begin(weight=3.0)
    plain = torch.rand(())
    assert seen == []
    begin(n_train=9)
    assert torch.rand(()) == plain and [one[:2] for one in seen] == [(9, "fast")]
    with pytest.raises(Refused, match="too few images"):
        begin(n_train=60)


@pytest.mark.parametrize("paper", ["side", "sgu", "i2i"])
def test_studies_of_images_check_their_sources(paper):
    study = papers.find(paper)
    own = {"forget": (3, 7)} if paper == "sgu" else {}  # its default names a class of the drawn faces
    as_stored = replace(study.SCALES["fast"], size=0, **own)
    changed = replace(as_stored, data="digits:limit=1,duplicates=1x299")
    with pytest.raises(Refused, match="digits:limit=1,duplicates=1x299"):
        study.check_sources(changed, Run("x"))
    study.check_sources(replace(as_stored, data="digits:limit=1500"), Run("x"))


def test_only_what_was_injected_can_be_unknown():
    """A reader who re-runs the second cell later has plain globals of their own; papermill's cell alone is judged."""
    begin(In=["x = 3"], x=3, table={"a": 1})
    with pytest.raises(Refused, match="lambada"):
        begin(In=["", "# Parameters\nlambada = 3\n"], lambada=3)


# Claims.


def test_a_claim_is_rounded_printed_and_recorded(capsys, tmp_path):
    page, _ = begin()
    page.record([Claim("S1", "trend only", torch.tensor(0.123456), 2000, (0.11119, 0.2), "Larger.")])
    page.record([Claim("S2", "reproduced", {"a": 12345, "b": [1 / 3, 2]}, 3)])
    assert capsys.readouterr().out.splitlines() == [
        "S1 (fast): trend only; 0.123 [0.111, 0.2], n = 2000. Larger.",
        "S2 (fast): reproduced; a 12300, b 0.333, 2, n = 3",
    ]
    kept = json.loads((tmp_path / "runs" / "07_tiny-fast.json").read_text())
    assert [claim["id"] for claim in kept["claims"]] == ["S1", "S2"]
    assert kept["claims"][1] == {
        "id": "S2", "scale": "fast", "figure": {"a": 12300, "b": [0.333, 2]},
        "interval": None, "n": 3, "verdict": "reproduced",
    }  # fmt: skip
    assert kept["provenance"]["parameters"] == {"seed": 0, **vars(page.settings), "levels": [1.0]}
    assert kept["provenance"]["versions"]["torch"] == torch.__version__


@pytest.mark.parametrize(
    "wrong",
    [
        {"verdict": "proved"},
        {"figure": math.nan},
        {"figure": [1, math.inf]},
        {"interval": (2, 1)},
        {"interval": (1, math.nan)},
        {"interval": (1, 2, 3)},
        {"n": 0},
    ],
)
def test_a_claim_that_says_nothing_is_an_error(wrong):
    with pytest.raises(ValueError, match="claim"):
        Claim(**({"id": "S1", "verdict": "reproduced", "figure": 1.0, "n": 1} | wrong))


def test_claims_are_read_from_a_notebook(tmp_path):
    record = Claim("S1", "reproduced", 1.0, 1).record("fast")
    outputs = [{"output_type": "stream", "text": "x"}, {"output_type": "display_data", "data": {claims.MIME: record}}]
    cells = [{"cell_type": "markdown", "source": ""}, {"cell_type": "code", "outputs": outputs}]
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}))
    assert chapters.claims_in(tmp_path / "a.ipynb") == [record]
    (tmp_path / "b.ipynb").write_text("[]")
    for name in ("b.ipynb", "absent.ipynb"):
        with pytest.raises(Refused, match=name):
            chapters.claims_in(tmp_path / name)


def test_a_chapter_runs_on_where_nothing_can_be_written(capsys, tmp_path):
    page, _ = begin()
    (tmp_path / "runs").touch()  # a file where the folder would be
    page.record([Claim("S1", "reproduced", 1, 1)])
    assert capsys.readouterr().out.startswith("S1")


def test_tables_are_shown_kept_and_closed_by_the_verdicts(monkeypatch, capsys, tmp_path):
    (tmp_path / "_toc.yml").touch()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")  # the project is found from below, as from a notebook
    assert chapters.kept("07_tiny") is None
    page, _ = begin()
    page.table("What each arm lost", [("arm", "loss"), ("paper", "0.12"), ("another", 1)])
    page.table("Unkept", [("a",), ("b",)], keep=False)
    page.record([Claim("S1", "trend only", 1, 1)])
    page.verdicts({"S1": ("more", "less", "too small")})
    shown = capsys.readouterr().out
    assert shown.startswith("What each arm lost\narm      loss\npaper    0.12\nanother  1\n")
    assert shown.endswith("claim  paper  here  verdict     why\nS1     more   less  trend only  too small\n")
    written = tmp_path / "runs" / "07_tiny-fast.json"
    (tmp_path / "results" / "book").mkdir(parents=True)
    written.rename(tmp_path / "results" / "book" / "07_tiny.json")
    kept = chapters.kept("07_tiny")
    assert kept["claims"]["S1"]["verdict"] == "trend only" and kept["provenance"]["seconds"] >= 0
    assert kept["tables"] == {"What each arm lost": [["arm", "loss"], ["paper", "0.12"], ["another", "1"]]}
    # A claim that this run did not measure has the verdict of the kept run, and says so; else it has none.
    again, _ = begin()
    again.verdicts({"S1": ("", "", ""), "S9": ("", "", "")})
    shown = capsys.readouterr().out
    assert "trend only (book)" in shown and "not measured in this run" in shown


def test_an_unbounded_interval_is_recorded_as_none():
    """JSON has no infinity, and equal runs say nothing of their spread."""
    claim = Claim("S1", "not reproduced", 0.5, 3, (-math.inf, math.inf))
    assert claim.record("fast")["interval"] is None
    assert Claim("S1", "reproduced", 0.5, 3, (0.25, 0.5)).record("fast")["interval"] == [0.25, 0.5]
