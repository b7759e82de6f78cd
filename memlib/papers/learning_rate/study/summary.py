"""What the chapter says at its beginning and end, from the records that are kept."""

import textwrap
from collections.abc import Mapping
from typing import Any

Kept = Mapping[str, Mapping[str, Any]]  # records by claim


def headline(kept: Kept) -> list[str]:
    """Four sentences, in lines of a page's width."""
    figures = {name: list(kept[name]["figure"].values()) for name in ("L1", "L3", "L7")}
    word = {name: claim["verdict"] for name, claim in kept.items()}
    here, after = figures["L1"][:2]
    low, high = kept["L1"]["interval"]
    text = (
        f"At the {kept['L1']['scale']} scale {here:.2f} of the samples are memorized while the learning rate is "
        f"1e-4, and {after:.2f} once it is annealed: {low:.2f} to {high:.2f} return (L1: {word['L1']}). Full-batch "
        f"descent keeps its minimum below the edge of stability and leaves it above in {figures['L3'][0]:.0%} of "
        f"{kept['L3']['n']} runs (L3: {word['L3']}). Where the network can follow it, memory does not fade with the "
        f"dimension (L4: {word['L4']}). On digits the largest rate memorizes smaller sets than the best one; at equal "
        f"training loss it copies {round(figures['L7'][-1], 2) + 0:.2f} less of the samples (L7: {word['L7']})."
    )
    return textwrap.wrap(text, 86)


def closing(kept: Kept) -> dict[str, tuple[str, str, str]]:
    """Rows (paper, here, why) of the closing table, with the figures of the kept records."""
    found = {name: claim["figure"] for name, claim in kept.items()}
    one, two, three, five = (list(found[name].values()) for name in ("L1", "L2", "L3", "L5"))
    four = [value for name, value in found["L4"].items() if name.startswith("memorized")]
    sizes = [value for name, value in found["L7"].items() if name.startswith("EMM")]
    return {
        "L1": (
            "a figure, no numbers",
            f"memorized: {one[0]:.2f} at 1e-4, {one[1]:.2f} annealed",
            "what lasts is another effect: lost units, flatter networks",
        ),
        "L2": (
            "a bound; C and σ0 not given",
            f"excess risk {two[2]:.2f} at twice the own threshold, {two[3]:.2f} far below",
            "without C its size cannot be tested",
        ),
        "L3": ("a definition", f"{three[0]:.0%} of runs leave at their edge", "mini-batches leave earlier"),
        "L3b": ("not in the slides", f"Adam settles at {found['L3b']:.2f} of 38/η", "full batch"),
        "L4": (
            "a figure, no numbers",
            f"memorized: {four[0]:.2f} in the smallest, {four[-1]:.2f} in the largest dimension",
            "with a free first layer; equal distances and n",
        ),
        "L5": (
            "a remark",
            f"per doubling of Δ: {five[0]:.2f} (spacing), {five[1]:.2f} (pairs) more of s* missing",
            "less what the smallest rate leaves out",
        ),
        "L6": (
            "two pictures",
            f"powers {found['L6']['roughness ~ eta^']:.2f} of η, "
            f"{found['L6']['roughness of s* ~ (sigma/mu)^']:.1f} of σ/μ",
            "units kept; it does not return when annealed",
        ),
        "L7": ("an open question", f"EMM {max(sizes):.1f} at the best rate, {sizes[-1]:.1f} at the largest", "digits"),
        "L7b": ("an open question", f"Frechet distance times {found['L7b']:.2f}", "against stopping early"),
    }
