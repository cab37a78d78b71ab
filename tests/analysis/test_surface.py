"""Loss surfaces: closed forms on linear models, which examples are taken, and what is said of the others."""

import csv

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax

from keras_robust.analysis import loss_surface
from keras_robust.analysis.surface import orthogonal_signs
from keras_robust.attacks import FGSM, classify
from keras_robust.errors import InputError
from keras_robust.models import split

EPS = 0.1


@pytest.fixture(scope="module")
def classifier(digits_classifier):
    return split(digits_classifier, at=digits_classifier.layers[0])


@pytest.fixture(scope="module")
def few(digits):
    return digits[0][:60], digits[1][:60]


def cross_entropy(points, weights, bias, label):
    return -log_softmax(points @ weights.astype(float) + bias, axis=-1)[..., label]


# The numbers


@pytest.mark.parametrize("space", ["input", "latent"])
def test_on_a_linear_model_the_surface_has_a_closed_form(space, classifier, few):
    """The latent is the image itself as a row, so that both spaces differ only in the radius."""
    images, labels = few
    weights, bias = classifier.get_weights()
    found = loss_surface(classifier, few, FGSM(eps=EPS), spaces=[space], points=5)
    assert [at.kind for at in found.surfaces] == ["clean", "successful", "failed"]
    adversarial = FGSM(eps=EPS)(classifier, images, labels)
    for at in found.surfaces:
        point = (images if at.kind == "clean" else adversarial)[at.index].ravel().astype(float)
        radius = EPS if space == "input" else EPS * np.abs(point).mean()
        np.testing.assert_allclose(at.offsets, np.linspace(-radius, radius, 5), rtol=1e-6)
        probabilities = np.exp(log_softmax(point @ weights + bias))
        first = np.sign((weights * (probabilities - np.eye(10)[at.label])).sum(axis=1))
        along = point + at.offsets[:, None] * first
        expected = cross_entropy(along, weights, bias, at.label)
        np.testing.assert_allclose(at.loss[:, 2], expected, rtol=1e-3, atol=1e-5)
        assert (at.prediction[:, 2] == (along @ weights + bias).argmax(axis=1)).all()
        assert at.loss[-1, 2] > at.loss[0, 2], "it rises along the gradient"
        second = orthogonal_signs(first.astype("float32"), np.random.default_rng(0))
        across = point + at.offsets[:, None] * second
        expected = cross_entropy(across, weights, bias, at.label)
        np.testing.assert_allclose(at.loss[2], expected, rtol=1e-3, atol=1e-5)


def test_each_kind_is_what_it_is_called(classifier, few):
    images, labels = few
    found = loss_surface(classifier, few, FGSM(eps=EPS), points=3)
    clean = classify(classifier, images) == labels
    attacked = classify(classifier, FGSM(eps=EPS)(classifier, images, labels)) == labels
    firsts = {"clean": clean, "successful": clean & ~attacked, "failed": clean & attacked}
    assert {at.space for at in found.surfaces} == {"input", "latent"}
    for at in found.surfaces:
        assert at.index == np.flatnonzero(firsts[at.kind])[0] and at.label == labels[at.index]
        assert (at.prediction[1, 1] == at.label) == (at.kind != "successful")


def test_the_seed_draws_the_second_axis(classifier, few):
    def off_axis(**options):
        return loss_surface(classifier, few, FGSM(eps=EPS), points=3, **options).surfaces[0].loss[:, 0]

    for second in ("orthogonal", "rademacher"):
        np.testing.assert_array_equal(off_axis(second=second), off_axis(second=second))
        assert (off_axis(second=second) != off_axis(second=second, seed=1)).any()
    assert (off_axis() != off_axis(second="rademacher")).any()


