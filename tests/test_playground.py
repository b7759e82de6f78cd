"""The playground computes what the library computes: in node, and in the page itself where a browser is found."""

import html
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from playground_points import FILE, script

from memlib import analytic, denoiser, metrics, noise, sample
from memlib.papers import sgu

ROOT = Path(__file__).parents[1]
HOME = ROOT / "book" / "_static" / "playground"
sys.path.append(str(ROOT / "book" / "_ext"))

import playground  # noqa: E402

NODE = shutil.which("node")
BROWSER = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome", "chrome"])), None
)
IN_CI = bool(os.environ.get("CI"))  # the job that has node must not pass by skipping
SCRIPTS = [HOME / f"{name}.js" for name in playground.SCRIPTS]
PURE = [path for path in SCRIPTS if path.stem in playground.FORMULAS]  # they need no page
SCENES = [
    ("memory", "ratio", {}),
    ("extract", "distance", {}),
    ("obtuse", "ratio", {}),
    ("obtuse", "ratio", {"arm": "bounded"}),
    ("obtuse", "ratio", {"arm": "orthogonal"}),
    ("again", "ratio", {}),
    ("labels", "ratio", {}),
    ("duplicate", "distance", {}),
    ("memory", "ratio", {"set": "digits", "h": 0.2}),
]
N = 50
needs_node = pytest.mark.skipif(NODE is None and not IN_CI, reason="node is not installed (it comes with npm)")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium: install one, or name it in CHROMIUM")


def inputs(scene, judged, steps):
    """50 random places, noises and labels for one scene."""
    draw = torch.Generator().manual_seed(sum(map(ord, scene + str(steps))))
    places = 12 * torch.rand(N, 2, generator=draw, dtype=torch.float64) - 6
    sigma = torch.exp(math.log(0.2) + math.log(10 / 0.2) * torch.rand(N, 1, generator=draw, dtype=torch.float64))
    return {
        "scene": scene,
        "judged": judged,
        "steps": steps,
        "places": torch.cat([places, sigma], 1).tolist(),
        "noise": torch.randn(2 * N, generator=draw, dtype=torch.float64).tolist(),
        "labels": torch.randint(40, (N,), generator=draw).tolist(),
    }


def in_node(asked):
    command = [NODE, ROOT / "tests" / "playground_answers.js", *PURE]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def in_page(body, folder, width=1000, fragment=""):
    """What `body`, an expression in the page or a promise of one, is in headless Chromium; opened from a folder."""
    markup = (
        (HOME / "playground.html")
        .read_text(encoding="utf8")
        .replace('class="pg"', 'class="pg" data-powers="-1.66 -3.94"')
    )
    tests = [ROOT / "tests" / name for name in ("playground_answers.js", "playground_events.js")]
    scripts = "".join(f'<script src="{path.as_uri()}"></script>' for path in (*SCRIPTS, *tests))
    page = folder / "page.html"
    style = f'<link rel="stylesheet" href="{(HOME / "playground.css").as_uri()}">'
    page.write_text(
        f'<!doctype html><html data-theme="light"><meta charset="utf-8">{style}<body style="margin:8px">{markup}'
        f'{scripts}<pre id="out"></pre><script>const faults = []; onerror = (message) => faults.push(message);'
        f"addEventListener('load', async () => {{ const value = await {body};"
        "document.getElementById('out').textContent = JSON.stringify({ value, faults }); });</script>",
        encoding="utf8",
    )
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
    options += ["--force-prefers-reduced-motion", "--virtual-time-budget=20000"]
    options += [f"--window-size={width},900", f"--user-data-dir={folder / 'profile'}"]
    command = [BROWSER, *options, page.as_uri() + fragment]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    told = json.loads(html.unescape(re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.S).group(1)))
    assert told["faults"] == []
    return told["value"]


