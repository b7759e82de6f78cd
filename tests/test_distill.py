"""Surrogate labels, TDKD and guidance: losses against torch.distributions, directions against Bayes on a mixture, and
what each arm may see."""

import inspect
import math

import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from torch.distributions import Categorical, kl_divergence

from memlib import nets, noise, train
from memlib.analytic import Empirical, GaussianMixture
from memlib.denoiser import gradient, guided
from memlib.errors import Refused
from memlib.papers import side


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def student(classes, size, time=True, width=64):
    torch.manual_seed(0)
    return nets.Classifier(nets.LabelMLP(classes, (size,), width, time=time), 1.0).double()


def surrogate(n=64, classes=3, size=4, arm="OL-TD"):
    return side.Surrogate(arm, "", randn(n, size), randn(n, classes, seed=1).softmax(1))


class Spy(torch.nn.Module):
    """A linear classifier that remembers what it was shown."""

    def __init__(self, size=4, classes=3, time=True):
        super().__init__()
        self.linear, self.time, self.seen = torch.nn.Linear(size, classes).double(), time, []

    def forward(self, x, sigma):
        self.seen.append((x.detach().clone(), sigma.detach().clone()))
        return self.linear(x)


class TestLoss:
    """Equation 11 against closed forms."""

    targets, logits = randn(5, 7, seed=1).softmax(1), randn(5, 7, seed=2)

    def test_is_the_divergence_from_teacher_to_student(self):
        wanted = kl_divergence(Categorical(probs=self.targets), Categorical(logits=self.logits))
        torch.testing.assert_close(side.tdkd(self.logits, self.targets), wanted)

    def test_hard_labels_give_the_cross_entropy(self):
        hard = torch.eye(7, dtype=torch.float64)[:5]
        wanted = -self.logits.log_softmax(1)[range(5), range(5)]
        for temperature in (1.0, 3.0):
            got = side.tdkd(self.logits * temperature, hard, temperature)
            torch.testing.assert_close(got, temperature**2 * wanted)

    def test_temperature_softens_both(self):
        z = randn(5, 7, seed=3)
        soft = [Categorical(logits=t / 4) for t in (z, self.logits)]
        torch.testing.assert_close(side.tdkd(self.logits, z.softmax(1), 4.0), 16 * kl_divergence(*soft))

    @pytest.mark.parametrize("temperature", [1.0, 2.0])
    def test_is_least_where_the_student_says_what_the_teacher_says(self, temperature):
        logits = self.targets.log().requires_grad_()
        loss = side.tdkd(logits, self.targets, temperature).sum()
        assert abs(float(loss.detach())) < 1e-12
        assert torch.autograd.grad(loss, logits)[0].abs().max() < 1e-12


