"""The tables behind the claims, as rows of text; the first row names the columns."""

import torch

from memlib import metrics
from memlib.papers.side.study.arms import ARMS, TOPS
from memlib.papers.side.study.compare import BANDS, gains
from memlib.papers.side.study.curves import GAINS, by_ratio, by_weight
from memlib.papers.side.study.results import Arms, Labels, Model, Results, Theory, Thresholds, Weights
from memlib.papers.side.study.rules import interval
from memlib.papers.side.study.training_rules import of_training

Rows = list[list[str]]
PRINTED = {  # AMS and UMS at low, mid and high similarity in per cent, SIDE table 1
    "CelebA-HQ-FI: Random": (11.656, 2.120, 0.596, 0.328, 0.044, 0.040),
    "CelebA-HQ-FI: OL-TI": (2.649, 0.744, 0.075, 0.057, 0.005, 0.005),
    "CelebA-HQ-FI: OL-TD": (15.172, 2.342, 1.115, 0.444, 0.054, 0.044),
    "CelebA-25000: Random": (5.000, 4.240, 0.100, 0.100, 0.0, 0.0),
    "CelebA-25000: OL-TI": (0.164, 0.152, 0.0, 0.0, 0.0, 0.0),
    "CelebA-25000: OL-TD": (8.756, 6.940, 0.224, 0.212, 0.012, 0.012),
}
AVERAGED = (5.0, 9.0)  # the weights of table 1: its rows are means from the one to the other


def tables(results: Results) -> dict[str, Rows]:
    """Every table of the groups that were run, by its title. Seconds are left out: no two machines agree on them."""
    told: dict[str, Rows] = {}
    if results.thresholds:
        told["Thresholds, and the non-members past them"] = of_thresholds(results.thresholds)
    if results.labels:
        told["What each arm's student learns from"] = of_labels(results.labels)
    for arms, where in ((results.arms, ""), (results.second, " on the second set")):
        if arms:
            told[f"Copies / distinct members by arm{where}"] = of_arms(arms)
            told[GAINS + where] = of_gains(arms)
            told[f"Copies (distinct members) on each network{where}"] = of_networks(arms)
    if results.arms:
        told["Two tests without a threshold, first network"] = of_distances(results.arms)
        told["Candidates without the training set, first network"] = of_candidates(results.arms)
    for theory, where in ((results.theory, ""), (results.second_theory, " on the second set")):
        if theory:
            told[f"Theorem 1 and the attack, by labelling{where}"] = of_theory(theory)
    if results.weights:
        told["By guidance weight"] = of_weights(results.weights)
        if len(results.weights.weights) > 2:
            told["AMS / UMS by guidance weight, swept arms"] = of_swept(results.weights)
            told["Table 1, in per cent"] = of_paper(results.weights)
    if results.model and results.model.emm:
        told["Training sets of other sizes"] = of_sizes(results.model)
    if results.training:
        told["Training with labels: means over pairs, 95 % intervals"] = of_training(results.training)
    return told


def of_arms_table() -> Rows:
    """The arms: where labels come from, what of the training set they see, the label of a sample, who guides."""
    known = {
        "CL-TD": ("clusters of generated images", "nothing"),
        "CL-TI": ("clusters of generated images", "nothing"),
        "OL-TD": ("a teacher of the members", "images and labels"),
        "RL-TD": ("random", "nothing"),
        "RL-TD (training)": ("a teacher of one label a member", "images"),
        "RL-TD (oracle)": ("the members themselves, one each", "images"),
    }
    drawn = {"uniform": "drawn", "own": "own"}
    rows = [["arm", "labels from", "sees of the members", "a sample's label", "classifier", "in the paper"]]
    for name, arm in ARMS.items():
        rows.append([name, *known[arm.surrogate], drawn[arm.draw], arm.student, arm.paper])
    return [rows[0], ["Random", "none", "nothing", "none", "none", "table 1"], *rows[1:]]


def of_planted(thresholds: Thresholds) -> Rows:
    """Copies of each kind that each descriptor traces to their source."""
    names = list(thresholds.planted)
    kinds = list(thresholds.planted[names[0]])
    rows = [["kind of copy", *names]]
    rows += [[kind, *(f"{thresholds.planted[name][kind]}" for name in names)] for kind in kinds]
    total = thresholds.members * len(kinds)
    return [*rows, ["fraction of all", *(f"{sum(thresholds.planted[name].values()) / total:.3f}" for name in names)]]


