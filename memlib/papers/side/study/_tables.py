"""The tables behind the claims, as rows of text; the first row names the columns."""

from memlib import metrics
from memlib.papers.side.study.curves import by_weight, gains
from memlib.papers.side.study.results import Arms, Labels, Model, Results, Thresholds, Weights
from memlib.papers.side.study.rules import passed
from memlib.papers.side.study.training_rules import of_training

Rows = list[list[str]]


def tables(results: Results) -> dict[str, Rows]:
    """Every table of the groups that were run, by its title. Seconds are left out: no two machines agree on them."""
    told: dict[str, Rows] = {}
    if results.thresholds:
        told["Thresholds, and the non-members above them"] = of_thresholds(results.thresholds)
    if results.labels:
        told["What each arm's student learns from"] = of_labels(results.labels)
    if results.arms:
        told["Copies and distinct members by arm and band"] = of_arms(results.arms)
        told["High band, less Random: paired samples, 95 % intervals"] = of_gains(results.arms)
        told["Two tests without a threshold of their own"] = of_distances(results.arms)
        told["Candidates found without the training set"] = of_candidates(results.arms)
        if len(results.arms.hits) > 1:
            told["Copies (distinct members) on each network"] = of_networks(results.arms)
    if results.weights:
        told["By guidance weight"] = of_weights(results.weights)
    if results.model and results.model.emm:
        told["Memorized samples by the number of training images"] = of_sizes(results.model)
    if results.training:
        told["Training with labels: means over pairs of networks, 95 % intervals"] = of_training(results.training)
    return told


def of_planted(thresholds: Thresholds) -> Rows:
    """Copies of each kind that each descriptor traces to their source."""
    names = list(thresholds.planted)
    kinds = list(thresholds.planted[names[0]])
    rows = [["kind of copy", *names]]
    rows += [[kind, *(f"{thresholds.planted[name][kind]}" for name in names)] for kind in kinds]
    total = thresholds.members * len(kinds)
    return [*rows, ["fraction of all", *(f"{sum(thresholds.planted[name].values()) / total:.3f}" for name in names)]]


def of_thresholds(thresholds: Thresholds) -> Rows:
    """Edge, what it was set for, and the non-members above it."""
    rows = [["band", "cosine from", "set for", "non-members", "95 % interval"]]
    for band, count in passed(thresholds).items():
        low, high = count.interval()
        origin = "published" if thresholds.descriptor == "sscd" else f"{100 * thresholds.fractions[band]:.1f} %"
        interval = f"[{100 * low:.1f}, {100 * high:.1f}] %"
        rows.append([band, f"{thresholds.edges[band]:.3f}", origin, f"{count.k} of {count.n}", interval])
    return rows


def of_labels(labels: Labels) -> Rows:
    """Labels, images and what of the training set went into them."""
    rows = [["arm", "labels", "images", "sees"]]
    return rows + [[arm, f"{labels.classes[arm]}", f"{labels.images[arm]}", labels.sees[arm]] for arm in labels.classes]


def of_arms(arms: Arms) -> Rows:
    """Copies (AMS), distinct members among the best matches and over all pairs (UMS), in each band."""
    bands = list(arms.bands["Random"])
    rows = [["arm", *(f"{band}: AMS / best / all" for band in bands), "non-members"]]
    for name, found in arms.bands.items():
        cells = [" / ".join(str(count) for count in found[band]) for band in bands]
        rows.append([name, *cells, f"{arms.non_members[name]}"])
    return rows


def of_gains(arms: Arms) -> Rows:
    """Each arm against Random: AMS and distinct members."""
    first, rows = arms.hits[0], [["arm", "AMS", "interval", "distinct", "interval"]]
    for name, (change, (low, high)) in gains(arms).items():
        if name != "Random":
            more, (least, most) = metrics.unique_difference(first[name], first["Random"])
            ends = f"[{low:+.3f}, {high:+.3f}]", f"[{least:+.0f}, {most:+.0f}]"
            rows.append([name, f"{change:+.3f}", ends[0], f"{more:+d}", ends[1]])
    return rows


def of_weights(weights: Weights) -> Rows:
    """AMS, UMS, the same for non-members, and the means of the most similar samples, at each weight."""
    found, rows = (
        by_weight(weights),
        [["weight", "AMS", "UMS", "non-members", "top 0.1 %", "0.5 %", "1 %", "5 %", "10 %"]],
    )
    for i, weight in enumerate(weights.weights):
        cells = [found[name][i] for name in ("AMS", "UMS", "non-members")]
        cells += metrics.top_means(weights.similarity[i]).tolist()
        rows.append([f"{weight:g}", *(f"{cell:.3f}" for cell in cells)])
    return rows


def of_distances(arms: Arms) -> Rows:
    """The l2-ratio and the adaptive distance of some arms."""
    rows = [["samples", "l2-ratio below 1/3", "95 % interval", "adaptive distance at most 1", "95 % interval"]]
    for name in ("non-members", "Random", "OL-TD", "CL-TD"):
        cells = []
        for count in (arms.l2_ratio[name], arms.adaptive[name]):
            low, high = count.interval()
            cells += [f"{count.k} of {count.n}", f"[{low:.3f}, {high:.3f}]"]
        rows.append([name, *cells])
    return rows


def of_candidates(arms: Arms) -> Rows:
    """What a search among the samples alone gives, by how often a sample must be repeated."""
    rows = [["arm", "repeated", "candidates", "copies", "distinct", "non-members"]]
    for name in ("Random", "OL-TD", "CL-TD"):
        for least, counts in zip((2, 3, 5), arms.candidates[name].tolist(), strict=True):
            rows.append([name, f"{least} times", *(str(count) for count in counts)])
    return rows


def of_networks(arms: Arms) -> Rows:
    """Copies and distinct members on each network, and the mean gain over Random."""
    names, n = list(arms.hits[-1]), len(arms.hits[0]["Random"])
    rows = [["network", *names]]
    for number, hits in enumerate(arms.hits):
        found = {name: metrics.ums(hits[name], n).k for name in names}
        rows.append([f"{number}", *(f"{int((hits[name] >= 0).sum())} ({found[name]})" for name in names)])
    gains = {
        name: [float((hits[name] >= 0).double().mean() - (hits["Random"] >= 0).double().mean()) for hits in arms.hits]
        for name in names
    }
    ends = {name: metrics.mean_interval(gain, bounds=(-1, 1)) for name, gain in gains.items()}
    ends["Random"] = 0.0, 0.0  # less itself
    rows.append(["mean AMS less Random", *(f"{sum(gain) / len(gain):+.3f}" for gain in gains.values())])
    return [*rows, ["95 % interval", *(f"[{low:+.3f}, {high:+.3f}]" for low, high in ends.values())]]


def of_sizes(model: Model) -> Rows:
    """The fraction memorized by the number of training images."""
    rows = [["training images", "memorized samples"]]
    return rows + [[f"{n}", f"{count.k} of {count.n}"] for n, count in model.emm or []]
