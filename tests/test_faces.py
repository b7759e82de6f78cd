"""Faces: drawn ones, whose making is known and is found again in the pixels; photographs through scikit-learn."""

import pickle
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import multivariate_normal, norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from memlib import data
from memlib.data import faces
from memlib.data.portrait import render
from memlib.errors import Refused


def test_form():
    drawn = data.load("faces:n=60")
    assert drawn.images.shape == (60, 3, 32, 32) and drawn.images.dtype == torch.float32
    assert drawn.names[:2] == ("person 0", "person 1") and len(drawn.names) == 200
    assert drawn.images.min() < -0.8 and drawn.images.max() > 0.8
    levels = (drawn.images + 1) * 127.5
    assert torch.allclose(levels, levels.round(), atol=1e-4)  # as if read from 8-bit files
    assert (drawn.images[:, 0] != drawn.images[:, 2]).float().mean() > 0.5  # coloured
    for size in (16, 21, 128):
        assert data.load("faces:n=2", size).images.shape == (2, 3, size, size)
    assert len(data.load("faces", 16)) == 4000


def test_the_number_is_the_name_of_an_image():
    many = faces.draw(130, 17)  # drawn in three batches
    assert faces.draw(130, 17).fingerprint == many.fingerprint
    for first, n in ((0, 1), (55, 3), (129, 1)):
        alone = faces.draw(n, 17, first=first)
        assert torch.equal(alone.images, many.images[first : first + n])
        assert torch.equal(alone.labels, many.labels[first : first + n])
    assert len({image.numpy().tobytes() for image in many.images}) == 130
    assert not torch.equal(faces.draw(5, 17, seed=1).images, many.images[:5])
    person, moment = (faces._uniform(3, stream, 0, 500, 8) for stream in (1, 2))
    assert abs(np.corrcoef(person.ravel(), moment.ravel())[0, 1]) < 0.07  # two streams, 4 s.d.


def test_a_source_says_how_to_draw_it_again():
    for source in ("faces:beard,n=9,seed=3,first=2000,identities=7", "faces:first=4,n=3", "faces:n=5,identities=3"):
        drawn = data.load(source, 16)
        assert data.load(drawn.source, 16).fingerprint == drawn.fingerprint
    assert data.load("faces:hat,n=9").labels.tolist() == faces.factors(9)["hat"].tolist()
    assert data.load("faces:hat,n=9").names == ("no hat", "hat")


def test_traits_correlate_as_their_causes_say():
    """Over many people, against the closed form of a linear model; attributes through the bivariate normal."""
    n = 40_000
    drawn = faces.factors(n, seed=5, identities=n)
    names, wanted = faces.correlations()
    plain = [i for i, name in enumerate(names) if name not in faces.ATTRIBUTES]
    values = np.stack([drawn[names[i]].numpy() for i in plain])
    assert np.abs(values.mean(1)).max() < 0.04 and np.abs(values.std(1) - 1).max() < 0.03
    assert np.abs(np.corrcoef(values) - wanted[plain][:, plain].numpy()).max() < 0.04
    assert torch.linalg.eigvalsh(wanted).min() > 0
    for name, fraction in faces.ATTRIBUTES.items():
        assert drawn[name].double().mean().item() == pytest.approx(fraction, abs=0.012)
    for one, other in (("bangs", "earrings"), ("beard", "earrings"), ("bangs", "eyeglasses"), ("hat", "smiling")):
        rho = wanted[names.index(one), names.index(other)].item()
        cuts = [norm.ppf(faces.ATTRIBUTES[name]) for name in (one, other)]
        both = multivariate_normal.cdf(cuts, cov=[[1, rho], [rho, 1]])
        assert (drawn[one] * drawn[other]).double().mean().item() == pytest.approx(both, abs=0.008)
    sign = {
        pair: np.corrcoef(drawn[pair[0]], drawn[pair[1]])[0, 1]
        for pair in (("grey", "eyeglasses"), ("light", "hat"), ("beard", "hair_length"), ("expression", "smiling"))
    }
    assert sign["grey", "eyeglasses"] > 0.3 and sign["light", "hat"] > 0.2
    assert sign["beard", "hair_length"] < -0.2 and sign["expression", "smiling"] > 0.3


def test_a_person_stays_the_same_and_a_moment_does_not():
    drawn = faces.factors(10_000, identities=100)
    who = drawn["identity"]
    assert who.bincount(minlength=100).min() > 50

    def kept(name):
        """The fraction of a trait's variance that lies between people."""
        value = drawn[name].double()
        within = torch.stack([value[who == i].var() for i in range(100)]).mean()
        return 1 - (within / value.var()).item()

    assert kept("grey") == pytest.approx(1) and kept("jaw") == pytest.approx(1)
    assert abs(kept("turn")) < 0.01 and abs(kept("light")) < 0.01
    assert 0.3 < kept("bangs") < 0.9 and 0.05 < kept("hat") < 0.5  # an attribute is a habit, not the person


