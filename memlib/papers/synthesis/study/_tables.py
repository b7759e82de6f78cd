"""The numbers behind the claims, as tables: rows of strings, the first row names the columns."""

from memlib import metrics
from memlib.papers.synthesis.attacks import THREATS
from memlib.papers.synthesis.study import _further_tables, theory_words
from memlib.papers.synthesis.study.measures import accuracy_by_pair
from memlib.papers.synthesis.study.results import Attack, Blind, Membership, Prior, Rate, Results, Seeds, Sizes

Rows = list[list[str]]
JUDGED = ("all", "plain", "mislabelled", "repeated")


def tables(results: Results) -> dict[str, Rows]:
    """The tables of the groups that were run, by title; each names its source."""
    found: dict[str, Rows] = {}
    for name, part in (results.membership or {}).items():
        for rate in sorted({rate for one in part.attacks for rate in one.rates}, reverse=True):
            found[threats_title(name, rate)] = _threats(part.attacks, rate)
        found[f"Members found by way to use shadows, at 1 % false positives: {name}"] = _ways(part.attacks)
        found[f"Members found by number of shadows, real training: {name}"] = _shadows(part)
        found[f"Utility and privacy: {name}"] = _frontier(part)
    for name, part in (results.prior or {}).items():
        found[f"The latent prior: {name}"] = _prior(part)
    for name, part in (results.sizes or {}).items():
        found[f"Size of the synthetic set: {name}"] = _sizes(part)
    for name, part in (results.seeds or {}).items():
        found[f"Accuracy over seeds: {name}"] = _seeds(part)
    for name, part in (results.blind or {}).items():
        found[f"Without a model: {name}"] = _blind(part)
    for name, regimes in (results.fine_tuning or {}).items():
        for regime, part in regimes.items():
            found[f"The matching term, {regime}: {name}"] = _further_tables.tuning(part)
            found[f"Residual, share in its mean, {regime}: {name}"] = _further_tables.energy(part)
    for name, part in (results.ablation or {}).items():
        found[f"Latent prior, visual guidance, matching: {name}"] = _further_tables.ablation(part)
    if results.attributes:
        found["Attributes of faces"] = _further_tables.attributes(results.attributes)
    for name, part in (results.utility or {}).items():
        found[f"Accuracy on changed test images: {name}"] = _further_tables.utility(part)
    return found | theory_words.tables(results)


def threats_title(name: str, rate: float) -> str:
    """The title of the table of attackers for a source and a false-positive rate."""
    return f"Members found by four attackers at {100 * rate:g} % false positives: {name}"


def told(rate: Rate) -> str:
    """A true-positive rate with its interval."""
    return f"{rate.tpr:.3f} [{rate.low:.3f}, {rate.high:.3f}]"


def _threats(attacks: list[Attack], rate: float) -> Rows:
    """Each statistic raw, calibrated, and in LiRA; the canaries and the resulting rate are those of LiRA."""
    head = ["raw", "calibrated", "LiRA", "mislabelled", "repeated", "false positives"]
    rows = [["attacker", "trained on", "statistic", *head]]
    seen = dict.fromkeys((one.threat, one.trained, one.statistic) for one in attacks)
    for key in seen:
        ways = {one.way: one.rates[rate] for one in attacks if (one.threat, one.trained, one.statistic) == key}
        lira = ways["LiRA"]
        canaries = [told(lira[name]) for name in ("mislabelled", "repeated")]
        plain = [f"{ways[way]['all'].tpr:.3f}" for way in ("raw", "calibrated")]
        threat, trained, statistic = key
        who = f"{threat}: {THREATS[threat]}"
        rows.append([who, trained, statistic, *plain, told(lira["all"]), *canaries, f"{lira['all'].fpr:.4f}"])
    return rows


def _ways(attacks: list[Attack]) -> Rows:
    rows = [["trained on", "way", "all", "plain", "mislabelled", "repeated", "AUC"]]
    for one in attacks:
        if one.threat == "A":
            rate = max(one.rates)
            area = f"{one.auc[0]:.3f} [{one.auc[1]:.3f}, {one.auc[2]:.3f}]"
            rows.append([one.trained, one.way, *(told(one.rates[rate][name]) for name in JUDGED), area])
    return rows


def _shadows(part: Membership) -> Rows:
    counts = sorted({count for by_count in part.shadows.values() for count in by_count})
    rows = [["way", *(f"{count} shadows" for count in counts)]]
    for way, by_count in part.shadows.items():
        cells = [f"{by_count[count].mean():.3f}" if count in by_count else "unknown" for count in counts]
        rows.append([way, *cells])
    return rows


def _frontier(part: Membership) -> Rows:
    rows = [["trained on", "accuracy", "members found at 1 %", "interval over pairs"]]
    for name, (accuracy, found) in part.frontier.items():
        low, high = metrics.mean_interval(found, bounds=(0, 1))
        rows.append([name, f"{accuracy.mean():.3f}", f"{found.mean():.3f}", f"[{low:.3f}, {high:.3f}]"])
    return rows


def _prior(part: Prior) -> Rows:
    rows = [
        ["strength", "accuracy", "A finds", "mislabelled", "B finds", "mislabelled", "near a member", "label right"]
    ]
    for x in sorted(part.right):
        rates = [
            told(by_who[who]) for by_who in (part.classifier[x], part.published[x]) for who in ("all", "mislabelled")
        ]
        asked, real = part.agreement[x].mean(0).tolist()
        accuracy = f"{accuracy_by_pair(part.right[x]).mean():.3f}"
        rows.append([f"{x:g}", accuracy, *rates, f"{part.nearer[x].mean():.3f}", f"{asked:.3f} (real {real:.3f})"])
    return rows


def _sizes(part: Sizes) -> Rows:
    rows = [["images for each member", "accuracy", "members found at 1 %", "mislabelled", "repeated"]]
    for size in sorted(part.right):
        rates = [told(part.rates[size][who]) for who in ("all", "mislabelled", "repeated")]
        rows.append([str(size), f"{accuracy_by_pair(part.right[size]).mean():.3f}", *rates])
    return [*rows, ["real data", f"{accuracy_by_pair(part.real).mean():.3f}", "", "", ""]]


def _seeds(part: Seeds) -> Rows:
    three = part.repeated[:3]
    low, high = metrics.mean_interval(three, bounds=(0, 1))
    each = ", ".join(f"{value:.3f}" for value in part.repeated)
    return [
        ["by seed", "mean of three", "t interval", "population deviation", "sample deviation", "all pipelines"],
        [each, f"{three.mean():.3f}", f"[{low:.3f}, {high:.3f}]", f"{three.std(correction=0):.4f}",
         f"{part.repeated.std():.4f}", f"{part.pipelines.std():.4f}"],
    ]  # fmt: skip


def _blind(part: Blind) -> Rows:
    rows = [["non-members", "AUC without a model", "interval over pairs", "AUC of the raw loss"]]
    for name, blind, attack in (
        ("by a coin", part.coin, part.attack["by a coin"]),
        ("moved by a pixel", part.moved, part.attack["moved"]),
    ):
        low, high = metrics.mean_interval(blind, bounds=(0, 1))
        rows.append([name, f"{blind.mean():.3f}", f"[{low:.3f}, {high:.3f}]", f"{attack.mean():.3f}"])
    return rows
