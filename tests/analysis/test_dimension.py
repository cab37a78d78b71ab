"""Intrinsic dimension against the formula written out, and on data whose dimension is known."""

import csv

import matplotlib.image
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from keras_robust import data
from keras_robust.analysis import intrinsic_dimension
from keras_robust.errors import InputError


def direct(points, least, most):
    """Every average, neighbour by neighbour."""
    distances = np.sort(cdist(points, points), axis=1)[:, 1:]
    found = []
    for k in range(least, most + 1):
        sums = np.array([sum(np.log(row[k - 1] / row[j]) for j in range(k - 1)) for row in distances])
        found.append(((k - 2) / sums).mean())
        found += [1 / (sums / (k - 1)).mean(), 1 / (sums / (k - 2)).mean()]
    return np.array(found).reshape(-1, 3).T


@pytest.mark.parametrize("nearest", [(6, 12), (3, 3), (4, 20)])
def test_the_averages_equal_the_formula(nearest):
    images = data.load("digits", "train", examples=150, seed=0).images
    found = intrinsic_dimension(images, nearest=nearest)
    means, inverses, biased = direct(images.reshape(150, -1).astype(float), *nearest)
    np.testing.assert_allclose(found.means, means, atol=1e-6)
    np.testing.assert_allclose(found.inverse_means, inverses, atol=1e-6)
    assert found.levina_bickel == pytest.approx(means.mean(), abs=1e-6)
    assert found.mackay_ghahramani == pytest.approx(inverses.mean(), abs=1e-6)
    assert found.hub_toolbox == pytest.approx(biased.mean(), abs=1e-6)


@pytest.mark.parametrize("embedded", [False, True])
def test_a_gaussian_of_ten_dimensions(embedded):
    """Also where it lies in a space of thirty, turned."""
    random = np.random.default_rng(0)
    points = random.normal(size=(2000, 10))
    if embedded:
        points = points @ np.linalg.qr(random.normal(size=(30, 10)))[0].T
    found = intrinsic_dimension(points, examples=2000)
    assert abs(found.levina_bickel - 10) < 1 and abs(found.mackay_ghahramani - 10) < 1


def test_a_dataset_by_name_is_its_training_set():
    images = data.load("digits", "train").images
    by_name = intrinsic_dimension("digits", examples=200, seed=5)
    assert by_name.levina_bickel == pytest.approx(
        intrinsic_dimension(images, examples=200, seed=5).levina_bickel, abs=1e-6
    )
    assert by_name.points == 200 and intrinsic_dimension("digits", examples=10**6).points == len(images)


def test_scale_and_repetition_do_not_matter():
    points = np.random.default_rng(0).normal(size=(100, 3))
    expected = intrinsic_dimension(points).levina_bickel
    assert intrinsic_dimension(1e3 * points + 5).levina_bickel == pytest.approx(expected)
    assert intrinsic_dimension(np.repeat(points, 3, axis=0)).levina_bickel == pytest.approx(expected)


def test_it_writes_a_picture_and_its_numbers(tmp_path):
    found = intrinsic_dimension("digits", examples=100)
    path = found.to_png(tmp_path / "dimension.png")
    assert matplotlib.image.imread(path).std() > 0, "something is drawn"
    *rows, last = csv.DictReader((tmp_path / "dimension.csv").open())
    assert [int(row["neighbours"]) for row in rows] == list(range(6, 13))
    assert float(last["Levina-Bickel"]) == pytest.approx(found.levina_bickel)


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("digit", {}, "Unknown dataset: 'digit'. Did you mean 'digits'"),
        (np.zeros(20), {}, r"numbers \(N, ...\)"),
        (np.full((20, 2), "a"), {}, r"numbers \(N, ...\)"),
        (np.full((20, 2), np.nan), {}, "NaN or infinity"),
        (
            np.zeros((20, 2)),
            {},
            "More than 12 different points are needed",
        ),
        (np.eye(20), {}, "equally far"),
        ("digits", {"nearest": (2, 12)}, "3 <= k1 <= k2"),
        ("digits", {"examples": 0}, "examples must be an integer >= 1"),
    ],
)
def test_bad_input_is_told(source, options, words):
    with pytest.raises(InputError, match=words):
        intrinsic_dimension(source, **options)
