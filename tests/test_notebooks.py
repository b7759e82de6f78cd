"""What every committed chapter must be, read from its file alone; and a proof that nbval catches a changed number.

nbval passes a notebook whose outputs were stripped, and does not compare pictures. So these rules hold that there is
something to compare, and that it can be trusted: run once from top to bottom, numbers beside every figure, nothing
that leaves the book.
"""

import ast
import base64
import copy
import json
import re
import struct
from pathlib import Path

import pytest
import tiny_notebook as tiny

from memlib.chapters import claims
from memlib.claim import VERDICTS

NOTEBOOKS = sorted((tiny.ROOT / "notebooks").glob("*.ipynb"))
COMPARED = 4  # at least so many cells print something that nbval compares
IGNORED = 0.25  # at most this fraction of the cells with outputs is kept from it
PARAMETERS = 10  # that a reader turns; `settings` takes the others by name
CELLS, LINES, ALL_LINES = 20, 200, 260  # visible code cells, their lines, and those of all code cells
CELL_LINES, COLUMNS, PRINTED = 12, 80, 88  # of a visible cell; of a line of code; of a printed line
PIXELS = 730  # of a figure: 7 inches at 100 dots an inch, and a rim
HIDDEN = {"hide-input", "hide-cell", "remove-input", "remove-cell"}

VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:home|Users|root|tmp|opt|mnt)/[\w.]|\b[A-Z]:\\\\?\w")
EXTERNAL = re.compile(
    r"<(?:script|img|link|iframe|video|source)\b[^>]*?\b(?:src|href)\s*=\s*[\"']?(?:https?:)?//", re.I
)
INSTALLS = re.compile(r"^\s*[%!]\s*(?:pip|conda)\b|\bpip install\b", re.M)


def text(value) -> str:
    """A field of the notebook format, which may be a string or a list of lines."""
    return value if isinstance(value, str) else "".join(value)


def tags(cell) -> list[str]:
    return cell["metadata"].get("tags", [])


def bundles(cell) -> list[dict]:
    """The mime bundles of a cell's outputs."""
    return [output["data"] for output in cell.get("outputs", []) if "data" in output]


def says(cell) -> bool:
    """Whether nbval finds something to compare in the outputs: a text, html or a record, no mere picture."""
    printed = any(output["output_type"] == "stream" and output["name"] == "stdout" for output in cell["outputs"])
    silent = ("image/", VIEW)
    drawn = re.compile(r"<(?:Figure|Axes|IPython|module|function)\b.*>$")  # `<Figure size 600x360>` says nothing
    return printed or any(
        not mime.startswith(silent) and not (mime == "text/plain" and drawn.match(text(value)))
        for bundle in bundles(cell)
        for mime, value in bundle.items()
    )


def _told(cell) -> str:
    """What a cell's outputs say in plain text."""
    printed = [text(output.get("text", "")) for output in cell["outputs"]]
    return "\n".join([*printed, *(text(bundle.get("text/plain", "")) for bundle in bundles(cell))])


def parsed(cell) -> ast.Module:
    """The cell's Python, without IPython's own lines."""
    lines = text(cell["source"]).splitlines()
    return ast.parse("\n".join("pass" if line.lstrip().startswith(("%", "!")) else line for line in lines))


def faults(notebook: dict, name: str) -> list[str]:
    """What is wrong with a notebook called `name`, a phrase each."""
    cells = notebook["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code" and text(cell["source"]).strip()]
    return [
        *_order(code),
        *_parameters(cells, code, name),
        *_compared(code),
        *_pictures(notebook, code),
        *_sealed(cells, code),
        *_style(cells, code),
    ]


def _order(code):
    if [cell["execution_count"] for cell in code] != list(range(1, len(code) + 1)):
        yield "not executed 1..n in one go"
    if any(output["output_type"] == "error" for cell in code for output in cell["outputs"]):
        yield "holds an error"


