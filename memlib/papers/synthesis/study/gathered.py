"""What the calls returned, joined over parts, and each group of claims put together from it."""

from typing import Any

import torch
from torch import Tensor

from memlib import membership, metrics
from memlib.papers.synthesis import attacks
from memlib.papers.synthesis.attacks import Statistic
from memlib.papers.synthesis.study import measures, pipelines, theory
from memlib.papers.synthesis.study.fine_tuning import Regime
from memlib.papers.synthesis.study.pipelines import Classified, Synthetic
from memlib.papers.synthesis.study.results import Blind, Hits, Membership, Prior, Retrieval, Seeds, Sizes
from memlib.papers.synthesis.study.settings import Settings
from memlib.papers.synthesis.study.theory_results import Gap
from memlib.papers.synthesis.study.world import World

_LIRA = attacks.calibrations()["LiRA"]
_GRID = torch.logspace(-3, 0, 31, dtype=torch.float64)[:-1]  # at 1 all curves meet


class Made:
    """What the calls returned, joined over parts, and the groups made of it."""

    def __init__(self, one: World, settings: Settings, done: dict[Any, Any]) -> None:
        self.world, self.settings, self.done = one, settings, done
        self.inside, self.kind = one.pool.inside.cpu(), one.pool.kind.cpu()
        self.rate = settings.rates[0]

    def parts(self, *key: Any) -> list[Any]:
        """The results of a call, part by part."""
        return [value for name, value in self.done.items() if isinstance(name, tuple) and name[: len(key)] == key]

    def of_size(self, strength: float, times: int) -> Classified:
        """Classifiers of synthetic sets, of all T targets."""
        return pipelines.joined([one.classified[times] for one in self.parts("synthetic", strength)])

    def of_real(self) -> dict[str, Classified]:
        """Classifiers of real data by name, those of an early look with the fraction of the steps."""
        parts, found = self.parts("real"), {}
        for name in parts[0]:
            looks = [pipelines.joined(list(column)) for column in zip(*(one[name] for one in parts), strict=True)]
            for look, classified in zip(self.settings.looks, looks[:-1], strict=False):
                found[f"{name}, stopped at {look}"] = classified
            found[name] = looks[-1]
        return found

    def statistics(self, *key: Any) -> list[Statistic]:
        """Statistics of all targets."""
        return [pipelines.together(list(column)) for column in zip(*self.parts(*key), strict=True)]

    def lira(self, classified: Classified) -> Tensor:
        """LiRA's score of every image for every target, (T, N)."""
        return attacks.judged(classified.margins[None], self.inside, _LIRA)

    def rates(self, scores: Tensor) -> dict[str, Any]:
        """Rates of scores (T, N) by who is judged, at the deciding rate."""
        return measures.rates(scores, self.inside, self.kind, self.rate)[0]

    def membership(self) -> Membership:
        """R4, with the table of threats."""
        settings, trained = self.settings, self.of_real()
        trained |= {"synthetic": self.of_size(settings.strength, 1), "synthetic, from noise": self.of_size(1.0, 1)}
        scores = {name: self.lira(one) for name, one in trained.items()}
        right = {name: one.right for name, one in trained.items()}
        stops = [name for name in trained if name == "real" or "stopped" in name]
        goal = float(right["synthetic"].double().mean())
        equal = measures.earliest(right, stops, goal)
        hit = {
            name: measures.rates(scores[name], self.inside, self.kind, self.rate)[1]
            for name in ("real", "synthetic", equal)
        }
        seen = {name: values.double() for name, values in scores.items()}
        return Membership(
            hits=Hits(hit["real"], hit["synthetic"], hit[equal], self.inside, self.kind, self.rate),
            right=right,
            attacks=self.attacks(trained),
            roc={name: measures.curves(seen[name], self.inside, _GRID) for name in ("real", "synthetic")},
            grid=_GRID,
            shadows=self.by_shadows(trained["real"]),
            frontier={
                name: (measures.accuracy_by_pair(right[name]), measures.by_pair(seen[name], self.inside, self.rate))
                for name in trained
            },
        )

    def attacks(self, trained: dict[str, Classified]) -> list[Any]:
        """The table of threats: every statistic, in every way of using shadows."""
        rows, arguments = [], (self.inside, self.kind, self.settings.rates)
        for name in ("real", "synthetic", "synthetic, from noise"):
            statistic = Statistic("A", "margin", trained[name].margins[None])
            for way in attacks.calibrations(log_p=True).items():
                rows.append(measures.attack(statistic, name, way, *arguments))
        of_published = [one.nearest for one in self.parts("synthetic", self.settings.strength)]
        others = [pipelines.together(of_published), *self.statistics("answers"), *self.statistics("weights")]
        brief = {name: way for name, way in attacks.calibrations().items() if name in ("raw", "calibrated", "LiRA")}
        for statistic in others:
            for way in brief.items():
                rows.append(measures.attack(statistic, "synthetic", way, *arguments))
        return rows

    def by_shadows(self, real: Classified) -> dict[str, dict[int, Tensor]]:
        """How the rate on real data grows with the number of shadows: (P,) by way and number."""
        counts = [count for count in self.settings.shadows if count <= len(self.inside) - 2]
        found: dict[str, dict[int, Tensor]] = {}
        for name, way in attacks.calibrations(log_p=True).items():
            for count in counts if way else []:
                if "LiRA" in name and count < 4:  # a deviation needs two shadows on each side
                    continue
                scores = attacks.judged(real.margins[None], self.inside, way, count)
                found.setdefault(name, {})[count] = measures.by_pair(scores, self.inside, self.rate)
        return found

    def retrieval(self) -> Retrieval:
        """R5."""
        parts: list[Synthetic] = self.parts("synthetic", self.settings.strength)
        found = pipelines.copies_of([one.copies for one in parts])
        return Retrieval(*found, int(self.inside[0].sum()))

    def seeds(self) -> Seeds:
        """R7."""
        again: Synthetic = self.done["seeds"]
        every = [one.classified[1].right for one in self.parts("synthetic", self.settings.strength)]
        pipelines_ = torch.cat(every).double().mean(1) if every else again.classified[1].right.double().mean(1)
        return Seeds(again.classified[1].right.double().mean(1), pipelines_, len(self.world.test))

    def sizes(self) -> Sizes:
        """R10."""
        found = {times: self.of_size(self.settings.strength, times) for times in self.settings.sizes}
        return Sizes(
            right={times: one.right for times, one in found.items()},
            real=self.of_real()["real"].right,
            rates={times: self.rates(self.lira(one)) for times, one in found.items()},
        )

    def prior(self) -> Prior:
        """The latent prior against privacy."""
        strengths = sorted({self.settings.strength, *self.settings.strengths})
        parts = {x: self.parts("synthetic", x) for x in strengths}
        answers = {x: self.of_size(x, 1) for x in strengths}
        nearest = {x: pipelines.together([one.nearest for one in parts[x]]).values for x in strengths}
        return Prior(
            right={x: one.right for x, one in answers.items()},
            classifier={x: self.rates(self.lira(one)) for x, one in answers.items()},
            published={x: self.rates(attacks.judged(one, self.inside, _LIRA)) for x, one in nearest.items()},
            nearer={x: pipelines.copies_of([one.copies for one in parts[x]]).nearer for x in strengths},
            agreement={x: torch.cat([one.agreement for one in parts[x]]) for x in strengths},
            pictures={x: shown for x in strengths if (shown := parts[x][0].pictures)},
        )

    def gap(self) -> Gap:
        """R3."""
        return theory.gap(self.world, self.parts("gap"))

    def fine_tuning(self) -> dict[str, Regime]:
        """R2, by regime."""
        return {name[1]: value for name, value in self.done.items() if name[0] == "fine_tuning"}

    def blind(self) -> Blind:
        """A coin against moved non-members: for a classifier that sees no model, and for the raw loss."""
        images, moved = self.world.pool.images.cpu(), pipelines.moved_images(self.world).cpu()
        halves = [(self.inside[t], ~self.inside[t]) for t in range(0, len(self.inside), 2)]
        loss, of_moved = (one.values[0] for one in self.statistics("moved"))
        areas = {
            "by a coin": [metrics.auc(row[seen], row[~seen])[0] for row, seen in zip(loss, self.inside, strict=True)],
            "moved": [
                metrics.auc(row[seen], other[~seen])[0]
                for row, other, seen in zip(loss, of_moved, self.inside, strict=True)
            ],
        }
        return Blind(
            coin=torch.tensor([membership.blind(images[a], images[b])[0] for a, b in halves], dtype=torch.float64),
            moved=torch.tensor([membership.blind(images[a], moved[b])[0] for a, b in halves], dtype=torch.float64),
            attack={name: torch.tensor(values, dtype=torch.float64) for name, values in areas.items()},
        )
