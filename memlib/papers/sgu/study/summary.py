"""The tables behind the claims, as rows of text, and what a kept record says in three sentences."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from memlib import metrics
from memlib.papers.sgu.study import comparing
from memlib.papers.sgu.study.arms import PRINTED
from memlib.papers.sgu.study.results import (
    SIDES,
    Inpainting,
    Judge,
    Judged,
    Likelihoods,
    Reconstruction,
    Results,
    Samples,
    Toy,
    Tuning,
)

Rows = list[list[str]]

SAMPLES = "Samples"


def tables(results: Results) -> dict[str, Rows]:
    """Title -> rows, for the groups that were run; the first row names the columns."""
    made: dict[str, Rows] = {}
    if results.toy:
        made |= {"The toy in closed form": _exact(results.toy), "The toy, trained": _trained(results.toy)}
        made["Distance to the closed forms"] = _distances(results.toy)
        made["Cosine with the score of the forgotten mode"] = _cosines(results.toy)
    if results.samples:
        assert results.sigma_star is not None  # found with the tasks, before any group is run
        made |= {"The judges": _judges(results.samples, results.sigma_star), SAMPLES: _samples(results.samples)}
        made["What the samples show, %"] = _contents(results.samples)
        if results.samples.frontier:
            made["The frontier of alpha"] = _frontier(results.samples)
    if results.likelihoods:
        made["Likelihoods"] = _likelihoods(results.likelihoods)
        made["What an auditor can tell"] = _auditor(results.likelihoods)
    if results.inpainting:
        made["Inpainting"] = _inpainting(results.inpainting)
    if results.reconstruction:
        made["Reconstruction"] = _reconstruction(results.reconstruction)
    if results.tuning:
        made["Fine-tuning"] = _tuning(results.tuning)
        if results.tuning.bits:
            made["Likelihoods after fine-tuning"] = _tuned_bits(results.tuning)
    return made


def headline(kept: Mapping[str, Any]) -> tuple[list[str], dict[str, tuple[float, tuple[float, float]]]]:
    """A kept run in three sentences, and its unlearning ratios in percent with their intervals, by arm.

    `kept` is what `chapters.kept` returns.
    """
    claims = kept["claims"]
    u1, u8, u7 = (claims[name] for name in ("U1", "U8", "U7"))
    ratio, turn, shown = u1["figure"], u7["figure"], u8["figure"]
    orthogonal, obtuse = PRINTED
    sentences = [
        f"The retrained model makes the forgotten combination in {ratio['unseen']:g} % of its samples (surely in "
        f"{ratio['unseen, sure']:g} %), the orthogonal loss in {ratio[orthogonal]:g} %, the obtuse loss in "
        f"{ratio[obtuse]:g} % and a model that saw everything in {ratio['standard']:g} % (U1: {u1['verdict']}).",
        f"Noise-like are {shown[f'noise, {orthogonal}']:g} % of the samples of the orthogonal loss, "
        f"{shown[f'noise, {obtuse}']:g} % of those of the obtuse loss and {shown['noise, unseen']:g} % after "
        f"retraining; a hat have {shown[f'hat, {orthogonal}']:g}, {shown[f'hat, {obtuse}']:g} and "
        f"{shown['hat, unseen']:g} % (U8: {u8['verdict']}).",
        f"In the toy the obtuse loss turns the score to a cosine of {turn['obtuse']:g} with the forgotten mode's, "
        f"and retraining turns it as well, to {turn['unseen']:g}; exactly, {turn['obtuse, exact']:g}, "
        f"{turn['unseen, exact']:g} and {turn['standard, exact']:g} before (U7: {u7['verdict']}).",
    ]
    found = {}
    for task, arm, _, _, percent, ends, *_ in kept["tables"][SAMPLES][1:]:
        if task == "main":
            low, high = ends.strip("[]").split(",")
            found[arm] = (float(percent), (float(low), float(high)))
    return sentences, found


def _exact(toy: Toy) -> Rows:
    rows = [["closed form", "α", "NLL D_g", "NLL D_f", "in the middle", "astray"]]
    for name, values in toy.exact.items():
        for alpha, (g, f, middle, astray) in zip(toy.alphas if len(values) > 1 else (1.0,), values, strict=True):
            rows.append([name, f"{alpha:.2f}", f"{g:.2f}", f"{f:.1f}", f"{middle:.2f}", f"{astray:.2f}"])
    return rows


def _trained(toy: Toy) -> Rows:
    rows = [["arm", "NLL D_g", "NLL D_f", "in the middle", "95 % interval", "astray"]]
    for i, arm in enumerate(toy.arms):
        values = toy.trained[:, i]
        (low, high), (g, f, middle, astray) = metrics.mean_interval(values[:, 2], bounds=(0, 1)), values.mean(0)
        ends = f"[{low:.3f}, {high:.3f}]"
        rows.append([arm, f"{g:.2f}", f"{f:.2f}", f"{middle:.3f}", ends, f"{astray:.3f}"])
    return rows


def _distances(toy: Toy) -> Rows:
    rows = [["σ", *[f"{arm} (adds)" for arm in toy.off]]]
    for i, sigma in enumerate(toy.gap_levels):
        cells = [f"{toy.off[arm][:, i].mean():.2f} ({toy.adds[arm][i]:.2f})" for arm in toy.off]
        rows.append([f"{sigma:g}", *cells])
    return rows


def _cosines(toy: Toy) -> Rows:
    rows = [["σ", *[f"{arm} (exact)" for arm in toy.exact_cosine]]]
    for i in range(0, len(toy.levels), 2):
        both = {arm: (toy.cosine[arm, "D_f"][:, i].mean(), exact[i]) for arm, exact in toy.exact_cosine.items()}
        cells = [f"{learned:.2f} ({exact:.2f})" for learned, exact in both.values()]
        rows.append([f"{toy.levels[i]:.2f}", *cells])
    return rows


def _judges(samples: Samples, sigma_star: dict[str, tuple[float, Tensor, Tensor]]) -> Rows:
    rows = [["task", "right", "in retained", "in forgotten", "surely", "beside", "noise-like", "noised", "σ*"]]
    for task, judge in samples.judge.items():
        values = [getattr(judge, name) for name in Judge.__dataclass_fields__]
        cells = ["" if value != value else f"{100 * value:.1f}" for value in values]
        rows.append([task, *cells, f"{sigma_star[task][0]:.1f}"])
    return rows


def _samples(samples: Samples) -> Rows:
    rows = [["task", "arm", "α", "seeds", "UR, %", "95 % interval", "surely", "Frechet", "prec.", "rec."]]
    for (task, _, arm), judged in samples.judged.items():
        alpha = f"{samples.alphas[arm]:g}" if samples.alphas[arm] < 1 else ""
        rows.append([task, arm, alpha, str(len(judged.found)), *_ratio(judged, samples.n), *_quality(judged)])
    return rows


def _ratio(judged: Judged, n: int) -> list[str]:
    low, high = (100 * end for end in comparing.share_interval(judged.found, n))
    mean, sure = (100 * float(counts.double().mean()) / n for counts in (judged.found, judged.sure))
    return [f"{mean:.1f}", f"[{low:.1f}, {high:.1f}]", f"{sure:.1f}"]


def _contents(samples: Samples) -> Rows:
    beside = [samples.beside] if samples.beside else []
    rows = [["arm", *samples.names, *beside, "noise-like"]]
    for (task, _, arm), judged in samples.judged.items():
        if task == "main":
            counts = [*judged.labels.T, *([judged.beside] if beside else []), judged.noisy]
            rows.append([arm, *[_share(one, samples.n) for one in counts]])
    return rows


def _share(counts: Tensor, n: int) -> str:
    low, high = comparing.share_interval(counts, n)
    return f"{100 * float(counts.double().mean()) / n:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _frontier(samples: Samples) -> Rows:
    rows = [["arm", "α", "seeds", "UR, %", "surely", "noise-like", "Frechet", "prec.", "rec."]]
    for (arm, alpha), judged in sorted(samples.frontier.items()):
        mean = [100 * float(one.double().mean()) / samples.n for one in (judged.found, judged.sure, judged.noisy)]
        rows.append([arm, f"{alpha:g}", str(len(judged.found)), *[f"{one:.1f}" for one in mean], *_quality(judged)])
    return rows


def _quality(judged: Judged) -> list[str]:
    means = judged.frechet.mean(), judged.precision.mean(), judged.recall.mean()
    return [f"{means[0]:.1f}", f"{means[1]:.2f}", f"{means[2]:.2f}"]


def _likelihoods(likelihoods: Likelihoods) -> Rows:
    rows = [["process", "arm", "D_g, bits per dim.", "D_f, bits per dim."]]
    for process in likelihoods.processes:
        for arm in likelihoods.arms:
            cells = [_with_interval(likelihoods.bits[process, arm, side].mean(1)) for side in SIDES]
            rows.append([process, arm, *cells])
    return rows


def _with_interval(values: Tensor) -> str:
    """The mean of values (S,) and its interval over seeds, if there are several."""
    if len(values) < 2:
        return f"{float(values.mean()):.2f}"
    low, high = metrics.mean_interval(values)
    return f"{float(values.mean()):.2f} [{low:.2f}, {high:.2f}]"


def _percent(values: Tensor, digits: int) -> str:
    """The same for fractions (S,), in percent."""
    if len(values) < 2:
        return f"{100 * float(values.mean()):.{digits}f}"
    low, high = metrics.mean_interval(values, bounds=(0, 1))
    return f"{100 * float(values.mean()):.{digits}f} [{100 * low:.{digits}f}, {100 * high:.{digits}f}]"


def _auditor(likelihoods: Likelihoods) -> Rows:
    questions = {
        "forgotten or retained": comparing.hole(likelihoods),
        "trained on or not": likelihoods.member,
    }
    rows = [["question", "arm", "AUC", "95 % interval"]]
    for question, areas in questions.items():
        for arm, (area, (low, high)) in areas.items():
            rows.append([question, arm, f"{area:.2f}", f"[{low:.2f}, {high:.2f}]"])
    return rows


def _inpainting(inpainting: Inpainting) -> Rows:
    rows = [["hidden", "arm", "class kept D_g, %", "D_f, %", "distance D_g", "D_f"]]
    for mask in inpainting.masks:
        for arm in inpainting.arms:
            pair = [inpainting.answers[mask, arm, side] for side in SIDES]
            kept = [_percent(one.same, 1) for one in pair]
            rows.append([mask, arm, *kept, *[f"{one.distance.mean():.2f}" for one in pair]])
    return rows


def _reconstruction(found: Reconstruction) -> Rows:
    shown = [arm for arm in found.arms if arm in ("standard", "unseen", *PRINTED)]
    rows = [["t", "σ", "side", *[f"{arm}, %" for arm in shown]]]
    for time, sigma in zip(found.times, found.sigmas, strict=True):
        for side in SIDES:
            cells = [_percent(found.answers[time, arm, side].same, 0) for arm in shown]
            rows.append([f"{time:g}", f"{sigma:.2f}", side, *cells])
    return rows


def _tuned_bits(tuning: Tuning) -> Rows:
    rows = [["process", "arm", "D_g, bits per dim.", "D_f, bits per dim."]]
    for process, arm in dict.fromkeys(key[:2] for key in tuning.bits):
        rows.append([process, arm, *[_with_interval(tuning.bits[process, arm, side]) for side in SIDES]])
    return rows


def _tuning(tuning: Tuning) -> Rows:
    rows = [["process", "arm", "steps", "UR, %", "95 % interval", "surely", "Frechet", "prec.", "rec."]]
    for (process, arm), found in tuning.scratch.items():
        low, high = comparing.share_interval(found, tuning.n)
        ends = f"[{100 * low:.1f}, {100 * high:.1f}]"
        rows.append(
            [
                process,
                f"{arm}, from scratch",
                "",
                f"{100 * float(found.double().mean()) / tuning.n:.1f}",
                ends,
                *[""] * 4,
            ]
        )
    for (process, arm, steps), judged in tuning.tuned.items():
        rows.append([process, arm, str(steps), *_ratio(judged, tuning.n), *_quality(judged)])
    return rows