def _parameters(cells, code, name):
    tagged = [cell for cell in cells if "parameters" in tags(cell)]
    if len(tagged) != 1:
        yield f"{len(tagged)} cells tagged parameters"
        return
    if code[0] is not tagged[0]:
        yield "the parameters are not the first code cell"
    if any("injected-parameters" in tags(cell) for cell in cells):
        yield "holds papermill's injected cell"
    lines = text(tagged[0]["source"]).splitlines()
    body = parsed(tagged[0]).body
    if not HIDDEN & set(tags(tagged[0])):
        yield "the parameters are not folded"
    if len(body) > PARAMETERS:
        yield f"{len(body)} parameters, more than {PARAMETERS}"
    for statement in body:
        if not isinstance(statement, ast.AnnAssign) or statement.value is None:
            yield f"parameters line {statement.lineno} is no annotated assignment with a default"
        elif "#" not in lines[statement.end_lineno - 1]:
            yield f"parameter {ast.unparse(statement.target)} has no comment"
    defaults = {ast.unparse(one.target): ast.unparse(one.value) for one in body if isinstance(one, ast.AnnAssign)}
    if defaults.get("scale") != "'fast'" or not {"seed", "settings"} <= set(defaults):
        yield "the parameters lack scale: str = 'fast', seed or settings"
    call = r"chapters\.begin\(\s*[\"'](\w+)[\"']\s*,\s*globals\(\)"
    begins = re.search(call, text(code[1]["source"])) if code[1:] else None
    if begins is None or begins[1] != name:
        yield f"the second code cell is no chapters.begin({name!r}, globals(), ...)"


def _compared(code):
    with_outputs = [cell for cell in code if cell["outputs"]]
    ignored = [cell for cell in with_outputs if {"nbval-ignore-output", "nbval-skip"} & set(tags(cell))]
    compared = [cell for cell in with_outputs if cell not in ignored and says(cell)]
    if len(compared) < COMPARED:
        yield f"only {len(compared)} cells are compared"
    if len(ignored) > IGNORED * len(with_outputs):
        yield f"{len(ignored)} of {len(with_outputs)} cells with outputs are ignored"
    records = [bundle for cell in code for bundle in bundles(cell) if claims.MIME in bundle]
    if not records:
        yield "no claim is recorded"
    # The digits of a record may differ on another processor; its verdict may not.
    lines = [line for cell in compared for line in _told(cell).splitlines()]
    for record in (bundle[claims.MIME] for bundle in records):
        if not any(record["verdict"] in line and re.search(rf"\b{record['id']}\b", line) for line in lines):
            yield f"the verdict on {record['id']} stands in no cell that is compared"
    for record in (bundle[claims.MIME] for bundle in records):
        if record["scale"] != "fast" or record["verdict"] not in VERDICTS:
            yield f"claim {record['id']} is not of the fast scale or has an unknown verdict"


def _pictures(notebook, code):
    models = notebook["metadata"].get("widgets", {}).get(STATE, {}).get("state", {})
    for cell in code:
        shown = {mime: value for bundle in bundles(cell) for mime, value in bundle.items()}
        if VIEW in shown and shown[VIEW]["model_id"] not in models:
            yield f"cell [{cell['execution_count']}] shows a widget whose state is not in the file"
        drawn = any(mime.startswith("image/") for mime in shown)
        if drawn and not cell["metadata"].get("mystnb", {}).get("image", {}).get("alt"):
            yield f"cell [{cell['execution_count']}] shows a picture without alternative text (mystnb.image.alt)"
        if drawn and not says(cell):
            yield f"cell [{cell['execution_count']}] shows a picture and prints no number beside it"
    for cell in code:
        for width in map(
            _width, (value for bundle in bundles(cell) for mime, value in bundle.items() if mime == "image/png")
        ):
            if width > PIXELS:
                yield f"cell [{cell['execution_count']}] shows a figure of {width} pixels"
    if not any(
        'type="range"' in text(bundle.get("text/html", "")) or VIEW in bundle for c in code for bundle in bundles(c)
    ):
        yield "nothing moves: no slider"


def _sealed(cells, code):
    sources = [text(cell["source"]) for cell in cells]
    printed = [text(output.get("text", "")) for cell in code for output in cell["outputs"]]
    shown = [text(v) for cell in code for b in bundles(cell) for m, v in b.items() if m.startswith("text/")]
    pages = [re.sub(r"data:image/\w+;base64,[\w+/=]+", "", page) for page in sources + printed + shown]
    if any(MACHINE_PATH.search(page) or str(tiny.ROOT) in page for page in pages):
        yield "names a path of one machine"
    if any(EXTERNAL.search(page) for page in pages):
        yield "loads something from outside the book"
    if any("![" in page and re.search(r"!\[[^\]]*\]\(https?:", page) for page in sources):
        yield "shows a picture from outside the book"
    if any(re.search(r"\bat 0x[0-9a-f]{6,}", page) for page in printed + shown):
        yield "prints a memory address"
    if any(INSTALLS.search(text(cell["source"])) for cell in code):
        yield "installs packages"