def test_in_l2_the_axes_have_unit_length(classifier, few):
    attack = FGSM(eps=0.5, norm="l2")
    at, *_ = loss_surface(classifier, few, attack, spaces=["input"], points=3).surfaces
    weights, bias = classifier.get_weights()
    point = few[0][at.index].ravel().astype(float)
    probabilities = np.exp(log_softmax(point @ weights + bias))
    first = np.sign((weights * (probabilities - np.eye(10)[at.label])).sum(axis=1))
    end = point + 0.5 * first / np.linalg.norm(first)
    assert at.loss[2, 1] == pytest.approx(cross_entropy(end, weights, bias, at.label), rel=1e-3)
    second = orthogonal_signs(first.astype("float32"), np.random.default_rng(0))
    end = point + 0.5 * second / np.linalg.norm(second)
    assert at.loss[1, 2] == pytest.approx(cross_entropy(end, weights, bias, at.label), rel=1e-3)


@given(st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=60), st.integers(0, 2**32))
def test_the_second_axis_is_orthogonal_and_of_signs(signs, seed):
    signs = np.array(signs, "float32")
    drawn = orthogonal_signs(signs, np.random.default_rng(seed))
    assert signs @ drawn == 0
    assert set(np.abs(drawn)) <= {0, 1} and (drawn == 0).sum() == np.count_nonzero(signs) % 2


# What is missing is said


def test_images_without_attack_give_no_successful_example(classifier, few):
    found = loss_surface(classifier, few, few[0], eps=EPS, points=3)
    assert {at.kind for at in found.surfaces} == {"clean", "failed"}
    assert found.notes == ["There is no successful adversarial example among 60: not drawn."]


def test_a_model_without_latent_is_looked_at_in_the_input(digits_classifier, few, tmp_path):
    found = loss_surface(digits_classifier, few, FGSM(eps=1.0), points=3)
    assert {at.space for at in found.surfaces} == {"input"}
    assert any("keras_robust.models.split" in note for note in found.notes)
    assert any("no failed" in note for note in found.notes)
    with pytest.raises(InputError, match=r"keras_robust\.models\.split"):
        loss_surface(digits_classifier, few, FGSM(eps=EPS), spaces=["latent"])


def test_a_zero_gradient_is_told(linear, few):
    constant = linear(np.zeros((64, 10), "float32"), (8, 8, 1), 5 * np.eye(10, dtype="float32")[few[1][0]])
    found = loss_surface(constant, few, FGSM(eps=EPS), points=3)
    assert any("is zero in the input" in note for note in found.notes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"points": 4}, "odd integer >= 3"),
        ({"eps": 0.0}, "finite number > 0"),
        ({"spaces": ["pixels"]}, "Unknown space: 'pixels'"),
        ({"spaces": []}, "at least one space"),
        ({"second": "random"}, "Unknown second axis: 'random'"),
    ],
)
def test_bad_options_are_told(classifier, few, options, words):
    with pytest.raises(InputError, match=words):
        loss_surface(classifier, few, FGSM(eps=EPS), **options)


def test_nothing_is_drawn_of_a_model_that_is_always_wrong(classifier, few):
    wrong = (few[1] + 1) % 10
    with pytest.raises(InputError, match="None of 60 examples is classified rightly"):
        loss_surface(classifier, (few[0][:60], np.where(wrong == few[1], 0, wrong)), few[0], eps=EPS)


# The files


def test_it_writes_a_picture_and_its_numbers(classifier, few, tmp_path):
    found = loss_surface(classifier, few, FGSM(eps=EPS), points=3)
    path = found.to_png(tmp_path / "new" / "surface.png")
    assert matplotlib.image.imread(path).std() > 0, "something is drawn"
    rows = list(csv.DictReader((tmp_path / "new" / "surface.csv").open()))
    assert len(rows) == 6 * 9
    at = found.surfaces[0]
    mine = [row for row in rows if (row["space"], row["kind"]) == (at.space, at.kind)]
    np.testing.assert_allclose([float(row["loss"]) for row in mine], at.loss.ravel(), rtol=1e-6)
