"""Curves and galleries: the pictures are there, and the numbers beside them are those of an evaluation."""

import csv

import matplotlib.image
import numpy as np
import pytest

from keras_robust.analysis import accuracy_curve, gallery, sweep
from keras_robust.attacks import PGD, classify
from keras_robust.errors import InputError
from keras_robust.evaluation import Report, evaluate

ATTACK = PGD(eps=0.1, steps=3)


@pytest.fixture
def two(digits_classifier, linear):
    """A classifier, and one that always says 3."""
    constant = linear(np.zeros((64, 10), "float32"), (8, 8, 1), 5 * np.eye(10, dtype="float32")[3])
    return {"ridge": digits_classifier, "three": constant}


@pytest.fixture
def few(digits):
    images, labels = digits
    return images[:40], labels[:40]


def test_a_curve_has_the_numbers_of_an_evaluation_at_each_radius(two, few, tmp_path):
    radii = [0.0, 0.05, 0.15]
    curve = accuracy_curve(two, few, ATTACK, radii, seed=4)
    path = curve.to_png(tmp_path / "new" / "curve.png")
    header, *rows = csv.reader((tmp_path / "new" / "curve.csv").open())
    assert header == ["eps", "ridge", "three"] and [float(row[0]) for row in rows] == radii
    for row, eps in zip(rows, radii, strict=True):
        for value, model in zip(row[1:], two.values(), strict=True):
            attack = PGD(eps=eps, steps=3)
            report = evaluate(model, few, {"attack": attack}, eps=eps, seed=4, checks=False, progress=False)
            assert float(value) == report.accuracy["attack"]
    first, *_, last = rows
    clean = (classify(two["ridge"], few[0]) == few[1]).mean()
    assert float(first[1]) == pytest.approx(100 * clean) and float(last[1]) < float(first[1])
    assert matplotlib.image.imread(path).std() > 0, "something is drawn"


def test_a_gallery_shows_what_each_model_makes_of_clean_and_attacked_images(two, few, tmp_path):
    images, labels = few[0][:4], few[1][:4]
    path = gallery(two, (images, labels), ATTACK, tmp_path / "pairs.png")
    rows = list(csv.DictReader((tmp_path / "pairs.csv").open()))
    assert len(rows) == 2 * 2 * 4
    for name, model in two.items():
        for kind, shown in {"clean": images, "attacked": ATTACK(model, images, labels)}.items():
            found = [row for row in rows if (row["model"], row["shown"]) == (name, kind)]
            assert [int(row["image"]) for row in found] == [0, 1, 2, 3]
            assert [int(row["label"]) for row in found] == labels.tolist()
            assert [int(row["prediction"]) for row in found] == classify(model, shown).tolist()
    assert matplotlib.image.imread(path).std() > 0, "something is drawn"


def test_a_gallery_of_colour_images(linear, tmp_path):
    model = linear(np.ones((48, 2), "float32"), (4, 4, 3))
    images = np.random.default_rng(0).random((2, 4, 4, 3), np.float32)
    path = gallery({"colour": model}, (images, np.array([0, 1])), ATTACK, tmp_path / "colour.png")
    pixels = matplotlib.image.imread(path)[..., :3]
    assert np.ptp(pixels, axis=-1).max() > 0.2, "in colour"


@pytest.mark.parametrize("name", ["picture.csv", "picture", "picture.pdf"])
def test_a_picture_that_is_no_png_is_refused_before_the_work(two, few, tmp_path, name):
    with pytest.raises(InputError, match=r"ends in \.png"):
        gallery(two, few, None, tmp_path / name)
    curve = accuracy_curve({"three": two["three"]}, few, ATTACK, [0.1])
    with pytest.raises(InputError, match=r"ends in \.png"):
        curve.to_png(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_the_curve_of_an_attack_is_against_its_own_norm(two, few):
    name, model = next(iter(two.items()))
    found = accuracy_curve({name: model}, few, PGD(eps=1.0, norm="l2", steps=3), [0.5]).accuracy[name]
    attack, asked = PGD(eps=0.5, norm="l2", steps=3), {"eps": 0.5, "norm": "l2", "progress": False}
    report = evaluate(model, few, {"a": attack}, checks=False, **asked)
    assert found == [report.accuracy["a"]]


def test_an_attack_in_another_norm_is_refused_before_any_is_made(two, few, monkeypatch):
    monkeypatch.setattr(PGD, "run", lambda *_, **__: pytest.fail("an attack was made"))
    with pytest.raises(InputError, match=r"ddn-2: an attack in another norm .* against linf eps"):
        sweep(next(iter(two.values())), few, ["pgd-2", "ddn-2"], [0.1], progress=False)


def test_a_sweep_is_what_evaluate_says_at_each_radius(two, few, tmp_path):
    model, radii = next(iter(two.values())), [0.0, 0.1]
    found = sweep(model, few, ["fgsm"], radii, directory=tmp_path, checks=True, progress=False)
    for place, eps in enumerate(radii):
        report = evaluate(model, few, ["fgsm"], eps=eps, progress=False)
        kept = Report.from_json(tmp_path / f"eps-{eps:g}" / "report.json")
        assert found.accuracy["fgsm"][place] == report.accuracy["fgsm"] == kept.accuracy["fgsm"]
        assert kept.probes == report.probes and bool(kept.probes) == (eps > 0)


def test_bad_radii_are_told(two, few):
    with pytest.raises(InputError, match="at least one eps"):
        accuracy_curve(two, few, ATTACK, [])
    with pytest.raises(InputError, match="eps must be a finite number >= 0"):
        accuracy_curve(two, few, ATTACK, [-0.1])