def expected(asked, points, settings):
    """The same by the library: D and the predicted noise at the places, the ends of the samples, and their counts."""
    xy = torch.tensor([[p["x"], p["y"]] for p in points], dtype=torch.float64)
    lost = torch.tensor([p["forgotten"] for p in points])
    colours = torch.tensor([p["colour"] for p in points])
    h, arm, alpha = settings["h"], settings["arm"], settings["alpha"]
    mixture = lambda rows: analytic.GaussianMixture(rows, std=h)  # noqa: E731
    weight = (lambda s: 1 / (0.1 + s**2)) if settings["tilted"] else sgu.optima.ones
    model = mixture(xy)
    if arm != "all":
        kept, gone = mixture(xy[~lost]), mixture(xy[lost])
        model = {
            "without": lambda: kept,
            "obtuse": lambda: sgu.obtuse_optimum(kept, gone, alpha, weight),
            "bounded": lambda: sgu.bounded_optimum(kept, gone, alpha, 4.0, weight),
            "orthogonal": lambda: sgu.orthogonal_optimum(kept, gone, alpha, weight),
        }[arm]()
    labels = torch.tensor(asked["labels"])

    def log_p(x, sigma):
        """log p(label | x) of the exact classifier, from densities, which are finite far from the label too."""
        everything = mixture(xy).log_prob(x, sigma)
        if settings["label"] == "point":
            variance = sigma.square().reshape(-1) + h**2
            return -(x - xy[labels]).square().sum(1) / (2 * variance) - everything
        wanted = colours[labels] if settings["label"] == "each" else torch.full((len(x),), int(settings["label"]))
        each = torch.stack([mixture(xy[colours == c]).log_prob(x, sigma) for c in range(3)], 1)
        return each.gather(1, wanted[:, None])[:, 0] - everything

    steered = model
    if settings["label"] != "none":
        steered = denoiser.guided(model, log_p, torch.full((N,), float(settings["lambda"]), dtype=torch.float64))
    places = torch.tensor(asked["places"], dtype=torch.float64)
    x, sigma = places[:, :2], places[:, 2]
    grid = noise.karras(56, 0.005, 10)
    ends = sample.ancestral(steered, 10 * torch.tensor(asked["noise"], dtype=torch.float64).reshape(N, 2), grid)
    ends = ends.nan_to_num(1e9, 1e9, -1e9).clamp(-1e9, 1e9)  # thrown out of the plane, beyond every number
    inside = ends.abs().amax(1) <= 6
    nearest = torch.cdist(ends, xy).argmin(1)
    gaps = torch.cdist(xy, xy)
    same = gaps <= 1e-6
    apart = gaps.masked_fill(same, math.inf).amin(1)
    tau = torch.quantile(apart, 0.05)
    if asked["judged"] == "ratio":
        copy = metrics.l2_ratio(ends, xy, 1e-6) < 1 / 3
    else:
        copy = torch.cdist(ends, xy).amin(1) < tau
    copy &= inside
    first = same.double().argmax(1)  # of equal points the first
    return {
        "D": steered(x, sigma),
        "field": denoiser.eps(model, x, sigma),
        "score": denoiser.score(mixture(xy), x, sigma),
        "effective": 1 / mixture(xy).posterior(x, sigma).square().sum(1),
        "density": mixture(xy).log_prob(x, 0.1),
        "ends": ends,
        "calibrated": float(tau),
        "counts": {
            "copies": int(copy.sum()),
            "distinct": len(first[nearest[copy]].unique()),
            "different": len(first.unique()),
            "forgotten": int((lost[nearest] & inside).sum()),
            "astray": int((~inside).sum()),
        },
        "grid": grid,
    }


def compare(found, asked):
    wanted = expected(asked, found["points"], found["settings"])
    for name in ("D", "field", "score", "effective"):
        measured = torch.tensor(found[name], dtype=torch.float64)
        gap = (measured - wanted[name]).abs() / (1 + wanted[name].abs())
        assert wanted[name].isfinite().all() and gap.max() < 1e-6, f"{name}: {gap.max():.1e}"
    torch.testing.assert_close(torch.tensor(found["grid"], dtype=torch.float64), wanted["grid"])
    here = wanted["ends"].abs().amax(1) <= 6  # the page stops what has left the plane
    ends = torch.tensor(found["ends"], dtype=torch.float64).reshape(N, 2)
    assert here.sum() > 0.8 * N
    assert (ends - wanted["ends"])[here].abs().max() < 1e-6
    assert found["counts"] == wanted["counts"]
    assert found["calibrated"] == pytest.approx(wanted["calibrated"], abs=1e-9)
    assert found["interval"] == pytest.approx(metrics.Count(found["counts"]["copies"], N).interval(), abs=1e-9)
    return wanted