@pytest.mark.parametrize(
    ("attribute", "rows"),
    [("bangs", (12, 46)), ("smiling", (20, 58)), ("eyeglasses", (20, 44)), ("hat", (0, 30)), ("beard", (24, 62)),
     ("earrings", (32, 54))],
)  # fmt: skip
def test_an_attribute_shows_where_it_belongs(attribute, rows):
    """The same face with and without it differs there and nowhere else."""
    traits = faces.factors(40, seed=2)
    for other in faces.ATTRIBUTES:
        traits[other] = torch.zeros(40, dtype=torch.int64)
    without, with_it = (render({**traits, attribute: torch.full((40,), on)}, 64) for on in (0, 1))
    moved = (without - with_it).abs().amax(1)  # (40, 64, 64)
    assert (moved.amax((1, 2)) > 0.15).all()  # in every face
    outside = moved.clone()
    outside[:, rows[0] : rows[1]] = 0
    assert outside.max() == 0
    assert 0.01 < (moved > 0.02).float().mean() < 0.35


@pytest.fixture(scope="module")
def drawn():
    """Training faces and fresh ones at 32 px, as numpy rows, with their factors."""
    traits = [faces.factors(n, first=first) for n, first in ((2000, 0), (1000, 2000))]
    return [(render(t, 32).flatten(1).numpy(), t) for t in traits]


def read(train, labels, test):
    return LogisticRegression(C=1e-3, max_iter=100, tol=1e-2).fit(train, labels).decision_function(test)


@pytest.mark.parametrize("attribute", faces.ATTRIBUTES)
def test_a_linear_classifier_reads_each_attribute(drawn, attribute):
    (train, have), (fresh, wanted) = drawn
    assert roc_auc_score(wanted[attribute], read(train, have[attribute], fresh)) > 0.9


def test_fresh_faces_are_of_the_same_distribution(drawn):
    (train, _), (fresh, _) = drawn
    odd = np.arange(2000) % 2 == 1
    both, which = np.concatenate((train[:1000], fresh)), np.repeat([0, 1], 1000)
    assert abs(roc_auc_score(which[odd], read(both[~odd], which[~odd], both[odd])) - 0.5) < 0.07  # 4 s.d.
    two = np.concatenate([faces.draw(300, 16, seed=s, identities=2).images.flatten(1).numpy() for s in (0, 1)])
    odd, which = np.arange(600) % 2 == 1, np.repeat([0, 1], 300)
    assert roc_auc_score(which[odd], read(two[~odd], which[~odd], two[odd])) > 0.75  # other people would be noticed


def test_people_are_recognised_and_not_repeated(drawn):
    (train, have), (fresh, wanted) = (drawn[0], drawn[1])
    distance = torch.cdist(torch.tensor(fresh), torch.tensor(train)) / train.shape[1] ** 0.5
    nearest, where = distance.min(1)
    right = (have["identity"][where] == wanted["identity"]).float().mean()
    assert 0.2 < right < 0.9  # chance is 0.005
    assert nearest.min() > 0.05  # in [-1, 1]: no copy of a training face is among the fresh ones


def test_sizes_show_the_same_faces():
    for small, large in ((16, 32), (32, 64), (64, 128)):
        one, other = (faces.draw(20, size).images for size in (small, large))
        assert (torch.nn.functional.avg_pool2d(other, 2) - one).abs().mean() < 0.012


@pytest.mark.parametrize(
    ("source", "size", "said"),
    [
        ("faces", 8, "16 to 128 pixels wide, not 8"),
        ("faces", 129, "not 129"),
        ("faces:bang", None, "no label 'bang'.*identity, bangs"),
        ("faces:bangs,hat", None, "no label 'bangs,hat'"),
        ("faces:N=3", None, "option 'N'"),
        ("faces:n=0", None, "n = 0"),
        ("faces:pair", None, "no label 'pair'"),
        ("faces:pair,pair=bangs", None, "no pair 'bangs'.*bangs\\+eyeglasses"),
        ("faces:pair,pair=hat+hat", None, "no pair 'hat\\+hat'"),
        ("faces:pair,pair=bangs+hat,alone=76", None, "alone = 76: give a percentage from 0 to 75"),
        ("faces:pose=101", None, "pose = 101"),
        ("faces:identities=0", None, "identities = 0"),
        ("olivetti:3", None, "without ':3'"),
        ("olivetti", 0, "0 pixels"),
        ("lfw:20", None, "without ':20', or .*lfw:fewest=20"),
        ("lfw", 0, "0 pixels"),
    ],
)
def test_what_a_user_may_do_wrong(source, size, said):
    with pytest.raises(Refused, match=said):
        data.load(source, size)


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"first": 2**63}, {"n": 0}])
def test_numbers_out_of_range(wrong):
    with pytest.raises(Refused, match=f"{next(iter(wrong))} = .*give"):
        faces.draw(**{"n": 2, **wrong})


