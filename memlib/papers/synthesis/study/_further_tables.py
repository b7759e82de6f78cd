"""Tables of fine-tuning and of utility: every arm beside that which it is compared with, with intervals."""

from memlib import metrics
from memlib.papers.synthesis.study.ablation import FACTORS, Ablation, effect
from memlib.papers.synthesis.study.attributes import Attribute
from memlib.papers.synthesis.study.fine_tuning import NONE, Outcome, Regime, crossed
from memlib.papers.synthesis.study.measures import accuracy_by_pair, difference
from memlib.papers.synthesis.study.usefulness import MATCHED, PLAINLY, REAL, SYNTHETIC, Utility

Rows = list[list[str]]


def tuning(regime: Regime) -> Rows:
    """Arms of one regime; a gain is against no term, its interval over networks, and for accuracy over images too."""
    rows = [["arm", "MMD²", "gain", "Fréchet distance", "gain", "accuracy", "gain"]]
    none = regime.arms[NONE]
    named = {"before tuning": regime.before, **regime.arms, "a real sample": regime.floor}
    return rows + [[name, *_against(one, none if one is not none else None)] for name, one in named.items()]


def energy(regime: Regime) -> Rows:
    """The share of the residual's energy in its mean, by noise level, before and after tuning without the term."""
    rows = [["σ, in deviations of the data", "before", "interval over networks", "after", "interval over networks"]]
    for k, level in enumerate(regime.levels):
        cells = [f"{level:g}"]
        for one in (regime.start[k], regime.end[k]):
            share = one[:, 1] / one[:, 0]
            low, high = metrics.mean_interval(share)
            cells += [f"{float(share.mean()):.4f}", f"[{low:.4f}, {high:.4f}]"]
        rows.append(cells)
    return rows


def ablation(part: Ablation) -> Rows:
    """Accuracy of every combination, and the main effect of each of the three, over networks and images."""
    rows = [["parts used", "accuracy", "interval"]]
    for arm, right in part.arms.items():
        used = [name for name, flag in zip(FACTORS, arm, strict=True) if flag == "1"]
        rows.append([" + ".join(used) or "none", f"{float(right.double().mean()):.3f}", ""])
    for scale, right in part.by_guidance.items():
        rows.append([f"all three, guidance {scale:g}", f"{float(right.double().mean()):.3f}", ""])
    rows.append(["real data", f"{float(part.real.double().mean()):.3f}", ""])
    for k, name in enumerate(FACTORS):
        cells = effect(part, k)
        low, high = crossed(cells)
        rows.append([f"effect of {name}", f"{float(cells.mean()):+.4f}", f"[{low:+.4f}, {high:+.4f}]"])
    return rows


def attributes(by_name: dict[str, Attribute]) -> Rows:
    """Accuracy of the three arms beside the commoner answer, and the share of the gap that is closed."""
    rows = [["attribute", "commoner answer", "real", "base", "ours", "ours minus base", "share of the gap closed"]]
    for name, one in by_name.items():
        real, base, ours = (x.double().mean(1) for x in (one.real, one.base, one.ours))
        gain, (low, high) = ours - base, crossed(one.ours.double() - one.base.double())
        arms = [f"{float(x.mean()):.3f}" for x in (real, base, ours)]
        share = float(gain.mean() / (real - base).mean())
        told = f"{float(gain.mean()):+.3f} [{low:+.3f}, {high:+.3f}]"
        rows.append([name, f"{one.majority:.3f}", *arms, told, f"{share:.2f}"])
    return rows


def utility(part: Utility) -> Rows:
    """Accuracy of every arm on every change of the test images, and synthetic minus real with intervals."""
    changes = list(part.right[REAL])
    rows = [["trained on", *changes]]
    for arm, by_change in part.right.items():
        rows.append([arm, *(f"{float(accuracy_by_pair(by_change[name]).mean()):.3f}" for name in changes)])
    for arm, other in ((SYNTHETIC, REAL), ("both", REAL), (SYNTHETIC, MATCHED)):
        cells = []
        for name in changes:
            a, b = part.right[arm][name], part.right[other][name]
            mean, (low, high) = difference(a, b, a | True)
            cells.append(f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]")
        rows.append([f"{arm} minus {other}", *cells])
    assert changes[0] == PLAINLY
    return rows


def _against(one: Outcome, none: Outcome | None) -> list[str]:
    values = [f"{float(one.mmd2.mean()):.5f}", f"{float(one.frechet.mean()):.3f}"]
    accuracy = f"{float(one.right.double().mean()):.3f}"
    if none is None:
        return [values[0], "", values[1], "", accuracy, ""]
    nearer, closer = none.mmd2 - one.mmd2, none.frechet - one.frechet
    better = one.right.double() - none.right.double()
    ends = [metrics.mean_interval(nearer), metrics.mean_interval(closer), crossed(better)]
    told = [
        f"{float(gain.mean()):+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
        for gain, (low, high), digits in zip((nearer, closer, better), ends, (5, 3, 3), strict=True)
    ]
    return [values[0], told[0], values[1], told[1], accuracy, told[2]]
