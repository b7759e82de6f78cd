"""The audit of networks that were trained until they memorize, and of one before training.

One is trained by diffusers alone on 60 drawn images of 8 pixels, 5 of them planted seven times; the other, which knows
no classes, on 100 digits.
"""

from copy import deepcopy

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from torch.nn import functional as F

from memlib import data, losses, nets, noise, train
from memlib.audit import Model, audit
from memlib.audit.extraction import judged
from memlib.denoiser import pair

DRAWN = F.avg_pool2d(data.load("faces:n=260,seed=3", 16).images, 2)  # drawn by the library
TRAIN, HELD_OUT = torch.cat([DRAWN[:60], DRAWN[:5].repeat(6, 1, 1, 1)]), DRAWN[60:]
PLANTED = {*range(5), *range(60, 90)}
STEPS = 700


def collected(images):
    return data.collect(images, torch.zeros(len(images), dtype=torch.int64), ("",), "drawn")


def by_diffusers(net, scheduler):
    """The loop of diffusers' own tutorial: nothing of this library."""
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(net.parameters())
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=STEPS)
    net.train()
    for _ in range(STEPS):
        x0 = TRAIN[torch.randint(len(TRAIN), (32,), generator=generator)]
        noise = torch.randn(x0.shape, generator=generator)
        t = torch.randint(scheduler.config.num_train_timesteps, (len(x0),), generator=generator)
        loss = F.mse_loss(net(scheduler.add_noise(x0, noise, t), t).sample, x0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rates.step()
    net.eval()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The folders of the network before and after training."""
    root = tmp_path_factory.mktemp("models")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = UNet2DModel(
            8, 3, 3, block_out_channels=(16, 32), norm_num_groups=8, layers_per_block=1, add_attention=False,
            down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
        )  # fmt: skip
    scheduler = DDPMScheduler(200, beta_schedule="squaredcos_cap_v2", prediction_type="sample", clip_sample=False)
    DDPMPipeline(net, scheduler).save_pretrained(root / "before")
    by_diffusers(net, scheduler)
    DDPMPipeline(net, scheduler).save_pretrained(root / "after")
    return root


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEMLIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def audited(model, **options):
    sets = collected(TRAIN), collected(HELD_OUT)
    return audit(model, *sets, None, steps=20, descriptor="pixels", **options)


def test_what_it_memorized_is_found_and_the_planted_images_are_ranked_first(models):
    report = audited(models / "after", samples=200)
    found, told = report.copies, report.verdict.text
    assert report.data.exact == 30 and "30 of 90 training images repeat another one" in told
    # More samples copy a training image than held-out images pass.
    assert report.verdict.copies and found.copies.interval()[0] > found.control.interval()[1]
    assert "Training images can be obtained by queries" in told
    copied = [row for row in report.rows() if row["samples"]]
    assert copied and {row["number"] for row in copied} <= PLANTED
    assert report.members.auc[1][0] > 0.5 and "as a whole the set is recognised" in told


def test_before_training_there_is_nothing_and_the_report_says_so(models):
    report = audited(models / "before", samples=50)
    assert report.data.exact == 30  # of the images, not of the model
    assert report.copies.copies.k == 0 and not report.verdict.copies and "No copy was found" in report.verdict.text
    low, high = report.members.auc[1]
    assert low < 0.5 < high and "as a whole the set is not recognised" in report.verdict.text


def test_guidance_brings_out_more_distinct_images_than_as_many_plain_samples():
    """A network without classes, whose own samples are clustered: no label of a training image is used."""
    parts = data.split(data.load("digits"), {"members": 100, "others": 600})
    members = parts["members"].images
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nets.Preconditioned(nets.ResidualMLP((1, 8, 8), width=128), float(members.std()))
    ema = deepcopy(net)

    def loss(net, generator):
        x0 = members[torch.randint(len(members), (128,), generator=generator)]
        sigma = noise.lognormal(len(x0), -1.2, 1.2, generator)
        return losses.denoising(*pair(net, x0, sigma, noise.noise_from(generator)), net.weight(sigma)).mean()

    train.train(net, loss, steps=1500, lr=3e-3, ema=ema, decay=0.995)
    model = Model(ema, (1, 8, 8), noise.karras(18, 0.02, 20))
    report = audit(model, parts["members"], parts["others"], None, descriptor="pixels", extract=True)
    guided = report.extraction
    assert guided.arm == "CL-TD" and guided.copies.n == guided.unguided.n == 200
    assert guided.more[1][0] > 0 and guided.distinct > guided.unguided_distinct
    assert guided.copies.interval()[0] > guided.unguided.interval()[1]
    assert "guidance finds more" in report.verdict.text


class TestChoice:
    """The weight of guidance is chosen on one half of the starts and counted on the other."""

    def test_a_better_weight_is_found_and_the_gain_has_an_interval(self):
        plain = torch.arange(100) % 2 - 1  # 50 copies of one image
        hits = torch.stack([plain, torch.full((100,), -1), torch.arange(100)])
        found = judged(hits, (0.0, 1.0, 2.0))
        assert found.weights == (2.0, 2.0) and found.copies.k == found.distinct == 100
        assert found.unguided.k == 50 and found.unguided_distinct == 1 and found.rates == [0.5, 0.0, 1.0]
        assert found.more[0] == 99 and found.more[1][0] > 0

    def test_on_pure_noise_the_best_of_many_weights_seldom_shows_a_gain(self):
        generator, gained = torch.Generator().manual_seed(0), 0
        for _ in range(200):
            hits = torch.randint(-40, 40, (9, 100), generator=generator).clamp_min(-1)
            gained += judged(hits, (0.0, *range(1, 9))).more[1][0] > 0
        assert gained <= 10  # 2.5 % each