def of_thresholds(thresholds: Thresholds) -> Rows:
    """Edges of the first network, what they were set for, and the non-members past them in all networks."""
    rows = [["band", "cosine from", "L2 up to", "meant to pass", "non-members, all networks", "95 % interval"]]
    held = thresholds.held
    for band, edges in thresholds.edges.items():
        origin = "published" if thresholds.descriptor == "sscd" else f"{100 * thresholds.fractions[band]:.1f} %"
        low, high = interval([one.passed[band].rate for one in held], (0.0, 1.0))
        ends = f"[{100 * max(low, 0):.1f}, {100 * min(high, 1):.1f}] %"
        counts = f"{sum(one.passed[band].k for one in held)} of {sum(one.passed[band].n for one in held)}"
        rows.append([band, f"{edges.similarity:.3f}", f"{edges.distance:.2f}", origin, counts, ends])
    return rows


def of_labels(labels: Labels) -> Rows:
    """Labels, images and what of the training set went into them."""
    rows = [["arm", "labels", "images", "sees"]]
    return rows + [[arm, f"{labels.classes[arm]}", f"{labels.images[arm]}", labels.sees[arm]] for arm in labels.classes]


def of_arms(arms: Arms) -> Rows:
    """Copies and distinct members of all networks together: joint, by each measure alone, and in the lower bands."""
    count = len(arms.hits)
    rows = [
        ["arm", "weight", "networks", "joint", "cosine alone", "L2 alone", "low", "mid", "all pairs", "non-members (0)"]
    ]
    for name in arms.hits[0]:
        have = [number for number in range(count) if name in arms.hits[number]]
        bands = torch.tensor([[arms.bands[i][name][band] for band in BANDS] for i in have]).sum(0)
        alone = torch.tensor([[arms.alone[i][name][kind] for kind in ("cosine", "L2")] for i in have]).sum(0)
        cells = [f"{a} / {b}" for a, b in (bands[2, :2], *alone, *bands[:2, :2])]
        weight = f"{arms.weights[name]:g}" if name in arms.weights else ""
        rows.append([name, weight, f"{len(have)}", *cells, f"{bands[2, 2]}", f"{arms.non_members[name]}"])
    return rows


def of_gains(arms: Arms) -> Rows:
    """Each arm on all networks less Random: AMS and distinct members, with intervals over the networks."""
    rows = [["arm", "AMS", "low", "high", "distinct members", "low", "high"]]
    for name in arms.hits[-1]:
        if name != "Random":
            rate, distinct = gains(arms, name, "Random")
            members = [one * arms.members for one in distinct]
            cells = [f"{one:+.4f}" for one in (sum(rate) / len(rate), *interval(rate))]
            cells += [f"{one:+.1f}" for one in (sum(members) / len(members), *interval(members, None))]
            rows.append([name, *cells])
    return rows


def of_weights(weights: Weights) -> Rows:
    """AMS, UMS, the same for non-members, and the mean cosine of the most similar samples, at each weight."""
    found, tops = by_weight(weights), weights.tops.mean((0, 2))
    rows = [["weight", "AMS", "UMS", "non-members", *(f"top {100 * top:g} %" for top in TOPS)]]
    for i, weight in enumerate(weights.weights):
        cells = [found[name][i] for name in ("AMS", "UMS", "non-members")] + tops[i].tolist()
        rows.append([f"{weight:g}", *(f"{cell:.3f}" if cell == cell else "" for cell in cells)])
    return rows


def of_swept(weights: Weights) -> Rows:
    """AMS and UMS in the high band in per cent, mean of the networks, of every swept arm; blank where not drawn."""
    names = list(weights.bands)
    drawn = {name: dict(zip(weights.of_arm[name], weights.bands[name][:, :, 2].mean(0), strict=True)) for name in names}
    rows = [["weight", *names]]
    for weight in sorted({one for name in names for one in drawn[name]}):
        cells = [drawn[name].get(weight) for name in names]
        rows.append(
            [f"{weight:g}", *("" if one is None else f"{100 * one[0]:.2f} / {100 * one[1]:.2f}" for one in cells)]
        )
    return rows


