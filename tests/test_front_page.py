"""Numbers of kept runs in running text, and the repository's address as one setting."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "book" / "_ext"))

import kept  # noqa: E402
import playground  # noqa: E402
import repository  # noqa: E402


@pytest.fixture
def home(tmp_path):
    """A project with one kept run."""
    record = {
        "id": "A1",
        "scale": "book",
        "figure": {"with a": 0.0218, "b": -3},
        "interval": [-0.0291, 0.117],
        "n": 10000,
    }
    other = {"id": "A2", "scale": "book", "figure": 1.0, "interval": None, "n": 5, "verdict": "trend only"}
    (tmp_path / "results" / "book").mkdir(parents=True)
    (tmp_path / "results" / "book" / "01.json").write_text(json.dumps({"claims": [record, other]}))
    return tmp_path


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ("A1 figure with a %", "2.18 %"),
        ("A1 figure b", "−3"),
        ("A1 interval %", "−2.91 to 11.7 %"),
        ("A1 interval", "−0.0291 to 0.117"),
        ("A1 n", "10,000"),
        ("A2 figure %", "100 %"),
        ("A2 verdict", "trend only"),
    ],
)
def test_a_number_is_read_from_its_record(home, request_, text):
    assert kept.told(home, request_) == text


@pytest.mark.parametrize("request_", ["A3 n", "A1 figure", "A1 figure c", "A2 interval", "A2 figure c", "A1 verdict"])
def test_a_record_without_the_number_is_refused(home, request_):
    with pytest.raises(KeyError):
        kept.told(home, request_)


def test_the_learning_rate_powers_are_those_of_the_record():
    rate, level = playground.powers(ROOT)
    assert rate < 0 and level < 0


def test_without_an_address_there_are_no_buttons():
    assert repository.options("") == {}


def test_an_address_brings_its_buttons():
    found = repository.options("https://github.com/owner/name")
    assert found["repository_url"] == "https://github.com/owner/name"
    assert set(found["launch_buttons"]) == {"binderhub_url", "notebook_interface", "colab_url"}
    assert "colab_url" not in repository.options("https://gitlab.com/owner/name")["launch_buttons"]