class TestTraining:
    """What teacher and student are shown."""

    def test_student_with_time_sees_lognormal_noise(self):
        given = surrogate(arm="CL-TD")
        spy = Spy()
        side.distil(spy, given, 40, batch=128, levels=(-0.5, 0.7))
        sigmas = torch.cat([sigma for _, sigma in spy.seen])
        assert sigmas.shape == (40 * 128,)
        assert abs(sigmas.log().mean() + 0.5) < 0.05 and abs(sigmas.log().std() - 0.7) < 0.05
        gaps = [(torch.cdist(x, given.images).amin(1), sigma) for x, sigma in spy.seen]
        small = torch.cat([gap[sigma < 0.15] / sigma[sigma < 0.15] for gap, sigma in gaps])  # of four normals: chi
        assert len(small) > 50 and 1.5 < small.mean() < 2.2 and spy.training is False

    def test_student_without_time_sees_clean_images(self):
        given = surrogate(arm="OL-TI")
        spy = Spy(time=False)
        side.distil(spy, given, 5)
        shown = torch.cat([x for x, _ in spy.seen])
        assert (shown[:, None] == given.images).all(2).any(1).all() and len(shown.unique(dim=0)) > 50
        assert all(not sigma.any() for _, sigma in spy.seen)

    def test_teacher_is_asked_about_clean_images_once(self):
        images = randn(2500, 4)
        teacher = Spy(time=False).eval()
        given = side.teacher_labels(teacher, images)
        shown = torch.cat([x for x, _ in teacher.seen])
        assert torch.equal(shown, images) and all(not sigma.any() for _, sigma in teacher.seen)
        torch.testing.assert_close(given.targets, teacher.linear(images).softmax(1))
        assert not given.targets.requires_grad
        calls = len(teacher.seen)
        side.distil(Spy(), given, 3)
        assert len(teacher.seen) == calls

    def test_teacher_learns_clean_labels(self):
        images = randn(256, 2)
        labels = (images[:, 0] > 0).long()
        teacher = side.teach(student(2, 2, time=False), images, labels, 150)
        fresh = randn(500, 2, seed=9)
        (count,) = side.accuracy(teacher, fresh, (fresh[:, 0] > 0).long(), [0.0], noise.noise_from(generator()))
        assert count.n == 500 and count.rate > 0.95 and not teacher.training

    def test_same_seed_same_student_and_another_seed_another(self):
        weights = []
        for seed in (0, 0, 1):
            net = side.distil(student(3, 4), surrogate(), 5, seed=seed)
            weights.append(torch.nn.utils.parameters_to_vector(net.parameters()))
        assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])

    def test_a_finished_checkpoint_is_loaded_not_trained(self, tmp_path):
        first = side.distil(student(3, 4), surrogate(), 5, checkpoint=tmp_path)
        again = student(3, 4)
        unusable = side.Surrogate("OL-TD", "", torch.full((64, 4), math.nan).double(), surrogate().targets)
        side.distil(again, unusable, 5, checkpoint=tmp_path)
        for name, value in first.state_dict().items():
            assert torch.equal(value, again.state_dict()[name])

    @pytest.mark.parametrize(("arm", "time"), [("OL-TI", True), ("OL-TD", False), ("CL-TD", False)])
    def test_the_student_has_the_form_of_its_arm(self, arm, time):
        with pytest.raises(Refused, match=f"{arm} needs a student made with time={not time}"):
            side.distil(student(3, 4, time), surrogate(arm=arm), 5)

    def test_a_teacher_with_time_is_refused(self):
        with pytest.raises(Refused, match="time=False"):
            side.teach(student(3, 4), randn(8, 4), torch.zeros(8).long(), 5)

    @pytest.mark.parametrize("targets", [torch.zeros(64, 1), torch.zeros(63, 2), torch.zeros(64)])
    def test_targets_that_do_not_fit_are_refused(self, targets):
        with pytest.raises(Refused, match="K >= 2"):
            side.Surrogate("CL-TD", "nothing", randn(64, 4), targets)


@pytest.fixture(scope="module")
def world():
    """Four classes of Gaussians in six coordinates, a student of each form, and what it has not seen."""
    means = randn(4, 6, seed=1)
    mixture = GaussianMixture(means, std=0.3)
    images, _ = mixture.sample(4000, generator(2))
    students = {}
    for arm in ("OL-TD", "OL-TI"):
        given = side.Surrogate(arm, "", images, mixture.posterior(images, 0.0))
        students[arm] = side.distil(student(4, 6, time=arm == "OL-TD"), given, 300)
    held_out, labels = mixture.sample(2000, generator(3))
    return mixture, [GaussianMixture(means[k : k + 1], std=0.3) for k in range(4)], students, held_out, labels