def _width(png) -> int:
    """Pixels, from the header of a PNG in base 64; 0 for what is none."""
    head = base64.b64decode(text(png)[:64] + "=" * (-len(text(png)[:64]) % 4))
    return struct.unpack(">I", head[16:20])[0] if head.startswith(b"\x89PNG") else 0


def _style(cells, code):
    seen = [cell for cell in code if not HIDDEN & set(tags(cell))]
    lines = {id(cell): [line for line in text(cell["source"]).splitlines() if line.strip()] for cell in code}
    shown, whole = (sum(len(lines[id(cell)]) for cell in part) for part in (seen, code))
    if len(seen) > CELLS:
        yield f"{len(seen)} visible code cells, more than {CELLS}"
    if shown > LINES or whole > ALL_LINES:
        yield f"{shown} visible and {whole} code lines in all, more than {LINES} and {ALL_LINES}"
    for cell in code:
        where = f"cell [{cell['execution_count']}]"
        if cell in seen and len(lines[id(cell)]) > CELL_LINES:
            yield f"{where} is longer than {CELL_LINES} lines"
        if any(len(line) > COLUMNS for line in lines[id(cell)]):
            yield f"{where} has a line of more than {COLUMNS} columns"
        nodes = list(ast.walk(parsed(cell)))
        if any(isinstance(node, ast.ClassDef) for node in nodes):
            yield f"{where} defines a class"
        functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
        if any(
            isinstance(inner, ast.FunctionDef) for one in functions for node in one.body for inner in ast.walk(node)
        ):
            yield f"{where} defines a function inside a function"
        printed = [line for output in cell["outputs"] for line in text(output.get("text", "")).splitlines()]
        if any(len(line) > PRINTED for line in printed):
            yield f"{where} prints a line of more than {PRINTED} columns"
        if any(re.search(r": (?:True|False)$", line) for line in printed):
            yield f"{where} prints a bare True or False: say it in a sentence with its number"
    words = [text(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    if cells[0]["cell_type"] != "markdown" or not words[0].startswith("# ") or "?" not in words[0]:
        yield "does not open with a title and a question"
    if cells[-1]["cell_type"] != "code" or ".verdicts(" not in text(cells[-1]["source"]):
        yield "does not close with its table of verdicts"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_chapter_is_fit_to_be_compared(path):
    assert faults(json.loads(path.read_text(encoding="utf8")), path.stem) == []


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> Path:
    """A small chapter as `memlib outputs` would commit it."""
    home = tmp_path_factory.mktemp("project")
    (home / "_toc.yml").write_text("format: jb-book\nroot: intro\n")
    bodies = (tiny.BODY, tiny.CLAIM, tiny.SLIDER, "print(weight**2)", tiny.CLOSING)
    path = tiny.write(home / "notebooks" / "07_tiny.ipynb", *bodies)
    done = tiny.python("memlib.cli", "outputs", "07", cwd=home)
    assert done.returncode == 0, done.stderr
    return path


def test_the_rules_pass_a_right_chapter(executed):
    assert faults(json.loads(executed.read_text(encoding="utf8")), "07_tiny") == []


def _source(index, change):
    """A spoiler that rewrites the source of one cell."""

    def spoil(cells):
        cells[index]["source"] = change(text(cells[index]["source"]))

    return spoil


def _strip(cells):
    for cell in cells:
        if cell["cell_type"] == "code":
            cell["outputs"] = []


def _ignore(cells):
    for cell in cells[3:6]:
        cell["metadata"]["tags"] = ["nbval-ignore-output"]


def _hide(cell):
    cell["metadata"]["tags"] = ["hide-input"]


def _printed(words):
    return {"output_type": "stream", "name": "stdout", "text": words}


def _png(width):
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, 10)
    return base64.b64encode(header + bytes(40)).decode()


def _image(png=None, **metadata):
    def spoil(cells):
        cells[5]["outputs"] = [
            {"output_type": "display_data", "data": {"image/png": png or _png(600), "text/plain": "<Figure>"}}
        ]
        cells[5]["metadata"] |= metadata

    return spoil


SPOILT = {
    "only 0 cells": _strip,
    "are ignored": _ignore,
    "1..n": lambda cells: cells[3].update(execution_count=9),
    "holds an error": lambda cells: cells[3]["outputs"].append({"output_type": "error", "ename": "E", "evalue": ""}),
    "0 cells tagged": lambda cells: cells[1]["metadata"].pop("tags"),
    "not folded": lambda cells: cells[1]["metadata"].update(tags=["parameters"]),
    "parameters, more": _source(1, lambda source: source + "".join(f"\nx{k}: int = 0  # k" for k in range(7))),
    "2 cells tagged": lambda cells: cells.insert(2, copy.deepcopy(cells[1])),
    "no annotated": _source(1, lambda source: source.replace("seed: int", "seed")),
    "has no comment": _source(1, lambda source: source.replace("# of every draw", "")),
    "lack scale": _source(1, lambda source: source.replace("'fast'", "'book'").replace('"fast"', '"book"')),
    "no chapters.begin": _source(2, lambda source: source.replace("07_tiny", "08_tiny")),
    "no claim": lambda cells: cells[4].update(outputs=[]),
    "fast scale": lambda cells: cells[4]["outputs"][0]["data"][claims.MIME].update(scale="book"),
    "state is not in the file": lambda cells: cells[5]["outputs"][0]["data"].update({VIEW: {"model_id": "abc"}}),
    "without alternative text": _image(),
    "prints no number": _image(mystnb={"image": {"alt": "a"}}),
    "nothing moves": lambda cells: cells[5].update(outputs=[]),
    "path of one machine": _source(3, lambda source: source + "\nopen('/home/me/data.txt')"),
    "from outside the book": lambda cells: cells[5]["outputs"][0]["data"].update(
        {"text/html": '<input type="range"><script async src="https://cdn.example/x.js"></script>'}
    ),
    "picture from outside": _source(0, lambda source: source + "\n![a](https://example.org/a.png)"),
    "memory address": lambda cells: cells[3]["outputs"].append(
        {"output_type": "stream", "name": "stdout", "text": "<f at 0x7f2b71e1dd40>"}
    ),
    "installs": _source(3, lambda source: source + "\n%pip install x"),
    "longer than": _source(3, lambda source: source + "\npass" * 12),
    "visible code cells": lambda cells: cells.extend(copy.deepcopy(cells[6]) for _ in range(20)),
    "code lines in all": lambda cells: [_source(2, lambda source: source + "\npass" * 260)(cells), _hide(cells[2])],
    "more than 80 columns": _source(3, lambda source: source + f"  # {'x' * 80}"),
    "more than 88 columns": lambda cells: cells[3]["outputs"].append(_printed("x" * 89)),
    "bare True": lambda cells: cells[3]["outputs"].append(_printed("it holds: True")),
    "figure of": lambda cells: _image(mystnb={"image": {"alt": "a"}}, png=_png(1200))(cells),
    "defines a class": _source(3, lambda source: source + "\nclass A: pass"),
    "inside a function": _source(3, lambda source: source + "\ndef f():\n    def g(): pass"),
    "no cell that is compared": lambda cells: [cells[4]["metadata"].update(tags=["nbval-ignore-output"]), cells.pop()],
    "title and a question": _source(0, lambda source: source.replace("?", ".")),
    "table of verdicts": lambda cells: cells.pop(),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_each_rule_catches_what_it_forbids(fault, executed):
    notebook = json.loads(executed.read_text(encoding="utf8"))
    SPOILT[fault](notebook["cells"])
    assert any(fault in found for found in faults(notebook, "07_tiny")), faults(notebook, "07_tiny")


def test_nbval_catches_a_changed_number_and_passes_the_rest(executed):
    """One run over the chapter as committed and two copies: a printed digit changed, a digit of the record changed."""
    whole = executed.read_text(encoding="utf8")
    changes = {
        "printed": ('"4.0\\n"', '"4.1\\n"'),
        "record": ('"n": 8,', '"n": 9,'),
        "picture": ("base64,", "base64,AAAA"),  # pixels are not compared
    }
    for name, (old, new) in changes.items():
        assert whole.count(old) >= 1
        (executed.parent / f"{name}.ipynb").write_text(whole.replace(old, new), encoding="utf8")
    (executed.parent / "pytest.ini").write_text("[pytest]\n")
    done = tiny.python(
        *["pytest", "--nbval", "--nbval-current-env", "-q", "-rf", "-p", "no:cacheprovider"],
        f"--nbval-sanitize-with={tiny.ROOT / 'tests' / 'nbval_sanitize.cfg'}",
        *[f"{name}.ipynb" for name in ("07_tiny", *changes)],
        cwd=executed.parent,
    )
    failed = re.findall(r"^FAILED (\w+)\.ipynb::Cell (\d+)", done.stdout, re.M)
    assert failed == [("printed", "5"), ("record", "3")], done.stdout
