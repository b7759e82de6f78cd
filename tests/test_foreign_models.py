"""The study of SIDE on somebody else's model, given by its folder: what fits is taken as it is, the rest refused."""

import dataclasses

import numpy as np
import pytest
from PIL import Image
from test_schedules import saved, unet

from memlib import noise
from memlib.errors import Refused
from memlib.papers.side.study import settings as scales
from memlib.papers.side.study.model import target_of
from memlib.papers.side.study.world import prepare
from memlib.run import Run

RUN = Run("foreign")


def images(folder, height, width, n=120):
    """Random images as PNG."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(n):
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return f"folder:{folder}"


def settings(model, data):
    return dataclasses.replace(scales.SCALES["fast"], model=str(model), data=data, n_train=20, latent=16)


def test_a_model_of_two_sides_takes_images_of_two_sides(tmp_path):
    saved(tmp_path / "m", net=unet(sample_size=(16, 24), in_channels=3, out_channels=3), clip_sample=False)
    world, foreign = prepare(settings(tmp_path / "m", images(tmp_path / "fit", 16, 24)), RUN)
    assert world.members.shape == (20, 3, 16, 24) and foreign.shape == (3, 16, 24)
    with pytest.raises(Refused, match=r"\(3, 16, 24\), data has \(3, 24, 24\): .* as files of 16 x 24 pixels"):
        prepare(settings(tmp_path / "m", images(tmp_path / "square", 24, 24)), RUN)


def test_the_grid_is_the_models_own(tmp_path):
    """Fifty levels, spaced as its scheduler says; a model of twenty steps gave its lowest level, fifty times."""
    data, net = images(tmp_path / "d", 8, 8), unet(in_channels=3, out_channels=3)
    for steps, n in ((100, 50), (20, 20)):
        folder = tmp_path / str(steps)
        saved(folder, net=net, num_train_timesteps=steps, clip_sample=False, timestep_spacing="trailing")
        chosen = settings(folder, data)
        world, foreign = prepare(chosen, RUN)
        sigmas = target_of(world, foreign, chosen, RUN).sigmas
        assert sigmas.tolist() == noise.discrete(foreign.alphas_cumprod, n, "trailing").tolist()


def test_a_class_conditional_model_is_refused_at_once(tmp_path):
    saved(tmp_path / "m", net=unet(in_channels=3, out_channels=3, num_class_embeds=4), clip_sample=False)
    with pytest.raises(Refused, match="wants a class label, and this study gives none"):
        prepare(settings(tmp_path / "m", "folder:nowhere"), RUN)
