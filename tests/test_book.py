"""The book: sources that agree with one another, and the pages that are built from the committed outputs."""

import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest
import yaml
from bs4 import BeautifulSoup
from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "book"
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf8"))
PAGES = [TOC["root"], *[chapter["file"] for part in TOC["parts"] for chapter in part["chapters"]]]
GROUPS = yaml.safe_load((BOOK / "claims.yaml").read_text(encoding="utf8"))["chapters"]
IDS = [claim["id"] for group in GROUPS for claim in group["claims"]]
VENDORED = (BOOK / "_static" / "vendor" / "versions.json").exists()

sys.path.append(str(BOOK / "_ext"))

import ledger  # noqa: E402
import rules  # noqa: E402

RULES = '''
"""How the study of a paper decides."""
import torch

ROUNDING = 1e-9

def s1(above, below):
    """*Reproduced* where $a > b$.

    Else **not**: see `above`.
    """
    def s8():
        """Not a rule: it is inside of one."""

def _s2():
    """Private."""

def interval(values):
    """Not named by a claim."""

class s9:
    """No function."""

def i9a(bound):
    "Arithmetic."
'''


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """The book as `jupyter-book build .` makes it after a clone, warnings being errors; built once, from nothing."""
    out = tmp_path_factory.mktemp("book")
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", ".", "-n", "-W", "--keep-going"]
    done = subprocess.run([*command, "--path-output", str(out)], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return out / "_build" / "html"


def soup(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf8"), "html.parser")


# Sources.


@pytest.mark.parametrize("page", PAGES)
def test_every_toc_entry_exists(page):
    """A missing one would drop every chapter from the book, with exit code 0."""
    assert any((ROOT / page).with_suffix(suffix).exists() for suffix in (".md", ".ipynb"))


def test_claims_are_well_formed():
    assert len(IDS) == len(set(IDS))
    for group in GROUPS:
        assert group.get("page", PAGES[0]) in PAGES
        for claim in group["claims"]:
            assert claim["source"] and claim["claim"]
            for row in claim.get("table", {"rows": {}})["rows"].values():
                assert len(row) == len(claim["table"]["columns"])


def test_every_chapter_is_the_page_of_a_group():
    """The ledger calls a group without a page planned, and the table of costs leaves it out."""
    pages = [group["page"] for group in GROUPS if "page" in group]
    assert sorted(pages) == sorted(page for page in PAGES if page.startswith("notebooks/"))


def test_every_recorded_claim_is_listed():
    found = ledger.records(ROOT)
    assert ledger.problems([claim for group in GROUPS for claim in group["claims"]], found) == []


def test_the_ledger_page_shows_every_group():
    shown = re.findall(r"```\{ledger\} (\w+)", (BOOK / "ledger.md").read_text(encoding="utf8"))
    assert shown == [group["id"] for group in GROUPS]


def test_the_ledger_joins_scales(tmp_path):
    """Notebook outputs and kept runs, the larger scale deciding; an unlisted claim is a problem."""

    def record(name, scale, verdict):
        return {"id": name, "scale": scale, "figure": 0.5, "interval": [0.4, 0.6], "n": 10, "verdict": verdict}

    data = {"application/vnd.memlib.claim+json": record("S2", "fast", "trend only")}
    (tmp_path / "notebooks").mkdir()
    spoke = {"cell_type": "code", "outputs": [{"output_type": "display_data", "data": data}]}
    notebook = {"cells": [{"cell_type": "markdown"}, spoke]}
    (tmp_path / "notebooks" / "02_side.ipynb").write_text(json.dumps(notebook), encoding="utf8")
    (tmp_path / "results" / "gpu").mkdir(parents=True)
    kept = {"provenance": {}, "claims": [record("S2", "gpu", "reproduced"), record("S9", "gpu", "reproduced")]}
    (tmp_path / "results" / "gpu" / "02_side.json").write_text(json.dumps(kept), encoding="utf8")

    found = ledger.records(tmp_path)
    assert set(found["S2"]) == {"fast", "gpu"}
    assert ledger.verdict(found["S2"]) == "reproduced"
    assert ledger.verdict({}) == "not yet"
    assert ledger.problems([{"id": "S2"}], found) == ["claim S9 is recorded but not listed in book/claims.yaml"]


def test_durations_read_well():
    assert [ledger.duration(s) for s in (3.4, 119, 120, 7199, 7200)] == ["3 s", "119 s", "2 min", "120 min", "2.0 h"]


def test_rules_are_read_from_their_source():
    """In the order of the file, by the name of the claim, without running a line of it."""
    stated = [("S1", "*Reproduced* where $a > b$.\n\nElse **not**: see `above`."), ("I9a", "Arithmetic.")]
    assert rules.rules(RULES) == stated


@pytest.mark.parametrize(
    "source, complaint",
    [
        ("import torch", "no function has the name of a claim"),
        ("def s1(): pass\ndef s2(): 'A rule.'", "the rule of s1"),
    ],
)
def test_a_study_that_states_no_rule_is_refused(source, complaint):
    with pytest.raises(ValueError, match=complaint):
        rules.rules(source)


def built(folder: Path, page: str) -> subprocess.CompletedProcess:
    """A book of one page, with the directives of this one, built in `folder`; warnings are errors."""
    extensions = f"import sys; sys.path.append({str(BOOK / '_ext')!r}); extensions = ['myst_parser', 'rules']"
    (folder / "conf.py").write_text(extensions + "; myst_enable_extensions = ['dollarmath']", encoding="utf8")
    (folder / "index.md").write_text(page, encoding="utf8")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(folder), str(folder / "html")]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_page_shows_the_rules_of_a_paper(tmp_path):
    study = tmp_path / "memlib" / "papers" / "side" / "study"
    study.mkdir(parents=True)
    (study / "rules.py").write_text(RULES, encoding="utf8")
    (study / "training_rules.py").write_text("def s8(): 'Another file of rules.'", encoding="utf8")
    done = built(tmp_path, "# Rules\n\n```{rules} side\n```\n")
    assert done.returncode == 0, done.stderr
    shown = soup(tmp_path / "html" / "index.html").select_one("dl.rules")
    assert [term.select_one("strong").get_text() for term in shown.select("dt")] == ["S1", "S8", "I9a"]
    first = shown.select_one("dd")
    assert first.select_one("em").get_text() == "Reproduced" and "a > b" in first.select_one(".math").get_text()
    assert len(first.select("p")) == 2 and first.select_one("code").get_text() == "above"


def test_rules_of_several_files_stand_in_the_order_of_their_claims(tmp_path):
    study = tmp_path / "memlib" / "papers" / "side" / "study"
    study.mkdir(parents=True)
    for name, ids in {"rules": ("s10", "s2a"), "late_rules": ("s2",)}.items():
        text = "".join(f'def {one}(found):\n    """{one.upper()} is decided."""\n\n\n' for one in ids)
        (study / f"{name}.py").write_text(text, encoding="utf8")
    done = built(tmp_path, "# Rules\n\n```{rules} side\n```\n")
    assert done.returncode == 0, done.stderr
    shown = soup(tmp_path / "html" / "index.html").select_one("dl.rules")
    assert [term.get_text(strip=True) for term in shown.select("dt")] == ["S2", "S2a", "S10"]


def test_a_page_names_the_rules_that_are_missing(tmp_path):
    """A paper without a study, and a name that leads out of the folder of papers."""
    done = built(tmp_path, "# Rules\n\n```{rules} nowhere\n```\n\n```{rules} ../side\n```\n")
    assert done.returncode != 0
    assert "memlib/papers/nowhere/study/rules.py does not exist" in done.stderr
    assert "'../side' does not name a paper" in done.stderr


def test_building_the_book_does_not_import_torch():
    """The ledger reads records; nobody should wait for torch, or need it, to render pages."""
    check = "import sys, ledger, offline, rules; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=BOOK / "_ext")


@pytest.mark.parametrize(
    "page",
    [
        *(f"book/howto-{name}.md" for name in ("library", "models", "scale", "unlearn-inpainter", "audit")),
        "book/conformance.md",
        "README.md",
    ],
)
def test_the_code_on_the_page_runs(page, tmp_path):
    """The Python blocks of a page, in order, in one namespace. PATH has 400 digits, and training is short."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf8"), re.S | re.M)
    assert blocks
    if any("folder:PATH" in block for block in blocks):
        for i, digit in enumerate(load_digits().images[:400]):
            Image.fromarray((digit * 15.9).astype(np.uint8)).resize((16, 16)).save(tmp_path / f"{i:03d}.png")
    namespace = {}
    for block in blocks:
        block = block.replace("folder:PATH", f"folder:{tmp_path}").replace("steps=2000", "steps=100")
        exec(compile(block, page, "exec"), namespace)
    if page == "README.md":
        assert len(blocks) == 2 and namespace["made"].shape[0::2] == (100, 8) and namespace["made"].isfinite().all()
    if "unlearned" in namespace:  # forget completions become worse, and only these
        worse = {
            name: namespace["error"](namespace["unlearned"], classes) / namespace["error"](namespace["model"], classes)
            for name, classes in (("retain", namespace["retain"]), ("forget", namespace["forget"]))
        }
        assert worse["retain"] < 1.15 and worse["forget"] > 1.3 and namespace["moved"] == {"encoder"}
        back = namespace["checkpoints"].load("mae", Path(namespace["shelf"].name) / "unlearned").state_dict()
        assert all(value.equal(back[name]) for name, value in namespace["unlearned"].state_dict().items())
    if "audit" in namespace:  # the perfect memorizer, as the page says
        report = namespace["report"]
        assert report.copies.copies.k == 100 and report.data.exact == 5 and report.members.auc[0] > 0.9
    if "copies" in namespace:  # the perfect memorizer, as the page says
        assert namespace["copies"].k == namespace["copies"].n == 100


def test_the_lock_file_names_no_registry():
    """Downloads come from whatever registry the reader's npm is set to."""
    lock = json.loads((BOOK / "package-lock.json").read_text(encoding="utf8"))
    wanted = json.loads((BOOK / "package.json").read_text(encoding="utf8"))["dependencies"]
    assert not [name for name, package in lock["packages"].items() if "resolved" in package]
    assert {name: lock["packages"][f"node_modules/{name}"]["version"] for name in wanted} == wanted


# The built pages.


def test_every_page_is_built(html):
    assert [page for page in PAGES if not (html / f"{page}.html").exists()] == []
    assert (html / "index.html").exists()


def test_the_ledger_has_a_row_for_every_claim(html):
    page = soup(html / "book" / "ledger.html")
    assert [tag.get_text() for tag in page.select("table.ledger-claims tbody tr td:first-child strong")] == IDS
    shown = {row.select_one("strong").get_text(): row for row in page.select("table.ledger-claims tbody tr")}
    for name, scales in ledger.records(ROOT).items():
        *_, judged, here = shown[name].find_all("td", recursive=False)
        others = {fold.select_one("summary").get_text() for fold in here.select("td > details.ledger-folded")}
        for scale, record in scales.items():
            folded = f"scale {scale}: {ledger.SYMBOLS[record['verdict']]} {record['verdict']}"
            largest = scale == max(scales, key=ledger.SCALES.index)
            assert (folded in others) != largest
            assert any(line.get_text().endswith(f"scale {scale}") for line in here.select(".ledger-small"))
            if largest:
                assert judged.select_one(".ledger-word").get_text() == record["verdict"] == ledger.verdict(scales)
                assert here.select_one("td > .ledger-small").get_text() == ledger.small(record)
    unspoken = [name for name in IDS if name not in ledger.records(ROOT)]
    assert all("not yet" in shown[name].get_text() for name in unspoken)
    assert page.select("table.ledger-summary tbody tr")[-1].select("td")[1].get_text().strip() == str(len(IDS))


def test_the_ledger_shows_what_was_measured(html):
    """Every figure, interval and n of every record, whole; names and values of a pair in one piece."""
    page = soup(html / "book" / "ledger.html")
    rows = {row.select_one("strong").get_text(): row for row in page.select("table.ledger-claims tbody tr")}
    for name, scales in ledger.records(ROOT).items():
        here = rows[name].find_all("td", recursive=False)[-1]
        pieces = [piece.get_text().rstrip(",") for piece in here.select(".ledger-whole")]
        for record in scales.values():
            if isinstance(record["figure"], dict):
                assert {f"{key}: {ledger.shown(value)}" for key, value in record["figure"].items()} <= set(pieces)
            else:
                assert ledger.shown(record["figure"]).replace(" / ", ", ") in [
                    s.get_text() for s in here.select("strong")
                ]
            if record["interval"]:
                low, high = record["interval"]
                assert any(piece.endswith(f"[{ledger.shown(low)}, {ledger.shown(high)}]") for piece in pieces)
            assert ledger.small(record) in [line.get_text() for line in here.select(".ledger-small")]


def test_a_verdict_has_a_symbol_that_is_explained(html):
    """A symbol beside every word, hidden from a screen reader; each stands in the page's legend."""
    page = soup(html / "book" / "ledger.html")
    assert set(ledger.SYMBOLS) == {*ledger.VERDICTS, ledger.NOT_YET}
    assert len(set(ledger.SYMBOLS.values())) == len(ledger.SYMBOLS)
    legend = [item.get_text() for item in page.select("article li")]
    for word, symbol in ledger.SYMBOLS.items():
        assert any(item.startswith(f"{symbol} {word}:") for item in legend)
    for cell in page.select(".ledger-word"):
        symbol = cell.find_previous_sibling(class_="ledger-symbol")
        assert symbol.get_text() == ledger.SYMBOLS[cell.get_text()] and symbol["aria-hidden"] == "true"


def test_the_costs_list_every_chapter(html):
    rows = soup(html / f"{TOC['root']}.html").select("table.ledger-costs tbody tr")
    linked = [row.select_one("a")["href"] for row in rows]
    chapters = [page for page in PAGES if page.startswith("notebooks/")]
    assert linked == [f"../{page}.html" for page in chapters]


def test_formulas_are_typeset_and_numbered(html):
    page = soup(html / "book" / "notation.html")
    assert len(page.select("div.math .eqno")) >= 10
    assert "\\nabla" in page.select_one("#equation-tweedie").get_text()
    assert "[?]" not in page.get_text() and "??" not in page.select_one("article").get_text()


@pytest.mark.skipif(not VENDORED, reason="built without npm: MathJax comes from a CDN, as the build said")
def test_no_request_leaves_the_book(html):
    """Scripts, styles, pictures and fonts of every page come from the book; links that a reader clicks may leave."""
    sources = ("script", "img", "iframe", "source", "video", "audio", "embed")
    loaded = {"stylesheet", "preload", "icon"}
    faults = []
    for path in (path for path in sorted(html.rglob("*.html")) if "_static" not in path.parts):
        page = soup(path)
        addresses = [tag["src"] for tag in page.find_all(sources) if tag.get("src")]
        addresses += [tag["href"] for tag in page.find_all("link") if loaded & set(tag["rel"])]
        addresses += re.findall(r"url\(['\"]?([^'\")]+)", " ".join(tag.get_text() for tag in page.find_all("style")))
        for address in map(urlparse, addresses):
            if address.netloc:
                faults.append(f"{path.name} loads {address.geturl()}")
            elif not address.scheme and not (path.parent / address.path).exists():
                faults.append(f"{path.name} misses {address.path}")
    assert faults == []


def test_pictures_have_alternative_texts(html):
    for page in PAGES:
        article = soup(html / f"{page}.html").select_one("article")
        assert [str(image)[:80] for image in article.find_all("img") if not image.get("alt", "").strip()] == [], page


def test_chapters_can_be_downloaded(html):
    chapters = [page for page in PAGES if page.startswith("notebooks/")]
    for page in chapters:
        assert (html / "_sources" / f"{page}.ipynb").exists()
        assert soup(html / f"{page}.html").select_one(".btn-download-source-button")
