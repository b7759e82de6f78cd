"""Docstrings as the API reference reads them."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "book" / "_ext"))

import docstrings  # noqa: E402


def test_what_would_be_markup_is_shown_as_it_stands():
    given = ["`sigma` times (B, *S), |eps_hat - eps|^2 of p_ and `x_`.", "", "A second paragraph."]
    assert docstrings.as_rst(given) == [
        "``sigma`` times (B, \\*S), \\|eps_hat - eps\\|^2 of p\\_ and ``x_``.",
        "",
        "A second paragraph.",
    ]


def test_an_indented_block_is_code_and_a_section_is_not():
    given = [
        "An example:",
        "",
        "    x = f(*a)",
        "",
        "    y = `x`",
        "",
        "Then *text*.",
        "",
        "Arguments:",
        "    x: (B, *S).",
    ]
    assert docstrings.as_rst(given) == [
        *["An example:", "", "::", "", "    x = f(*a)", "", "    y = `x`", "", "Then \\*text\\*.", "", "Arguments:"],
        "    x: (B, \\*S).",
    ]
