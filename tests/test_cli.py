"""The command line and papermill on a chapter in miniature, each in a process of its own."""

import io
import json
import re
import time

import nbformat
import pytest
import tiny_notebook as tiny
import tiny_study
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from memlib import papers
from memlib.cache import store
from memlib.chapters import claims_in
from memlib.cli import chapters, main, outputs, progress, studies
from memlib.errors import Refused


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with one chapter, as the current folder."""
    tiny.write(tmp_path / "notebooks" / "07_tiny.ipynb", tiny.BODY, tiny.CLAIM, tiny.SLIDER)
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/intro\nchapters:\n- file: notebooks/07_tiny\n")
    (tmp_path / "_config.yml").write_text(
        "title: Tiny\nonly_build_toc_files: true\nexecute: {execute_notebooks: 'off'}\n"
    )
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "intro.md").write_text("# Intro\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_plain_papermill_takes_lists_whole_floats_and_settings(project):
    """papermill gives a list as text; and it knew no parameter whose annotation has a |."""
    words = ["-p", "n_train", "1e1", "-p", "settings", "{'levels': [1e-3, 1e-2]}"]
    done = tiny.python("papermill", "notebooks/07_tiny.ipynb", "out.ipynb", *words, cwd=project)
    assert done.returncode == 0, done.stderr
    assert "unknown parameter" not in done.stdout + done.stderr
    text = (project / "out.ipynb").read_text()
    assert "scale fast: n_train = 10, levels = [0.001, 0.01]" in text and "10 points" in text


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("lambada", "3", ["lambada"]),
        ("seed", "abc", ["seed", "'abc'", "int"]),
        ("n_train", "1", ["n_train", "2", "100"]),
    ],
)
def test_plain_papermill_ends_in_the_sentence(project, name, value, words):
    done = tiny.python("papermill", "notebooks/07_tiny.ipynb", "out.ipynb", "-p", name, value, cwd=project)
    last = (done.stdout + done.stderr).strip().splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith("Refused: ") and all(word in last for word in words)


def test_a_refusal_is_all_that_memlib_run_prints(project):
    early = tiny.python("memlib.cli", "run", "07", "-p", "n_trian=3", cwd=project)
    assert (early.returncode, early.stdout) == (1, "")
    assert early.stderr.count("\n") == 1 and "n_trian" in early.stderr and "closest: n_train" in early.stderr
    assert not (project / "runs").exists()  # refused before anything ran

    late = tiny.python("memlib.cli", "run", "07", "-p", "n_train=1000", cwd=project)  # the range is known in the kernel
    assert (late.returncode, late.stdout) == (1, "")
    assert late.stderr == "parameter n_train is 1000: it must lie between 2 and 100\n"


def test_a_run_reports_its_claims_and_keeps_those_of_a_scale(project):
    done = tiny.python("memlib.cli", "run", "07_tiny", "--scale", "book", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "X1     reproduced" in done.stdout and "n = 16" in done.stdout
    (claim,) = claims_in(project / "runs" / "07_tiny-book.ipynb")
    assert (claim["id"], claim["scale"], claim["n"], claim["interval"]) == ("X1", "book", 16, [0.5, 1.5])
    kept = json.loads((project / "results" / "book" / "07_tiny.json").read_text())
    assert kept["claims"] == [claim]
    assert kept["provenance"]["parameters"]["n_train"] == 16
    assert {"commit", "device", "seconds", "versions"} <= set(kept["provenance"])


def test_a_changed_setting_is_not_kept_as_a_result_of_the_scale(project):
    done = tiny.python("memlib.cli", "run", "07", "--scale", "book", "-p", "weight=3", cwd=project)
    assert done.returncode == 0, done.stderr
    assert not (project / "results").exists()
    text = (project / "runs" / "07_tiny-book.ipynb").read_text()
    assert "16 points" in text and "weight 3.0" in text and "scale book: n_train = 16, weight = 3.0" in text
    assert main(["results", "runs/07_tiny-book.ipynb"]) == 0
    assert (project / "results" / "book" / "07_tiny.json").exists()
    record = project / "runs" / "07_tiny-book.json"
    record.write_text(record.read_text().replace('"n": 16', '"n": 17'))
    assert main(["results", "runs/07_tiny-book.ipynb"]) == 1  # another run's record


def test_without_a_terminal_a_run_says_how_far_it_is(project):
    path = project / "notebooks" / "07_tiny.ipynb"
    notebook = nbformat.read(path, as_version=4)
    sleep = new_code_cell("import time\n\ntime.sleep(2)", id="sleep")
    heading = new_markdown_cell("## The study\n\nIt takes long.", id="study")
    notebook.cells += [heading, sleep, new_markdown_cell("## Exercises", id="exercises"), new_code_cell("1", id="last")]
    nbformat.write(notebook, path)
    done = tiny.python("memlib.cli", "run", "07", cwd=project)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert re.fullmatch(r"07_tiny-fast \d+:\d\d The study \(cell 8 of 10\)", lines[0]), lines
    assert len(lines) <= 3  # a line a section, and not one a second


def test_a_long_section_is_told_again(tmp_path):
    status = {"papermill": {"status": "running"}}
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"], "metadata": {}},
        {"cell_type": "code", "source": "1", "metadata": {"papermill": {"status": "completed"}}},
        {"cell_type": "markdown", "source": "## One\n\n## Two", "metadata": {}},
        {"cell_type": "code", "source": "2", "metadata": status},
        {"cell_type": "markdown", "source": "## Three", "metadata": {}},
    ]
    assert progress.place({"cells": cells}) == ("Two", "cell 4 of 5")
    assert progress.place({"cells": cells[:1] + [cells[3]]}) == ("", "cell 2 of 2")
    assert progress.place({"cells": cells[:3]}) is None
    stream = io.StringIO()
    with progress.told(tmp_path / "a.ipynb", every=0.4, stream=stream):
        (tmp_path / "a.ipynb").write_text("{")  # half written
        time.sleep(1)
        (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}))
        time.sleep(2.5)
    lines = [line.split(" ", 2)[2] for line in stream.getvalue().splitlines()]
    assert (
        lines[0] == "start (no cell yet)" and lines[-1] == "Two (cell 4 of 5)" and lines.count("Two (cell 4 of 5)") > 1
    )


def test_an_error_names_the_cell_and_the_notebook(project):
    tiny.write(project / "notebooks" / "08_broken.ipynb", "1 / 0")
    done = tiny.python("memlib.cli", "run", "08", cwd=project)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "ZeroDivisionError: division by zero" in done.stderr
    assert "08_broken stopped in cell [3]" in done.stderr and (project / "runs" / "08_broken-fast.ipynb").exists()


def test_the_book_survives_a_broken_chapter_and_names_it(project):
    tiny.write(project / "notebooks" / "08_broken.ipynb", "1 / 0")
    with open(project / "_toc.yml", "a") as toc:
        toc.write("- file: notebooks/08_broken\n")
    committed = (project / "notebooks" / "07_tiny.ipynb").read_bytes()
    done = tiny.python("memlib.cli", "book", cwd=project)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0].startswith("07_tiny") and lines[0].endswith("1 claims")
    assert lines[1].startswith("08_broken") and "ZeroDivisionError" in lines[1]
    assert done.stderr.strip().endswith("08_broken")
    page = (project / "_build" / "html" / "notebooks" / "07_tiny.html").read_text()
    assert "8 points, mean" in page and 'type="range"' in page
    assert (project / "_build" / "html" / "notebooks" / "08_broken.html").exists()
    assert (project / "notebooks" / "07_tiny.ipynb").read_bytes() == committed


def test_refreshed_outputs_are_the_same_bytes_twice(project):
    path = project / "notebooks" / "07_tiny.ipynb"
    seen = []
    for _ in range(2):
        done = tiny.python("memlib.cli", "outputs", "07", cwd=project)
        assert done.returncode == 0, done.stderr
        seen.append(path.read_bytes())
    assert seen[0] == seen[1]
    notebook = nbformat.read(path, as_version=4)
    assert [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"] == [1, 2, 3, 4, 5]
    assert [cell.id for cell in notebook.cells][:3] == ["title", "parameters", "begin"]
    assert b"papermill" not in seen[0] and str(project).encode() not in seen[0]


def _with_widgets(ids, order):
    """A notebook that shows one box of two children; `ids` names box, first, second and a model that nobody shows."""
    box, first, second, lost = ids
    models = {
        box: {"children": [f"IPY_MODEL_{first}", f"IPY_MODEL_{second}"], "box_style": ""},
        first: {"value": 1},
        second: {"value": 2},
        lost: {"value": 3},
    }
    state = {name: {"model_name": "M", "state": models[name]} for name in [ids[index] for index in order]}
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": box, "version_major": 2}}
    streams = [new_output("stream", name="stdout", text=text) for text in ("a\n", "b\n")]
    cell = new_code_cell("box", id="c", outputs=[*streams, new_output("display_data", view)])
    metadata = {"widgets": {"application/vnd.jupyter.widget-state+json": {"state": state, "version_major": 2}}}
    return new_notebook(cells=[cell], metadata=metadata | {"papermill": {"duration": 3}})


def test_normalised_renumbers_widgets_by_what_is_shown():
    one = outputs.normalised(_with_widgets(["f1", "a9", "07", "zz"], [0, 1, 2, 3]))
    two = outputs.normalised(_with_widgets(["03", "b2", "c4", "aa"], [3, 2, 1, 0]))
    assert nbformat.writes(one) == nbformat.writes(two)
    state = one.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    assert len(state) == 3  # the model that nobody shows is gone
    box = state[one.cells[0].outputs[-1].data["application/vnd.jupyter.widget-view+json"]["model_id"]]
    assert [state[child.removeprefix("IPY_MODEL_")]["state"]["value"] for child in box["state"]["children"]] == [1, 2]
    assert one.cells[0].outputs[0].text == "a\nb\n"


def test_assignments_are_literals_except_for_text(project):
    notebook = chapters.find("07")
    assert chapters.given(notebook, ["weight=1e-3", "n_train=1_0", "scale=book"]) == {
        "weight": 1e-3, "n_train": 10, "scale": "book",
    }  # fmt: skip
    assert chapters.given(notebook, ["n_train=1e1", "settings={'levels': [1e-3, 1e-2]}"]) == {
        "n_train": 10, "settings": {"levels": [1e-3, 1e-2]},
    }  # fmt: skip
    for wrong, word in {"seed": "name=value", "seed=1.5": "int", "seed=true": "bool", "scale=tiny": "'fast'"}.items():
        with pytest.raises(Refused, match=word):
            chapters.given(notebook, [wrong])


def test_chapters_are_found_and_listed(project, capsys):
    assert chapters.find("07") == chapters.find("07_tiny") == project / "notebooks" / "07_tiny.ipynb"
    with pytest.raises(Refused, match="closest: 07_tiny"):
        chapters.find("07_tinny")
    assert main(["chapters"]) == 0
    listed = capsys.readouterr().out
    assert "07_tiny: Tiny" in listed
    assert any(line.split() == ["weight", "float", "2.0", "guidance", "weight", "λ"] for line in listed.splitlines())


def test_usage_is_exit_two():
    with pytest.raises(SystemExit) as ended:
        main(["run"])
    assert ended.value.code == 2


# Studies.


@pytest.fixture
def studied(project, monkeypatch):
    """The tiny study as if it were a paper's."""
    monkeypatch.setenv("MEMLIB_CACHE", str(project / "cache"))
    monkeypatch.setattr(papers, "studies", lambda: {"tiny": tiny_study})
    monkeypatch.setattr(studies, "studies", lambda: {"tiny": tiny_study})
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield project
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