@pytest.fixture
def home(tmp_path, monkeypatch):
    """scikit-learn's data folder, and no network."""

    def unreachable(*_, **__):
        raise OSError("the network is unreachable\nand more")

    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))
    monkeypatch.setattr("sklearn.datasets._olivetti_faces._fetch_remote", unreachable)
    monkeypatch.setattr("sklearn.datasets._lfw._fetch_remote", unreachable)
    return tmp_path


def test_olivetti_from_scikit_learns_own_file(home):
    levels = np.random.default_rng(0).integers(0, 256, (400, 64, 64), dtype=np.uint8)
    columns_first = levels.transpose(0, 2, 1).reshape(400, 4096)  # as in the MATLAB file
    (home / "olivetti_py3.pkz").write_bytes(zlib.compress(pickle.dumps(columns_first)))
    photographs = data.load("olivetti")
    assert photographs.images.shape == (400, 1, 64, 64) and photographs.source == "olivetti"
    np.testing.assert_allclose((photographs.images[:, 0].numpy() + 1) * 127.5, levels, atol=1e-4)
    assert photographs.labels.tolist() == [i // 10 for i in range(400)] and photographs.names[39] == "person 39"
    assert data.load("olivetti", 16).images.shape == (400, 1, 16, 16)


def test_lfw_from_scikit_learns_own_folder(home):
    for name, count in (("Ada_One", 1), ("Bea_Two", 2)):
        folder = home / "lfw_home" / "lfw_funneled" / name
        folder.mkdir(parents=True)
        for i in range(count):
            photograph = np.zeros((250, 250, 3), np.uint8)
            photograph[70:195, 63:188] = (200, 100, 50 + 100 * i)  # the part that is cut out
            Image.fromarray(photograph).save(folder / f"{name}_{i + 1:04}.jpg", quality=95)
    for text in ("pairsDevTrain.txt", "pairsDevTest.txt", "pairs.txt"):
        (home / "lfw_home" / text).touch()
    everyone = data.load("lfw")
    assert everyone.images.shape == (3, 3, 125, 125) and everyone.names == ("Ada One", "Bea Two")
    assert sorted(everyone.labels.tolist()) == [0, 1, 1]
    colours = (data.load("lfw", 16).images.mean((2, 3)) + 1) * 127.5
    np.testing.assert_allclose(colours[:, :2], [[200, 100]] * 3, atol=4)
    assert sorted(colours[:, 2].round().tolist()) == pytest.approx([50, 50, 150], abs=4)
    twice = data.load("lfw:fewest=2")
    assert twice.names == ("Bea Two",) and len(twice) == 2 and twice.source == "lfw:fewest=2"
    with pytest.raises(Refused, match="nobody in LFW has 3 images"):
        data.load("lfw:fewest=3")


@pytest.mark.parametrize("source", ["olivetti", "lfw"])
def test_without_a_network_one_sentence_says_where_to_put_the_file(home, source):
    with pytest.raises(Refused, match=rf"{home}.*\(the network is unreachable\).*SCIKIT_LEARN_DATA") as caught:
        data.load(source)
    assert "\n" not in str(caught.value)


def test_a_pair_of_attributes_is_drawn_apart_from_all_else():
    source = "faces:{},pair=bangs+eyeglasses,alone=70,pose=30,n=2000"
    pair, hats, smiles = (data.load(source.format(label), 16) for label in ("pair", "hat", "smiling"))
    assert pair.names == ("neither", "bangs", "eyeglasses", "bangs and eyeglasses")
    assert np.abs(np.bincount(pair.labels) / 2000 - [0.05, 0.35, 0.35, 0.25]).max() < 0.03
    assert torch.equal(pair.images, hats.images) and hats.names == ("no hat", "hat")
    for other in (hats, smiles):
        both = np.corrcoef(pair.labels == 3, other.labels)[0, 1]
        assert abs(both) < 0.07  # as people have them, glasses and hats go together
    later = faces.draw(5, 16, first=100, label="pair", pair="bangs+eyeglasses", alone=70, pose=30)
    assert torch.equal(later.images, pair.images[100:105]) and torch.equal(later.labels, pair.labels[100:105])


def test_heads_that_do_not_move_differ_in_all_but_pose():
    still, usual = (faces.draw(20, 16, pose=pose) for pose in (0, 100))
    assert torch.equal(still.labels, usual.labels) and not torch.equal(still.images, usual.images)
