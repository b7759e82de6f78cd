"""The audit from end to end: planted copies are counted, a network that memorizes is found, another one is not."""

import csv
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from PIL import Image

from memlib import analytic, data, features, noise
from memlib.audit import Model, audit, book
from memlib.audit import copies as copying
from memlib.audit import data as looking
from memlib.cli import main
from memlib.errors import Refused

ROOT = Path(__file__).parents[1]
DRAWN = data.load("faces:n=360,seed=3", 16).images  # drawn by the library


def put(folder, images, name="{:03d}.png"):
    """Write images (N, C, H, W) as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        levels = ((image + 1) * 127.5).round().byte()
        array = levels[0].numpy() if len(levels) == 1 else levels.permute(1, 2, 0).numpy()
        Image.fromarray(array).save(folder / name.format(number))
    return folder


def collected(images):
    return data.collect(images, torch.zeros(len(images), dtype=torch.int64), ("",), "drawn")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMLIB_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """60 training images, 5 of them twice; 200 held-out ones of the same kind."""
    root = tmp_path_factory.mktemp("audit")
    put(root / "train", DRAWN[:60])
    put(root / "train", DRAWN[:5], "twice{:03d}.png")
    put(root / "held_out", DRAWN[60:260])
    put(root / "what", torch.cat([DRAWN[10:30], DRAWN[300:320]]))
    return root


def told(out):
    return json.loads((out / "report.json").read_text(encoding="utf8"))


@pytest.mark.parametrize("held_out", [True, False])
def test_twenty_copies_and_twenty_others_are_twenty_copies(folders, tmp_path, held_out):
    beyond = folders / "held_out" if held_out else None
    report = audit(folders / "what", folders / "train", beyond, tmp_path, descriptor="pixels")
    found = told(tmp_path)
    assert found["copies"]["k"] == 20 and found["copies"]["n"] == 40
    assert found["copies"]["low"] < 0.5 < found["copies"]["high"]
    assert found["duplicates"] == {"exact": 5, "near": 0}
    assert (found["blind"] is not None) == held_out
    assert found["verdict"] == report.verdict.text and "20 of 40 samples copy a training image" in found["verdict"]
    with (tmp_path / "images.csv").open(encoding="utf8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 65 and [row["rank"] for row in rows[:2]] == ["1", "2"]
    assert {row["image"] for row in rows[:20]} == {f"{number:03d}.png" for number in range(10, 30)}
    assert all(row["samples"] == "1" and row["similarity"].startswith("1.0") for row in rows[:20])
    assert {row["samples"] for row in rows[20:]} == {"0"}


def test_the_command_says_the_same_and_fails_above_a_rate(folders, tmp_path, capsys):
    command = ["audit", str(folders / "what"), "--train", str(folders / "train"), "--out", str(tmp_path)]
    assert main([*command, "--no-images", "--fail-above", "0.6"]) == 0
    assert main([*command, "--no-images", "--fail-above", "0.4"]) == 1
    assert "20 of 40 samples copy" in capsys.readouterr().out
    assert "data:image/png" not in (tmp_path / "index.html").read_text(encoding="utf8")
    assert main([*command, "--budget", "soon"]) == 1 and main([*command, "--fail-above", "7"]) == 1
    assert "'soon' is no time" in capsys.readouterr().err


class Remembering(torch.nn.Module):
    """The perfect memorizer as a network, whose weights are the images (N, C, H, W) that it remembers."""

    def __init__(self, points):
        super().__init__()
        self.points = torch.nn.Parameter(points.clone())

    def forward(self, x, sigma):
        away = (x[:, None] - self.points).square().flatten(2).sum(2)
        weights = (-away / (2 * torch.as_tensor(sigma).reshape(-1, 1) ** 2)).softmax(1)
        return torch.einsum("bn,nchw->bchw", weights, self.points)


def small(folder):
    return torch.nn.functional.avg_pool2d(data.load(folder).images, 2)  # 8 pixels


@pytest.fixture(scope="module")
def sets(folders):
    """60 training images, five of them eight times, and 200 held-out ones, (N, 3, 8, 8)."""
    x0 = small(folders / "train")
    return torch.cat([x0, x0[60:].repeat(6, 1, 1, 1)]), small(folders / "held_out")


def test_a_network_that_memorizes_is_found_out(sets, tmp_path):
    x0, held_out = sets
    model = Model(Remembering(x0), tuple(x0.shape[1:]), noise.karras(18, 0.01, 20))
    report = audit(model, collected(x0), collected(held_out), tmp_path, samples=200, descriptor="pixels")
    found = told(tmp_path)
    assert found["duplicates"]["exact"] == 35 and report.verdict.copies
    assert found["membership"]["low"] > 0.5 and found["membership"]["set_p"] < 0.01
    assert "as a whole the set is recognised" in found["verdict"]
    # A count by another road: nearer to a training image than half of what lies between the two nearest of these.
    apart = torch.pdist(x0.unique(dim=0).flatten(1)).min() / 2
    by_hand = float((report.copies.distance < apart).float().mean())
    assert found["copies"]["low"] <= by_hand <= found["copies"]["high"]
    assert all(row["copies_in_training"] == 8 for row in report.rows()[:40])  # all 40 copies of the five images


def test_a_folder_of_diffusers_that_was_not_trained_remembers_nothing_and_the_report_says_so(sets, tmp_path):
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    x0, held_out = sets
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = UNet2DModel(
            8, 3, 3, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1, add_attention=False,
            down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
        )  # fmt: skip
    DDPMPipeline(net, DDPMScheduler()).save_pretrained(tmp_path / "model")
    settings = {"samples": 50, "steps": 10, "descriptor": "pixels"}
    report = audit(tmp_path / "model", collected(x0), collected(held_out), tmp_path / "out", **settings)
    found = told(tmp_path / "out")
    assert found["copies"]["k"] == 0 and not report.verdict.copies
    assert "No copy was found" in found["verdict"]
    assert found["membership"]["low"] < 0.5 < found["membership"]["high"]
    assert found["membership"]["set_p"] > 0.01 and "not recognised" in found["verdict"]


def test_a_folder_of_samples_needs_no_model(folders, tmp_path):
    report = audit(folders / "what", folders / "train", folders / "held_out", None, descriptor="pixels")
    assert report.members is None and "Without the model itself nothing is said" in report.verdict.text
    assert not list(tmp_path.glob("*.html"))


def test_held_out_images_of_another_kind_are_announced(folders, tmp_path):
    other = (DRAWN[60:260] * 0.5 + 0.3).clamp(-1, 1)
    report = audit(folders / "what", folders / "train", collected(other), tmp_path, descriptor="pixels")
    assert report.data.told_apart and report.data.blind[1][0] > 0.9
    assert "can be told apart without the model" in told(tmp_path)["verdict"]
    assert 'class="warning"' in (tmp_path / "index.html").read_text(encoding="utf8")


def test_sets_of_one_source_are_seldom_told_apart():
    told_apart = 0
    for seed in range(20):
        order = torch.randperm(360, generator=torch.Generator().manual_seed(seed))
        told_apart += looking.look(DRAWN[order[:60]], DRAWN[order[60:180]], seed).told_apart
    assert told_apart <= 4  # 2.5 % each


def test_a_run_that_was_killed_goes_on_and_reports_the_same(folders, tmp_path, monkeypatch):
    points = small(folders / "train")
    sets = collected(points), collected(small(folders / "held_out")[:40])
    calls = {"left": 10**9, "made": 0}

    class Dying(Remembering):
        """Ends the run after some calls, as a kill would."""

        def forward(self, x, sigma):
            calls["made"] += 1
            if calls["made"] > calls["left"]:
                raise KeyboardInterrupt
            return super().forward(x, sigma)

    model = Model(Dying(points), tuple(points.shape[1:]), noise.karras(10, 0.01, 50))
    settings = {"samples": 100, "descriptor": "pixels"}
    audit(model, *sets, tmp_path / "whole", **settings)
    whole = calls["made"]
    monkeypatch.setenv("MEMLIB_CACHE", str(tmp_path / "other"))
    for left in (15, whole // 2):
        calls.update(left=left, made=0)
        with pytest.raises(KeyboardInterrupt):
            audit(model, *sets, tmp_path / "again", **settings)
        assert not (tmp_path / "again" / "report.json").exists()
    calls.update(left=10**9, made=0)
    audit(model, *sets, tmp_path / "again", **settings)
    assert calls["made"] < whole  # finished shards were kept
    for name in ("report.json", "images.csv", "index.html"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_budget_ends_sampling_early_and_a_second_run_goes_on(folders):
    points = small(folders / "train")
    model = Model(analytic.Empirical(points), tuple(points.shape[1:]), noise.karras(10, 0.01, 50))
    settings = {"samples": 500, "descriptor": "pixels", "out": None}
    assert audit(model, collected(points), budget=1e-6, **settings).copies.copies.n == 50
    assert audit(model, collected(points), budget=1e3, **settings).copies.copies.n == 500


def test_extraction_counts_at_the_same_threshold(folders):
    points = small(folders / "train")
    model = Model(analytic.Empirical(points), tuple(points.shape[1:]), noise.karras(8, 0.02, 50))
    report = audit(model, collected(points), samples=64, descriptor="pixels", extract=True, out=None)
    assert report.extraction.unguided.rate == 1  # a memorizer makes nothing but copies
    assert report.extraction.copies.n == 200 and "Direct extraction" in report.verdict.text


def test_without_a_true_copy_the_rate_is_that_of_the_control(monkeypatch):
    def quickly(reference):
        return learn_copies(reference, steps=3)

    learn_copies = features.learn_copies
    monkeypatch.setattr(features, "learn_copies", quickly)
    alone = audit(collected(DRAWN[260:360]), collected(DRAWN[:60]), collected(DRAWN[60:260]), None)
    assert alone.provenance["settings"]["descriptor"] == "copies"
    assert not alone.verdict.copies and alone.copies.control.n >= 50
    parts = copying.deal(200, 0, "auto")
    dealt = torch.cat([parts.reference, parts.calibration, parts.control])
    assert len(parts.reference) and dealt.sort().values.tolist() == list(range(200))


class TestBadInput:
    """One sentence each."""

    def refused(self, match, *given, **options):
        with pytest.raises(Refused, match=match) as caught:
            audit(*given, out=None, **options)
        assert "\n" not in str(caught.value)

    def test_nothing_there(self, folders, tmp_path):
        self.refused("there is nothing at", tmp_path / "no", folders / "train")
        self.refused("no folder of images", folders / "what", tmp_path / "no")

    def test_an_empty_folder_and_one_image(self, folders, tmp_path):
        (tmp_path / "empty").mkdir()
        self.refused("holds no image", tmp_path / "empty", folders / "train")
        self.refused("1 image: give 2 or more", folders / "what", put(tmp_path / "one", DRAWN[:1]))
        self.refused("copies of one image", folders / "what", collected(DRAWN[:1].repeat(4, 1, 1, 1)))

    def test_mixed_sizes_and_a_broken_file(self, folders, tmp_path):
        mixed = put(tmp_path / "mixed", DRAWN[:3])
        put(mixed, DRAWN[3:6, :, :12, :12], "small{}.png")
        self.refused("give a size", mixed, folders / "train")
        self.refused("--size", put(tmp_path / "small", DRAWN[:5, :, :12, :12]), folders / "train")
        broken = put(tmp_path / "broken", DRAWN[:3])
        (broken / "001.png").write_bytes(b"no image")
        self.refused("cannot be read", broken, folders / "train")

    def test_held_out_images_that_are_training_images(self, folders, tmp_path):
        self.refused("held-out images are the training", folders / "what", folders / "train", folders / "train")
        shutil.copytree(folders / "train", tmp_path / "part")
        (tmp_path / "part" / "000.png").unlink()
        self.refused("all 64 held-out", folders / "what", folders / "train", tmp_path / "part")

    def test_settings(self, folders):
        self.refused("no descriptor", folders / "what", folders / "train", descriptor="eyes")
        self.refused("set of images", folders / "what", folders / "train", extract=True)
        self.refused("1 sample or more", folders / "what", folders / "train", samples=0)


NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((found for name in NAMES if (found := shutil.which(name))), "")


@pytest.mark.skipif(not BROWSER, reason="no browser is installed")
def test_a_browser_shows_ten_thousand_rows_and_asks_for_nothing(tmp_path):
    generator = torch.Generator().manual_seed(0)
    many = torch.rand(10_000, 1, 8, 8, generator=generator) * 2 - 1
    audit(collected(many[:40]), collected(many), None, tmp_path, descriptor="pixels")
    page = tmp_path / "index.html"
    text = page.read_text(encoding="utf8")
    assert len(text) < 2_000_000 and "200 of 10000 rows" in text
    assert "http://" not in text and "https://" not in text and "url(" not in text
    switches = ["--headless", "--disable-gpu", "--no-sandbox", "--dump-dom", "--virtual-time-budget=2000"]
    home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    command = [BROWSER, *switches, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=home)
    assert done.returncode == 0 and "</html>" in done.stdout
    assert "Refused to" not in done.stderr and "Uncaught" not in done.stderr


def test_a_report_has_an_alternative_text_for_every_picture_and_one_heading(folders, tmp_path):
    from bs4 import BeautifulSoup

    audit(folders / "what", folders / "train", folders / "held_out", tmp_path, descriptor="pixels")
    page = BeautifulSoup((tmp_path / "index.html").read_text(encoding="utf8"), "html.parser")
    assert len(page.find_all("h1")) == 1 and page.html["lang"] == "en"
    assert all(image["alt"].strip() for image in page.find_all("img")) and len(page.find_all("img")) > 60
    assert all(image.parent.name == "button" for image in page.find_all("img"))  # reached by the keyboard, blurred
    assert not page.find_all("link", href=lambda to: not to.startswith("data:"))


@pytest.mark.parametrize("urls", [[], ["Repository, https://example.org/code"], ["Documentation, javascript:alert(1)"]])
def test_a_report_names_the_chapters_of_a_book_that_is_not_published(folders, tmp_path, monkeypatch, urls):
    monkeypatch.setattr(book.metadata, "metadata", lambda name: Urls(urls))
    audit(folders / "what", folders / "train", folders / "held_out", tmp_path, descriptor="pixels")
    text = (tmp_path / "index.html").read_text(encoding="utf8")
    assert "(chapter 2, SIDE: what an unconditional model gives away)." in text and "notebooks/" not in text
    assert "(chapter 7, The closed loop: does unlearning help?)." in text and "javascript" not in text


def test_a_report_links_to_the_chapters_of_a_published_book(folders, tmp_path, monkeypatch):
    from bs4 import BeautifulSoup

    place = "Documentation, https://example.org/book/"
    monkeypatch.setattr(book.metadata, "metadata", lambda name: Urls(["Repository, https://example.org", place]))
    audit(folders / "what", folders / "train", folders / "held_out", tmp_path, descriptor="pixels")
    page = BeautifulSoup((tmp_path / "index.html").read_text(encoding="utf8"), "html.parser")
    links = {link["href"]: link.text for link in page.find_all("a") if "://" in link["href"]}
    assert links == {
        f"https://example.org/book/notebooks/{name}.html": book.named(name) for name in ("02_side", "07_closed_loop")
    }


def test_chapters_have_the_titles_of_their_notebooks():
    for name, title in book.TITLES.items():
        notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf8"))
        assert "".join(notebook["cells"][0]["source"]).splitlines()[0] == f"# {title}"


class Urls:
    """The metadata of a package with these `Project-URL` lines."""

    def __init__(self, urls):
        self.urls = urls

    def get_all(self, name):
        return self.urls or None


def test_names_are_escaped(tmp_path):
    images = put(tmp_path / "train", DRAWN[:12], "<b>{}.png")
    audit(collected(DRAWN[:6]), images, None, tmp_path / "out")
    text = (tmp_path / "out" / "index.html").read_text(encoding="utf8")
    assert "<b>" not in text and "&lt;b&gt;" in text