class TestAgainstBayes:
    """A mixture, whose posterior and its gradient are known at every level."""

    def at(self, world, arm, sigma):
        mixture, conditionals, students, held_out, labels = world
        x = noise.add_noise(held_out, sigma, noise.noise_from(generator(4)))
        exact = side.bayes_direction(mixture, conditionals, labels, x, sigma)
        learned = gradient(side.log_p(students[arm], labels), x, sigma)
        with torch.no_grad():
            gap = side.tdkd(students[arm](x, torch.tensor(sigma)), mixture.posterior(x, sigma)).mean()
        return side.agreement(learned, exact), float(gap)

    @pytest.mark.parametrize("sigma", [1.0, 2.0, 5.0])
    def test_student_with_time_comes_near_the_posterior(self, world, sigma):
        agreement, gap = self.at(world, "OL-TD", sigma)
        assert gap < 0.05 and agreement.weighted > 0.9 and 0.75 < agreement.length < 1.33

    @pytest.mark.parametrize("sigma", [2.0, 5.0])
    def test_student_without_time_is_sure_and_wrong_at_large_noise(self, world, sigma):
        agreement, gap = self.at(world, "OL-TI", sigma)
        assert gap > 0.3 and agreement.weighted < 0.85 and agreement.length > 2

    def test_both_agree_with_bayes_on_nearly_clean_images(self, world):
        for arm in ("OL-TD", "OL-TI"):
            assert self.at(world, arm, 0.05)[1] < 0.05

    def test_accuracy_is_that_of_bayes(self, world):
        mixture, _, students, held_out, labels = world
        sigmas = torch.tensor([0.2, 1.0, 3.0])

        def bayes(x, sigma):
            return mixture.posterior(x, sigma).log()

        ours, best = (
            side.accuracy(f, held_out, labels, sigmas, noise.noise_from(generator(6)))
            for f in (students["OL-TD"], bayes)
        )
        assert [count.n for count in ours] == [2000] * 3
        assert best[0].rate > 0.99 > 0.8 > best[2].rate
        assert all(abs(a.rate - b.rate) < 0.03 for a, b in zip(ours, best, strict=True))


def test_the_exact_direction_is_the_gradient_of_the_posterior():
    """Two components a class, of unequal weight, by autograd."""
    means, weights = randn(4, 3, seed=1), torch.tensor([1.0, 2.0, 3.0, 4.0])
    mixture = GaussianMixture(means, weights, 0.4)
    conditionals = [GaussianMixture(means[i], weights[i], 0.4) for i in (slice(0, 2), slice(2, 4))]
    x, labels, sigma = randn(20, 3, seed=2), torch.arange(20) % 2, torch.linspace(0.3, 3, 20, dtype=torch.float64)

    def posterior(x, sigma):
        both = mixture.posterior(x, sigma).unflatten(1, (2, 2)).sum(2)
        return both.gather(1, labels[:, None])[:, 0].log()

    exact = side.bayes_direction(mixture, conditionals, labels, x, sigma)
    torch.testing.assert_close(exact, gradient(posterior, x, sigma), rtol=1e-8, atol=1e-10)


def test_agreement_by_hand():
    exact = torch.tensor([[[3.0, 0.0]], [[0.0, 1.0]], [[0.0, 0.0]]])
    assert side.agreement(2 * exact, exact) == (1.0, 1.0, 2.0)
    assert side.agreement(-exact, exact)[:2] == (-1.0, -1.0)
    learned = torch.tensor([[[6.0, 0.0]], [[5.0, 0.0]], [[7.0, 7.0]]])  # right, at a right angle, where none is asked
    got = side.agreement(learned, exact)
    assert got.cosine == 0.5 and got.weighted == 0.75
    assert math.isclose(got.length, math.sqrt((36 + 25 + 98) / 10))
    assert side.agreement(torch.zeros(2, 3), torch.ones(2, 3))[:2] == (0.0, 0.0)


