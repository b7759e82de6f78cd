"""Sliders without a kernel, live controls, and figures as bytes."""

import json
import shutil
import subprocess

import ipywidgets
import matplotlib.pyplot as plt
import pytest
from bs4 import BeautifulSoup

from memlib.chapters import interactive, plots
from memlib.errors import Refused


def drawn(value: float) -> bytes:
    figure, axes = plt.subplots(figsize=(1, 1))
    axes.plot([0, value])
    return plots.png(figure, dpi=40)


PICTURES = [drawn(value) for value in range(6)]


def parsed(page):
    return BeautifulSoup(page.html, "html.parser")


def shown(soup):
    """Indices of the visible frames."""
    return [i for i, image in enumerate(soup.find_all("img")) if "display:none" not in image["style"].replace(" ", "")]


def test_a_slider_has_a_name_a_text_and_one_visible_described_frame():
    page = interactive.frames(PICTURES[:3], [0.1, 1, "2<3"], 'noise "σ"', lambda label: f"score at {label}", start=1)
    soup = parsed(page)
    control = soup.find("input")
    assert (control["type"], control["min"], control["max"], control["value"]) == ("range", "0", "2", "1")
    assert control["aria-label"] == 'noise "σ"' and control["aria-valuetext"] == "1"
    assert json.loads(control["data-labels"]) == ["0.1", "1", "2<3"]
    assert soup.find("output").text == "1" and soup.find("label").text.startswith('noise "σ"')
    assert [image["alt"] for image in soup.find_all("img")] == ["score at 0.1", "score at 1", "score at 2<3"]
    assert shown(soup) == [1]
    assert not soup.find_all(["script", "link"]) and "http" not in page.html.replace("data:image", "")
    assert soup.find_all(id=True) == []  # the same figure may stand twice on a page
    assert page._repr_html_() == page.html
    assert repr(page) == 'slider: noise "σ" (0.1 … 2<3, 3 steps)'


def test_a_picture_is_described():
    soup = parsed(interactive.picture(PICTURES[0], "a line"))
    assert soup.find("img")["alt"] == "a line" and shown(soup) == [0]


def test_a_grid_shows_row_major_frames():
    grid = [PICTURES[:3], PICTURES[3:]]
    page = interactive.grid(grid, (["a", "b"], [1, 2, 3]), ("row", "column"), "{} {}".format, start=(1, 2))
    soup = parsed(page)
    assert shown(soup) == [5]
    assert [image["alt"] for image in soup.find_all("img")] == ["a 1", "a 2", "a 3", "b 1", "b 2", "b 3"]
    assert [control["max"] for control in soup.find_all("input")] == ["1", "2"]


def test_frames_that_do_not_fit_are_errors():
    with pytest.raises(ValueError, match="2 pictures, 3 labels"):
        interactive.frames(PICTURES[:2], [1, 2, 3], "x", str)
    with pytest.raises(ValueError, match="1 texts"):
        interactive.frames(PICTURES[:2], [1, 2], "x", ["one"])
    with pytest.raises(ValueError, match="0 pictures"):
        interactive.frames([], [], "x", str)
    with pytest.raises(ValueError, match="not PNG"):
        interactive.frames([b"GIF89a"], [1], "x", str)
    with pytest.raises(ValueError, match="no alternative text"):
        interactive.frames(PICTURES[:1], [1], "x", [" "])
    with pytest.raises(ValueError, match="start is 2"):
        interactive.frames(PICTURES[:2], [1, 2], "x", str, start=2)
    with pytest.raises(ValueError, match="not a grid of 2 rows of 3"):
        interactive.grid([PICTURES[:3], PICTURES[3:5]], (["a", "b"], [1, 2, 3]), ("x", "y"), "{} {}".format)


MOVE = """<script>
const [first, second] = document.querySelectorAll('figure');
const move = (control, to) => { control.value = to; control.dispatchEvent(new Event('input', {bubbles: true})); };
move(first.querySelector('input'), 2);
const [row, column] = second.querySelectorAll('input');
move(row, 1); move(column, 1);
const seen = f => [...f.querySelectorAll('img')].map(m => m.getClientRects().length ? 1 : 0).join('');
const said = f => [...f.querySelectorAll('input')].map(r => r.getAttribute('aria-valuetext') + '/' +
  r.parentElement.querySelector('output').value).join(' ');
document.title = [seen(first), said(first), seen(second), said(second)].join(' | ');
</script>"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser here")
def test_sliders_move_in_a_browser_and_only_their_own_figure(tmp_path):
    one = interactive.frames(PICTURES[:3], ["0.1", "1", "2<3"], 'noise "σ"', str)
    two = interactive.grid([PICTURES[:3], PICTURES[3:]], (["a", "b"], [1, 2, 3]), ("row", "column"), "{} {}".format)
    theme = "<style>figure img {display: inline}</style>"
    page = tmp_path / "page.html"
    page.write_text(f'<meta charset="utf8"><title>x</title>{theme}{one.html}{two.html}{MOVE}', encoding="utf8")
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    done = subprocess.run([*browser, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=60)
    assert BeautifulSoup(done.stdout, "html.parser").title.text == "001 | 2<3/2<3 | 000010 | b/b 2/2"


def test_live_controls_are_named_and_call_the_function():
    seen = []

    def draw(sigma, method):
        seen.append((sigma, method))
        return PICTURES[len(seen)]

    shown = interactive.live(draw, sigma=("noise level σ", (0.5, 2.5, 0.5)), method=("sampler", ["heun", "ddim"]))
    slider, choice, image = shown.box.children
    assert (slider.description, choice.description) == ("noise level σ", "sampler")
    assert image.value == PICTURES[1]
    slider.value, choice.value = 2.0, "ddim"
    assert seen[-1] == (2.0, "ddim") and image.value == PICTURES[3]
    bundle = shown._repr_mimebundle_()
    assert bundle["text/plain"] == "live controls: noise level σ, sampler"
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert isinstance(slider, ipywidgets.FloatSlider) and not slider.continuous_update
    with pytest.raises(Refused, match="control sigma"):
        interactive.live(draw, sigma=("σ", object()))


def test_a_figure_is_the_same_bytes_twice_and_closed():
    before = plt.get_fignums()
    assert drawn(3) == drawn(3) != drawn(4)
    assert b"Software" not in drawn(3) and b"matplotlib" not in drawn(3)
    assert plt.get_fignums() == before
    with pytest.raises(ValueError, match="dpi is 300"):
        plots.png(plt.figure(), dpi=300)
    plt.close("all")


def test_the_style_is_set_in_one_place():
    with plt.rc_context():
        plots.style()
        assert plt.rcParams["figure.dpi"] <= 100 and not plt.rcParams["axes.spines.right"]
        colours = plt.rcParams["axes.prop_cycle"].by_key()["color"]
        assert tuple(colours[0]) == pytest.approx(
            (1 / 255, 115 / 255, 178 / 255), abs=0.01
        )  # seaborn's colorblind blue
