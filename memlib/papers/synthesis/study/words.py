"""What was found, in sentences that hold on another processor: verdicts, words and rounded numbers."""

import textwrap
from collections.abc import Mapping
from typing import Any

from memlib import metrics
from memlib.papers.synthesis.study import fine_tuning_rules, rules, theory_words, usefulness_rules
from memlib.papers.synthesis.study.ablation import FACTORS, Ablation, effect
from memlib.papers.synthesis.study.fine_tuning import NONE, OTHER, STATED, Regime, crossed
from memlib.papers.synthesis.study.measures import accuracy_by_pair
from memlib.papers.synthesis.study.results import Blind, Membership, Prior, Results, Retrieval, Seeds, Sizes
from memlib.papers.synthesis.study.usefulness import Utility

__all__ = ["headline", "sentences"]


def sentences(results: Results) -> dict[str, list[str]]:
    """Sentences of the groups that were run, by figure of the chapter, about the first source."""
    found: dict[str, list[str]] = {
        "data": [part for line in results.description.splitlines() for part in line.split("; ")]
    }
    parts = {
        "membership": (_membership, results.membership),
        "copies": (_copies, results.copies),
        "seeds": (_seeds, results.seeds),
        "sizes": (_sizes, results.sizes),
        "prior": (_prior, results.prior),
        "blind": (_blind, results.blind),
        "fine_tuning": (_fine_tuning, results.fine_tuning),
        "ablation": (_ablation, results.ablation),
        "utility": (_utility, results.utility),
    }
    parts |= {name: (tell, getattr(results, name)) for name, tell in theory_words.SENTENCES.items()}
    if results.attributes:
        found["attributes"] = [f"R8: {usefulness_rules.r8(results.attributes).verdict}"]
    return found | {name: tell(next(iter(by.values()))) for name, (tell, by) in parts.items() if by}


def headline(kept: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Three sentences from the kept records of a run, by claim, in lines of a page's width."""
    figure = {name: claim["figure"] for name, claim in kept.items()}
    r4, r5 = of_first(figure["R4"]), of_first(figure["R5"])
    text = (
        f"At the {kept['R4']['scale']} scale a likelihood-ratio attack finds {r4['real']:.0%} of the members of a "
        f"classifier trained on real digits, and {r4['synthetic']:.1%} where the same classifier is trained on a "
        f"synthetic set, at a false-positive rate of 1 % (R4: {kept['R4']['verdict']}). Of the members with a wrong "
        f"label it still finds {r4['synthetic, mislabelled']:.0%}. Of the published images, "
        f"{r5['nearer to a member']:.0%} lie nearer to a member than to any image that the generator did not see "
        f"(R5: {kept['R5']['verdict']})."
    )
    return textwrap.wrap(text, 86)


def of_first(figure: Mapping[str, float]) -> dict[str, float]:
    """The figures of the first of several sources, without its name."""
    first, colon, _ = next(iter(figure)).partition(": ")
    start = f"{first}{colon}" if colon else ""
    return {name.removeprefix(start): value for name, value in figure.items() if name.startswith(start)}


def _yes(found: bool) -> str:
    return "yes" if found else "not shown"


def _membership(found: Membership) -> list[str]:
    claim, equal = rules.r4(found), rules.r4b(found)
    return [
        f"fewer members found with synthetic training: {_yes(claim.interval[1] < 0)}",  # type: ignore[index]
        f"fewer than with real training of equal accuracy: {_yes(equal.interval[1] < 0)}",  # type: ignore[index]
        f"R4: {claim.verdict}",
        f"R4b: {equal.verdict}",
    ]


def _copies(found: Retrieval) -> list[str]:
    claim = rules.r5(found)
    assert claim.interval is not None
    return [
        f"more published images nearer to a member than to a non-member: {_yes(claim.interval[0] > 0.5)}",
        f"planted copies found: {float(found.planted.mean()):.0%}",
        f"R5: {claim.verdict}",
    ]


def _seeds(found: Seeds) -> list[str]:
    return [f"{len(found.repeated)} seeds of one pipeline, {found.test} test images", f"R7: {rules.r7(found).verdict}"]


def _sizes(found: Sizes) -> list[str]:
    claim, sizes = rules.r10(found), sorted(found.right)
    assert claim.interval is not None
    more = found.rates[sizes[-1]]["all"].tpr > found.rates[sizes[0]]["all"].tpr
    return [
        f"accuracy gained at {sizes[-1]} images for each member: {_yes(claim.interval[0] > 0)}",
        f"more members found there than at one image for each: {'yes' if more else 'no'}",
        f"R10: {claim.verdict}",
    ]


def _prior(found: Prior) -> list[str]:
    least, most = min(found.right), max(found.right)
    gained = (accuracy_by_pair(found.right[least]) - accuracy_by_pair(found.right[most])).double()
    low, high = metrics.mean_interval(gained, bounds=(-1, 1))
    word = "gains" if low > 0 else "loses" if high < 0 else "shows no difference in"
    copied = found.published[least]["all"].low > found.published[most]["all"].high
    return [
        f"a start at strength {least:g} {word} accuracy against strength {most:g}",
        f"the published images then give away more members: {_yes(copied)}",
    ]


def _fine_tuning(found: dict[str, Regime]) -> list[str]:
    claim = fine_tuning_rules.r2(found)
    none, term = (found[OTHER].arms[name] for name in (NONE, STATED))
    low, high = metrics.mean_interval(none.mmd2 - term.mmd2)
    word = "nearer to" if low > 0 else "farther from" if high < 0 else "neither nearer to nor farther from"
    return [f"with the matching term, images are {word} real ones", f"R2: {claim.verdict}"]


def _ablation(found: Ablation) -> list[str]:
    ends = {name: crossed(effect(found, k)) for k, name in enumerate(FACTORS)}
    told = [f"{name} adds accuracy: {_yes(low > 0)}" for name, (low, _) in ends.items()]
    return [*told, f"R6: {fine_tuning_rules.r6(found).verdict}"]


def _utility(found: Utility) -> list[str]:
    more, moved = usefulness_rules.r11(found), usefulness_rules.r12(found)
    assert more.interval is not None
    return [
        f"accuracy gained by adding synthetic images: {_yes(more.interval[0] > 0)}",
        f"R11: {more.verdict}",
        f"changes of the test images on which synthetic training is better: {moved.figure['changes won']:.0f} of 5",
        f"R12: {moved.verdict}",
    ]


def _blind(found: Blind) -> list[str]:
    low, high = metrics.mean_interval(found.coin, bounds=(0, 1))
    return [
        f"without a model, members told from non-members of the same coin: {'no' if low <= 0.5 <= high else 'yes'}",
        f"told from non-members moved by a pixel: {'yes' if float(found.moved.mean()) > 0.9 else 'no'}",
    ]