class TestGuidance:
    """`log_p` as `denoiser.guided` takes it."""

    @pytest.mark.parametrize("time", [True, False])
    def test_log_p_of_the_wanted_label_and_its_pull(self, time):
        torch.manual_seed(0)
        net = nets.Classifier(nets.ResNet(5, 1, (8, 16), (1, 1), time=time)).double().eval()
        x, labels, sigma = randn(6, 1, 8, 8), torch.arange(6) % 5, torch.tensor(0.7, dtype=torch.float64)
        value = side.log_p(net, labels)
        wanted = net(x, sigma).log_softmax(1)[range(6), labels]
        torch.testing.assert_close(value(x, sigma), wanted)
        weight = torch.tensor([0.0, 1, 1, 1, 1, 4])
        pushed = guided(lambda x, _: torch.zeros_like(x), value, weight)(x, sigma)
        pull = gradient(value, x, sigma)
        torch.testing.assert_close(pushed, 0.49 * weight.double()[:, None, None, None] * pull)
        assert not pushed[0].any() and pushed[1:].flatten(1).norm(dim=1).min() > 1e-6
        step = 1e-4 * pushed[1:] / pushed[1:].flatten(1).norm(dim=1)[:, None, None, None]
        after = side.log_p(net, labels[1:])(x[1:] + step, sigma)
        assert (after > wanted[1:]).all()  # uphill

    def test_training_mode_is_refused(self):
        net = nets.Classifier(nets.ResNet(5))
        for use in (
            lambda: side.log_p(net, torch.zeros(2)),
            lambda: side.teacher_labels(net, torch.zeros(2, 1, 8, 8)),
            lambda: side.accuracy(net, torch.zeros(2, 1, 8, 8), torch.zeros(2), [1.0], torch.randn_like),
        ):
            with pytest.raises(Refused, match="eval"):
                use()

    def test_as_a_ddpm_holds_the_sample(self):
        x, alpha_bar = randn(3, 4), torch.tensor([0.9, 0.5, 0.01], dtype=torch.float64)
        sigma = (1 / alpha_bar - 1).sqrt()
        ((shown, level),) = [side.as_ddpm(lambda x, sigma: (x, sigma))(x, sigma)]
        torch.testing.assert_close(shown, alpha_bar.sqrt()[:, None] * x)
        assert torch.equal(level, sigma)


