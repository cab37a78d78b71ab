"""The map of decisions in the plane, on a classifier whose boundary is a known line."""

import csv

import matplotlib.image
import numpy as np
import pytest

from keras_robust.analysis import decision_map
from keras_robust.attacks import FGSM
from keras_robust.errors import InputError

# Class 1 where x > y.
WEIGHTS = np.array([[0.0, 1.0], [1.0, 0.0]], "float32")


@pytest.fixture
def model(linear):
    return linear(WEIGHTS, (2,))


@pytest.fixture
def examples():
    points = np.array([[0.2, 0.6], [0.45, 0.5], [0.7, 0.3], [0.5, 0.2]], "float32")
    return points, np.array([0, 0, 1, 0])


def test_the_plane_is_divided_where_the_classifier_divides_it(model, examples):
    found = decision_map(model, examples, points=15)
    expected = found.x[:, None] > found.y[None, :]
    np.testing.assert_array_equal(found.prediction, expected)
    np.testing.assert_array_equal(found.start, found.end)
    assert found.accuracy == 75.0
    for axis, coordinates in enumerate((found.x, found.y)):
        assert coordinates[0] < examples[0][:, axis].min() and coordinates[-1] > examples[0][:, axis].max()


def test_points_end_where_the_attack_moves_them(model, examples):
    found = decision_map(model, examples, FGSM(eps=0.1), points=5)
    away = np.where(examples[1][:, None] == 0, [0.1, -0.1], [-0.1, 0.1])  # from the true side of the line
    np.testing.assert_allclose(found.end, examples[0] + away, atol=1e-6)
    assert found.predicted.tolist() == [0, 1, 1, 1] and found.accuracy == 50.0


def test_the_numbers_lie_beside_the_picture(model, examples, tmp_path):
    moved = examples[0] + 0.05
    found = decision_map(model, examples, moved, points=5)
    path = found.to_png(tmp_path / "plane.png")
    rows = list(csv.DictReader((tmp_path / "plane.csv").open()))
    lines, points = ([row for row in rows if row["what"] == what] for what in ("line", "point"))
    assert [*lines, *points] == rows and 5 < len(lines) < 10, "some of five lines cross the boundary"
    seen = {
        (np.float32(row["x"]), y): int(row["prediction"])
        for row in lines
        for y in found.y
        if row["x"] == row["to x"] and np.float32(row["y"]) <= y <= np.float32(row["to y"])
    }
    assert seen == {
        (x, y): found.prediction[i, j] for i, x in enumerate(found.x) for j, y in enumerate(found.y)
    }
    np.testing.assert_allclose([float(row["to x"]) for row in points], moved[:, 0])
    assert matplotlib.image.imread(path).std() > 0, "something is drawn"


def test_other_inputs_and_points_are_told(model, examples, conv_classifier):
    with pytest.raises(InputError, match=r"Only points in the plane.*\(8, 8, 1\)"):
        decision_map(conv_classifier, examples)
    with pytest.raises(InputError, match="one point for each of 4"):
        decision_map(model, examples, examples[0][:2])
    with pytest.raises(InputError, match="points must be an integer >= 2"):
        decision_map(model, examples, points=1)