def test_groups_of_a_study_add_up_to_one_record(studied, capsys):
    assert main(["study", "tiny", "--scale", "book", "--claims", "X1"]) == 0
    assert "X1     reproduced" in capsys.readouterr().out
    page = studied / "results" / "book" / "07_tiny.json"
    assert [claim["id"] for claim in json.loads(page.read_text())["claims"]] == ["X1"]
    assert main(["study", "07", "--scale", "book", "--claims", "X3"]) == 0
    told = capsys.readouterr().out
    assert "X2" in told and "X3" in told and "X1" not in told  # the whole group, and not what was kept before
    kept = json.loads(page.read_text())
    assert [claim["id"] for claim in kept["claims"]] == ["X1", "X2", "X3"]
    assert set(kept["groups"]) == {"points", "spread"} and {"commit", "device", "seconds"} <= set(kept["provenance"])
    both = store.load(page.with_suffix(".safetensors"))
    assert type(both) is tiny_study.Results and len(both.points) == 16 and both.spread is not None
    assert studies.listing().splitlines()[1].split()[:5] == ["tiny", "07_tiny", "X1", "X2", "X3"]


def test_a_setting_that_a_kept_group_did_not_know_leaves_it_in_the_record(studied, capsys):
    page = studied / "results" / "book" / "07_tiny.json"
    assert main(["study", "tiny", "--scale", "book", "--claims", "X1"]) == 0
    record = json.loads(page.read_text())
    del record["provenance"]["parameters"]["weight"]
    for changed, ids in ((False, ["X1", "X2", "X3"]), (True, ["X2", "X3"])):
        if changed:
            record["provenance"]["parameters"]["n_train"] = 15
        page.write_text(json.dumps(record))
        assert main(["study", "07", "--scale", "book", "--claims", "X3"]) == 0
        assert [claim["id"] for claim in json.loads(page.read_text())["claims"]] == ids