class TestClusters:
    """k-means of directions, and which clusters are dropped."""

    def test_finds_planted_directions_whatever_their_length(self):
        truth = torch.arange(300) % 6
        features = (randn(6, 16)[truth] + 0.1 * randn(300, 16, seed=1)) * torch.linspace(0.1, 10, 300)[:, None]
        found = side.cluster(features, 6, seed=3)
        assert adjusted_rand_score(truth, found.labels) == 1 and found.kept.all()

    def test_deterministic_by_seed(self):
        features = randn(400, 8)
        one, same, other = (side.cluster(features, 20, seed=seed).labels for seed in (0, 0, 1))
        assert torch.equal(one, same) and not torch.equal(one, other)

    def test_labels_of_training_images_leave_none_out(self):
        """Two tight groups, and four images that point everywhere, which `cluster` drops."""
        e = torch.eye(4)
        features = torch.cat([e[:1].repeat(8, 1), e[3:].repeat(8, 1), e[1:3], -e[1:3]]) + 0.01 * randn(20, 4)
        dropped, labels = side.cluster(features, 3, smallest=1, seed=1).labels, side.partition(features, 3, seed=1)
        assert (dropped < 0).any() and (labels >= 0).all() and len(labels) == 20
        kept = dropped >= 0
        assert adjusted_rand_score(dropped[kept], labels[kept]) == 1 and len(labels.unique()) == 3

    def test_tightness_is_the_mean_cosine_of_pairs(self):
        """Against all pairs written out; two images at a right angle score 0, where the length of their mean is .71."""
        features, labels = torch.nn.functional.normalize(randn(30, 5).double()), torch.arange(30) % 4
        wanted = []
        for label in range(4):
            one = features[labels == label]
            cosines = one @ one.T
            wanted.append(float((cosines.sum() - len(one)) / (len(one) * (len(one) - 1))))
        torch.testing.assert_close(side.pair_cosine(features, labels), torch.tensor(wanted).double())
        right = torch.tensor([[1.0, 0], [0, 1], [0, 1]]).double()
        assert side.pair_cosine(right, torch.tensor([0, 0, 1])).tolist() == [0, 0]

    def test_of_labels_by_chance_it_is_that_of_all_pairs_whatever_the_size_of_a_cluster(self):
        """The length of the mean is not: it grows as clusters shrink, which is why small ones seemed cohesive."""
        features = torch.nn.functional.normalize(randn(4000, 6).double() + 0.5)
        whole = float(side.pair_cosine(features, torch.zeros(4000).long()))
        for k in (2, 40, 1000):
            found = side.pair_cosine(features, torch.arange(4000) % k)
            assert abs(float(found.mean()) - whole) < 0.01

    def test_size_times_tightness_ranks_and_a_share_is_kept(self):
        """Six alike, two alike, four at angles of 40 degrees, two opposite, one alone."""
        turns = torch.tensor([0.0] * 6 + [90.0] * 2 + [180.0, 220, 140, 180] + [270.0, 90] + [300.0]).deg2rad()
        features = torch.stack([turns.cos(), turns.sin()], 1)
        labels = torch.tensor([0] * 6 + [1] * 2 + [2] * 4 + [3] * 2 + [4])
        found = side.prune(features, labels, smallest=2)
        assert found.sizes.tolist() == [6, 2, 4, 2, 1] and found.cohesion[:2].tolist() == pytest.approx([1, 1])
        assert found.cohesion[3] == pytest.approx(-1) and found.null < 0.5
        assert found.kept.tolist() == [True, True, True, False, False]  # opposite ones are looser than chance
        half = side.prune(features, labels, share=0.4)
        assert half.kept.tolist() == [True, False, True, False, False]  # 4 of .7 are worth more than 2 of 1
        assert half.labels.tolist() == [0] * 6 + [-1] * 2 + [1] * 4 + [-1] * 3
        assert str(half).startswith("2 of 5 clusters kept, 5 of 15 images dropped, median cosine of two ")
        assert side.prune(features, labels, smallest=1).kept.tolist() == [True, True, True, False, True]

    def test_the_surrogate_leaves_dropped_images_out(self):
        images = randn(5, 1, 2, 2)
        flags = torch.tensor([True, False, True])
        clusters = side.Clusters(torch.tensor([0, -1, 1, 1, -1]), torch.tensor([1, 2, 2]), torch.ones(3), 0.0, flags)
        given = side.cluster_labels(images, clusters)
        assert torch.equal(given.images, images[[0, 2, 3]])
        assert given.targets.tolist() == [[1, 0], [0, 1], [0, 1]] and given.targets.dtype == images.dtype

    def test_refusals(self):
        features = randn(50, 4)
        for k in (1, 51):
            with pytest.raises(Refused, match="give 2 to 50"):
                side.cluster(features, k)
        for share in (0.0, 1.01):
            with pytest.raises(Refused, match=r"lies in \(0, 1\]"):
                side.cluster(features, 5, share)
        with pytest.raises(Refused, match="keep a larger share"):
            side.cluster(features, 5, 0.2)