@needs_node
@pytest.mark.parametrize(("scene", "judged", "steps"), SCENES)
def test_the_scripts_agree_with_the_library(scene, judged, steps):
    asked = inputs(scene, judged, steps)
    found = in_node(asked)
    wanted = compare(found, asked)
    if found["settings"]["arm"] == "all":  # the flow's likelihood has a closed form
        gap = torch.tensor(found["logLikelihood"], dtype=torch.float64) - wanted["density"]
        near = wanted["density"] > -9
        assert near.sum() >= 5 and gap[near].abs().median() < 0.03
    assert found["width"] == pytest.approx(0.05 * 100**0.5)


@needs_node
def test_a_weight_of_one_is_the_model_of_the_label():
    """D + sigma^2 grad log p(y | x) is the denoiser of the points of y alone."""
    asked = inputs("again", "ratio", {"arm": "all", "lambda": 1})
    found = in_node(asked)
    alone = torch.tensor([[p["x"], p["y"]] for p in found["points"] if p["colour"] == 1], dtype=torch.float64)
    places = torch.tensor(asked["places"], dtype=torch.float64)
    wanted = analytic.GaussianMixture(alone, std=found["settings"]["h"])(places[:, :2], places[:, 2])
    assert (torch.tensor(found["D"], dtype=torch.float64) - wanted).abs().max() < 1e-9


@needs_browser
@pytest.mark.parametrize(("scene", "judged", "steps"), SCENES[:3])
def test_the_page_agrees_with_the_library(scene, judged, steps, tmp_path):
    asked = inputs(scene, judged, steps)
    compare(in_page(f"answers({json.dumps(asked)})", tmp_path), asked)


@needs_browser
@pytest.mark.parametrize("width", [390, 1000])
def test_keys_and_pointer_work(width, tmp_path):
    found = in_page("events()", tmp_path, width)
    assert found["added"] == found["before"] + 1
    assert found["dragged"] == pytest.approx([3, -3], abs=0.05)
    assert found["forgotten"] and found["arm"] == "without"
    assert found["moved"] == pytest.approx(0.2)
    assert found["colour"] == 2
    assert found["doubled"] == found["added"] + 1
    assert found["removed"] == found["undone"] - 1 == found["added"]
    assert "samples copy a training point" in found["said"] and "samples copy" in found["label"]
    assert found["h"] == 0.8
    assert found["u"] == 1 and found["painted"], "with reduced motion the page shows the end at once"
    assert found["outside"] == [] and found["wide"] <= 0


@needs_browser
def test_an_address_sets_the_scene(tmp_path):
    named = in_page("document.querySelector('.pg').playground.name", tmp_path, fragment="#show-too-much")
    assert named == "too-much"
    found = in_page(
        "document.querySelector('.pg').playground.settings", tmp_path, fragment="#show=obtuse&h=0.3&arm=nonsense&seed=8"
    )
    assert (found["arm"], found["h"], found["seed"], found["cross"]) == ("obtuse", 0.3, 8, "1")


def test_the_digits_are_those_of_scikit_learn():
    assert FILE.read_text(encoding="utf8") == script()


def test_the_scripts_stand_alone_and_are_small():
    sources = [*SCRIPTS, HOME / "playground.css", HOME / "playground.html"]
    assert {path.stem for path in HOME.glob("*.js")} == set(playground.SCRIPTS)
    for path in sources:
        text = path.read_text(encoding="utf8")
        assert not re.search(r"https?://|^import |import\(|fetch\(|XMLHttpRequest", text, re.M), path.name
    assert sum(path.stat().st_size for path in sources) < 72_000


def test_every_scene_has_a_label_and_every_link_a_scene():
    scenes = re.findall(r'^    \["([\w-]+)", "', (HOME / "scenes.js").read_text(encoding="utf8"), re.M)
    page = (ROOT / "book" / "playground.md").read_text(encoding="utf8")
    assert re.findall(r"^\(show-([\w-]+)\)=$", page, re.M) == scenes and len(scenes) == 10
    sources = [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("book/*.md")]
    linked = [name for path in sources for name in re.findall(r"\]\(show-([\w-]+)\)", path.read_text(encoding="utf8"))]
    assert len(linked) >= 3 and set(linked) <= set(scenes)
