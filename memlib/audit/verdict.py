"""The answer in plain words: one paragraph with the figures in it, what would change it, and what to do next.

It is shaped to the two likelihoods that a data-protection authority asks about (EDPB Opinion 28/2024): that training
images can be taken out of the model directly, and that they are obtained by queries. It claims nothing about the law.
"""

from dataclasses import dataclass

from memlib.audit.copies import FPR, SURE, Found
from memlib.audit.data import Findings
from memlib.audit.extraction import Extraction
from memlib.audit.members import LEVEL, Membership
from memlib.metrics import ratio_interval

SIGNIFICANT = 0.01  # p-value of the whole set below which the model is said to know it


@dataclass(frozen=True)
class Verdict:
    """What the report says first.

    Attributes:
        copies: whether copies were found beyond what chance explains.
        text: the paragraph.
        change: what would change it.
        next: what to do, each with the page of the book that shows how: pairs (what, page).
    """

    copies: bool
    text: str
    change: str
    next: list[tuple[str, str]]


def remembers(found: Found) -> bool:
    """Whether more samples are copies than the false-positive rate explains.

    With a control part, the ratio of the two rates must lie above 1 (95 %). Without one, the interval of the rate of
    copies must lie above the false-positive rate.
    """
    if found.control is not None:
        return found.copies.k > 0 and ratio_interval(found.copies, found.control)[0] > 1
    return found.copies.interval()[0] > found.fpr


def say(
    data: Findings, found: Found, members: Membership | None, extraction: Extraction | None, *, model: bool, n: int
) -> Verdict:
    """The verdict from the figures.

    Arguments:
        data: of the images.
        found: of the samples.
        members: of the model, or None.
        extraction: of guided samples, or None.
        model: whether a model was given.
        n: training images.
    """
    copied = remembers(found)
    parts = [_queries(found, copied), _control(found), _direct(members, extraction, model, data)]
    repeats = data.exact + data.near
    if repeats:
        parts.append(
            f"{repeats} of {n} training images repeat another one ({data.exact} exactly), and repeated images are "
            "copied first."
        )
    if data.blind is not None and data.told_apart:
        area, (low, high) = data.blind
        parts.append(
            f"Warning: training and held-out images can be told apart without the model (AUC {area:.2f}, 95 % interval "
            f"{low:.2f} to {high:.2f}), so no membership figure of this report means anything."
        )
    return Verdict(copied, " ".join(part for part in parts if part), _change(found, model), _next(copied, data))


def _queries(found: Found, copied: bool) -> str:
    low, high = found.copies.interval()
    figures = (
        f"{found.copies.k} of {found.copies.n} samples copy a training image (95 % interval {low:.1%} to {high:.1%})"
    )
    if copied:
        distinct = len(found.nearest[found.copy].unique())
        images = "image" if distinct == 1 else "images"
        return f"Training images can be obtained by queries: {figures}, {distinct} distinct {images} among them."
    if found.copies.k:
        return f"Nothing was found beyond chance: {figures}, which false positives explain."
    return f"No copy was found by queries: {figures}."


def _control(found: Found) -> str:
    told = f"The threshold lets {found.fpr:.1%} of {found.calibrated}"
    if not found.held_out:
        return f"{told} training images pass that are compared with all the others, since no held-out images set it."
    if found.control is None:
        return f"{told} held-out images pass."
    return f"{told} held-out images pass; {found.control.k} of {found.control.n} further held-out images pass it."


def _direct(members: Membership | None, extraction: Extraction | None, model: bool, data: Findings) -> str:
    told = []
    if extraction is not None:
        low, high = extraction.copies.interval()
        more, (least, most) = extraction.more
        gained = "guidance finds more" if least > 0 else "guidance finds fewer" if most < 0 else "no gain is shown"
        told.append(
            f"Direct extraction by guidance (SIDE) gave {extraction.copies.k} copies in {extraction.copies.n} samples "
            f"(95 % interval {low:.1%} to {high:.1%}) of {extraction.distinct} distinct training images, and the same "
            f"starts without guidance {extraction.unguided.k} copies of {extraction.unguided_distinct}: {gained} "
            f"(difference of distinct images {more:+d}, 95 % interval {least:+.1f} to {most:+.1f})."
        )
    if not model:
        told.append("Without the model itself nothing is said about extraction from it or about membership.")
    elif members is None:
        told.append("Membership was not judged: it needs ten distinct images on either side, training and held-out.")
    elif not data.told_apart:
        area, (low, high) = members.auc
        known = members.set_p < SIGNIFICANT
        told.append(
            f"From inside the model, members are told from others with AUC {area:.2f} (95 % interval {low:.2f} to "
            f"{high:.2f}; {members.statistic}), {int(members.found.sum())} of {len(members.found)} single images at a "
            f"false-discovery rate of {LEVEL:.0%}; as a whole the set is {'recognised' if known else 'not recognised'} "
            f"(p = {members.set_p:.2g})."
        )
    return " ".join(told)


def _change(found: Found, model: bool) -> str:
    low, high = found.copies.interval()
    told = [f"More samples: the interval of the rate of copies is {high - low:.1%} wide with {found.copies.n}."]
    if found.calibrated < SURE or not found.held_out:
        told.append(f"More held-out images, of the same source and chosen by a coin: 3,000 set a rate of {FPR:.1%}.")
    if not model:
        told.append("The model: it allows membership to be judged.")
    told.append("An attacker with a better descriptor, more queries or prompts finds more; no audit proves absence.")
    return " ".join(told)


def _next(copied: bool, data: Findings) -> list[tuple[str, str]]:
    steps = []
    if data.exact + data.near:
        steps.append(("Remove repeated training images and train again", "02_side"))
    if len(data.placeholders):
        steps.append(("Remove placeholder images", "02_side"))
    if data.blind is not None and data.told_apart:
        steps.append(("Draw the held-out images from the same source by a coin", "06_synthesis"))
    if copied:
        steps += [
            ("Stop training earlier", "07_closed_loop"),
            ("Let the model forget the images that it copies, and audit it again, membership too", "07_closed_loop"),
        ]
    return steps or [("Keep this report, and repeat the audit when the model or its data change", "02_side")]