def of_paper(weights: Weights) -> Rows:
    """The paper's table 1 beside ours: means over the weights from 5 to 9 and over the networks."""
    head = [f"{what} {band}" for band in BANDS for what in ("AMS", "UMS")]
    rows = [
        ["set and arm", *head],
        *[[name, *(f"{value:g}" for value in values)] for name, values in PRINTED.items()],
    ]
    for name, values in weights.bands.items():
        listed = weights.of_arm[name]
        inside = [i for i, weight in enumerate(listed) if AVERAGED[0] <= weight <= AVERAGED[1]]
        if not inside:
            continue
        mean = 100 * values[:, inside].mean((0, 1))  # (3, 2)
        rows.append([f"here: {name}", *(f"{one:.3f}" for one in mean.flatten().tolist())])
        if name == weights.arm:
            plain = 100 * values[:, listed.index(0.0)].mean(0)
            rows.append(["here: Random", *(f"{one:.3f}" for one in plain.flatten().tolist())])
    return rows


def of_theory(theory: Theory) -> Rows:
    """The ratio of theorem 1, classes, and the copies of the attack on all networks together; the last row has the rank
    correlation of ratios and copies."""
    rows = [["labels of the members", "classes", "ratio of eq. 50", "copies", "distinct members", "samples"]]
    count, (dots, rank) = len(theory.ratio), by_ratio(theory)
    for name, (ratio, _) in sorted(dots.items(), key=lambda one: one[1][0]):
        sums = [sum(one[name] for one in part) for part in (theory.copies, theory.distinct)]
        classes = sum(one[name] for one in theory.classes) / count
        rows.append([name, f"{classes:.0f}", f"{ratio:.2f}", *map(str, sums), f"{count * theory.n}"])
    rows.append(["no label", "", "", f"{sum(theory.plain)}", "", f"{count * theory.n}"])
    return [*rows, ["rank correlation", "", "", f"{rank:.2f}", "", ""]]


def of_distances(arms: Arms) -> Rows:
    """The l2-ratio and the adaptive distance of some arms, first network."""
    rows = [["samples", "l2-ratio below 1/3", "95 % interval", "adaptive distance at most 1", "95 % interval"]]
    for name in ("non-members", "Random", "CL-TD own", "OL-TD"):
        cells = []
        for count in (arms.l2_ratio[name], arms.adaptive[name]):
            low, high = count.interval()
            cells += [f"{count.k} of {count.n}", f"[{low:.3f}, {high:.3f}]"]
        rows.append([name, *cells])
    return rows


def of_candidates(arms: Arms) -> Rows:
    """What a search among the samples alone gives, by how often a sample must be repeated, first network."""
    rows = [["arm", "repeated", "candidates", "copies", "distinct", "non-members"]]
    for name in ("Random", "CL-TD own", "OL-TD"):
        for least, counts in zip((2, 3, 5), arms.candidates[name].tolist(), strict=True):
            rows.append([name, f"{least} times", *(str(count) for count in counts)])
    return rows


def of_networks(arms: Arms) -> Rows:
    """Copies and distinct members on each network."""
    names, n = list(arms.hits[-1]), len(arms.hits[0]["Random"])
    rows = [["network", *names]]
    for number, hits in enumerate(arms.hits):
        found = {name: metrics.ums(hits[name], n).k for name in names}
        rows.append([f"{number}", *(f"{int((hits[name] >= 0).sum())} ({found[name]})" for name in names)])
    return rows


def of_sizes(model: Model) -> Rows:
    """Memorized samples by the number of training images, the EMM, and what became of images seen five times."""
    rows = [["training images", "memorized samples"]]
    rows += [[f"{n}", f"{count.k} of {count.n}"] for n, count in model.emm or []]
    if model.emm_bracket:
        low, high = model.emm_bracket
        rows.append(["EMM", f"{low} or more" if high is None else f"between {low} and {high} training images"])
    if model.duplicates:
        told = "{of the ten} of {samples} copy one of the ten, {of the others} one of the others"
        rows.append(["ten images five times each", told.format_map(model.duplicates)])
    return rows