def test_a_claim_that_the_settings_leave_out_is_named(studied, capsys, monkeypatch):
    monkeypatch.setattr(tiny_study, "verdicts", lambda results: [])
    assert main(["study", "tiny", "--scale", "book", "--claims", "X1"]) == 0
    assert "X1: not measured with these settings" in capsys.readouterr().out


def test_settings_of_ones_own_do_not_stand_for_the_scale(studied, capsys):
    assert main(["study", "tiny", "--scale", "book", "--set", "n_train=9"]) == 0
    assert not (studied / "results").exists()
    kept = json.loads((studied / "runs" / "book" / "07_tiny.json").read_text())
    assert kept["provenance"]["parameters"]["n_train"] == 9 and len(kept["claims"]) == 3
    # Groups of other settings are not mixed into one record.
    assert main(["study", "tiny", "--scale", "book", "-s", "n_train=10", "--claims", "X1"]) == 0
    assert len(json.loads((studied / "runs" / "book" / "07_tiny.json").read_text())["claims"]) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["tinny"], "there is no study 'tinny': choose 'tiny'"),
        (["tiny", "--claims", "X9"], "has no claim X9: choose among X1, X2, X3"),
        (["tiny", "--set", "n_train=1"], "parameter n_train is 1: it must lie between 2 and 100"),
        (["tiny", "--set", "half=raport"], "closest: report"),
        (["tiny", "--set", "n_trian=3"], "unknown setting n_trian"),
        (["tiny", "--scale", "gpu"], "has no scale 'gpu': choose"),
        (["tiny", "--device", "tpu9"], "device 'tpu9' cannot be used"),
    ],
)
def test_a_wrong_study_is_refused_in_one_sentence(studied, capsys, words, sentence):
    assert main(["study", *words]) == 1
    out, told = capsys.readouterr()
    assert sentence in told and told.count("\n") == 1 and out == ""


def test_the_real_studies_are_listed():
    done = tiny.python("memlib.cli", "study", cwd=tiny.ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].split() == ["study", "chapter", "claims", "fast", "book", "gpu", "paper"]