class TestWhatAnArmSees:
    """No function takes more than its arm may see, and what is not taken changes nothing."""

    def world(self):
        members, labels = randn(30, 4), torch.arange(30) % 3
        generated = members[torch.arange(200) % 30] + 0.1 * randn(200, 4, seed=1)
        return members, labels, generated

    def surrogate_of(self, arm, members, labels, generated):
        """The surrogate of an arm, with all that the arm may do to the members done."""
        if arm == "CL-TD":
            return side.cluster_labels(generated, side.cluster(generated, 6))
        if arm == "RL-TD":
            return side.random_labels(generated, 6, generator())
        if arm == "RL-TD (oracle)":
            return side.training_indices(members)
        if arm == "RL-TD (training)":
            labels = torch.arange(len(members))
        teacher = side.teach(student(int(labels.max()) + 1, 4, time=False), members, labels, 10)
        return side.teacher_labels(teacher, generated, arm)

    def distilled(self, given):
        net = side.distil(student(given.targets.shape[1], 4, time="TI" not in given.arm), given, 10)
        return torch.nn.utils.parameters_to_vector(net.parameters())

    def test_members_are_no_argument_of_an_arm_that_may_not_see_them(self):
        functions = {name: f for name in side.__all__ if inspect.isfunction(f := getattr(side, name))}
        takes = {name: set(inspect.signature(f).parameters) for name, f in functions.items()}
        assert {f for f, names in takes.items() if "members" in names} == {"training_indices"}
        assert {f for f, names in takes.items() if "teacher" in names} == {"teach", "teacher_labels"}
        assert takes["cluster_labels"] == {"generated", "clusters", "arm"}
        assert takes["random_labels"] == {"generated", "classes", "generator"}
        assert takes["tdkd"] == {"logits", "targets", "temperature"}
        assert not {"images", "members", "teacher", "generated"} & (takes["distil"] | takes["cluster"])

    @pytest.mark.parametrize("arm", ["CL-TD", "RL-TD"])
    def test_an_arm_that_sees_nothing_works_on_poisoned_members(self, arm):
        members, labels, generated = self.world()
        clean = self.distilled(self.surrogate_of(arm, members, labels, generated))
        members.fill_(math.nan)
        labels.fill_(-1)
        given = self.surrogate_of(arm, members, labels, generated)
        assert given.arm == arm and given.sees == "nothing" and torch.equal(self.distilled(given), clean)

    @pytest.mark.parametrize("arm", ["OL-TD", "OL-TI", "RL-TD (training)"])
    def test_distillation_touches_no_training_image(self, arm):
        members, labels, generated = self.world()
        given = self.surrogate_of(arm, members, labels, generated)
        clean = self.distilled(given)
        members.fill_(math.nan)
        labels.fill_(-1)
        assert given.arm == arm and given.sees.startswith("training images")
        assert torch.equal(given.images, generated) and torch.equal(self.distilled(given), clean)

    def test_the_poison_works(self):
        members, labels, generated = self.world()
        given = self.surrogate_of("RL-TD (oracle)", members, labels, generated)
        assert given.sees == "training images, themselves" and torch.equal(given.targets, torch.eye(30).double())
        members.fill_(math.nan)
        with pytest.raises(train.Diverged):
            self.distilled(given)

    def test_random_labels_are_uniform_and_know_nothing(self):
        given = side.random_labels(randn(3000, 4), 3, generator())
        counts = given.targets.sum(0)
        assert torch.equal(given.targets.sum(1), torch.ones(3000).double()) and (counts - 1000).abs().max() < 100
        again = side.random_labels(randn(3000, 4, seed=5), 3, generator())
        assert torch.equal(given.targets, again.targets)


def test_guidance_on_a_finite_set_is_judged_by_its_own_bayes_classifier():
    """The exact posterior of three labelled points agrees perfectly at every level; its negation points away."""
    g = torch.Generator().manual_seed(0)
    points, labels = torch.randn(12, 3, generator=g, dtype=torch.float64), torch.arange(12) % 3

    def exact(x, sigma):
        inside = Empirical(points).posterior(x, sigma)
        return torch.stack([inside[:, labels == label].sum(1) for label in range(3)], 1).log()

    levels = [0.4, 1.0, 3.0]
    for found in side.agreement_on_points(exact, points, labels, levels, noise.seeded(range(12))):
        assert found.cosine > 1 - 1e-6 and abs(found.length - 1) < 1e-6
    away = side.agreement_on_points(lambda x, s: -exact(x, s), points, labels, levels, noise.seeded(range(12)))
    for found in away:
        assert found.cosine < 0.9
