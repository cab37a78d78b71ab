"""Measures of a study against what they are made of, on classifiers of digits from the zoo."""

import csv
import random
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

import keras_robust as kr
from keras_robust.attacks import classify
from keras_robust.studies.measures import Subject, measures

EXAMPLES = 60
THREAT = {"norm": "linf", "eps": 0.15, "step_size": 0.03}
PGD = {"name": "pgd-5", "loss": {"name": "margin"}}
BIM = {"name": "bim-5", "loss": {"name": "margin"}}  # no random start: one image does not depend on others


@pytest.fixture(scope="module")
def model():
    return kr.zoo.load("at_digits")


@pytest.fixture(scope="module")
def other():
    return kr.zoo.load("trades_digits")


def trades_by_way_of(**ways):
    """trades_digits, as if it were put before its classifier, another model."""
    loaded = kr.zoo.load("trades_digits")
    object.__setattr__(loaded, "ways_to_attack", lambda: ways)
    return loaded


@pytest.fixture
def subject(model, other, tmp_path):
    """at_digits, with trades_digits in the place of its variants."""
    shown = {
        "default": model,
        "other": trades_by_way_of(static=model),
        "with another gradient": trades_by_way_of(static=model, other=model),
    }
    return Subject(model, "digits", THREAT, EXAMPLES, 0, tmp_path, shown.__getitem__, False)


@pytest.fixture(scope="module")
def examples():
    return kr.data.load("digits", "test", EXAMPLES, 0)


def pgd():
    return kr.attacks.PGD(eps=0.15, step_size=0.03, steps=5, loss=kr.attacks.objectives["margin"]())


def right(model, images, labels):
    return classify(model, images) == labels


def test_a_variant_is_judged_by_each_protocol(subject, model, other, examples, tmp_path):
    images, labels = examples
    bim = kr.attacks.BIM(eps=0.15, step_size=0.03, steps=5, loss=kr.attacks.objectives["margin"]())
    on_default, on_variant = (bim(made_on, images, labels) for made_on in (model, other))
    clean = right(other, images, labels)
    grey, ends = right(other, on_default, labels), right(other, on_variant, labels)
    expected = {"grey_box": clean & grey, "end_to_end": clean & ends, "worst_case": clean & grey & ends}
    found = {name: measures["variant"](subject, "other", BIM, name) for name in expected}
    assert found == {name: pytest.approx(100 * stands.mean()) for name, stands in expected.items()}
    assert found["end_to_end"] < found["grey_box"] < 100
    # What an attack should try as well counts, end to end.
    elsewhere = replace(subject, directory=tmp_path / "elsewhere")
    both = measures["variant"](elsewhere, "with another gradient", BIM, "end_to_end")
    assert both == pytest.approx(100 * (clean & grey & ends).mean())
    assert measures["variant"](elsewhere, "other", "clean", "grey_box") == pytest.approx(100 * clean.mean())
    with pytest.raises(kr.InputError, match="Did you mean 'grey_box'"):
        measures["variant"](subject, "other", BIM, "gray_box")


def test_detection_is_a_row_of_the_table(subject, model, examples):
    guard = {"name": "kernel_density", "bandwidth": 1.0}
    fit, judge = kr.attacks.FGSM(eps=0.15), pgd()
    known = kr.data.load("digits", "train")
    attacks = {"fgsm": fit, "pgd": judge}
    guards = {"kd": kr.detection.detectors["kernel_density"](bandwidth=1.0)}
    table = kr.analysis.detection(model, examples, attacks, guards, training=known, seed=0)
    rows = {(row.fit_on, row.judged_on): row for row in table.found}
    take = partial(measures["detection"], subject, guard)
    assert take("roc_auc", PGD, "fgsm") == rows["fgsm", "pgd"].roc_auc
    assert take("acc_nadv", PGD, "fgsm") == rows["fgsm", "pgd"].metrics.acc_nadv
    assert take("acc_com", PGD) == rows["pgd", "pgd"].metrics.acc_com
    assert (subject.directory / "detection.csv").exists()


def test_every_detector_of_a_model_meets_the_same_images(subject, monkeypatch):
    attack, calls = pgd(), []

    def once(*arguments, **options):
        calls.append(options)
        return attack(*arguments, **options)

    monkeypatch.setattr("keras_robust.studies.detecting.attack_on", lambda *named: once)
    for bandwidth in (0.5, 1.0):
        guard = {"name": "kernel_density", "bandwidth": bandwidth}
        measures["detection"](subject, guard, "roc_auc", {"name": "pgd", "steps": 1})
    assert len(calls) == 1


def test_a_surface_is_the_share_of_the_plane_that_is_right(subject, model, examples):
    found = kr.analysis.loss_surface(model, examples, pgd(), spaces=["input"], seed=0)
    for shown in found.surfaces:
        share = 100 * (shown.prediction == shown.label).mean()
        assert measures["surface"](subject, PGD, shown.kind) == pytest.approx(share)
    assert {"clean", "successful", "failed"} == {shown.kind for shown in found.surfaces}


def test_a_latent_map_is_the_silhouette_of_its_clean_points(subject, model, examples):
    from sklearn.metrics import silhouette_score

    found = kr.analysis.latent_map(model, examples, pgd(), perplexity=EXAMPLES / 4, seed=0)
    clean = found.kind == "clean"
    expected = silhouette_score(found.points[clean], found.label[clean])
    assert measures["latent_map"](subject, PGD) == pytest.approx(expected)


def test_entropy_is_an_area_under_the_curve(subject, model, examples):
    from sklearn.metrics import roc_auc_score

    found = kr.analysis.prediction_entropy(model, examples, pgd(), seed=0)
    chosen = {"all": found.adversarial, "successful": found.adversarial[found.successful]}
    for against, values in chosen.items():
        truth = np.repeat([0, 1], [len(found.clean), len(values)])
        expected = roc_auc_score(truth, np.concatenate([found.clean, values]))
        assert measures["entropy"](subject, PGD, against) == pytest.approx(expected)


def test_match_rate_and_cosine_are_those_of_the_analysis(subject, model, examples):
    matched = kr.analysis.clusters(model, examples, pgd(), seed=0)
    assert measures["match_rate"](subject) == pytest.approx(matched.clean_match)
    assert measures["match_rate"](subject, PGD) == pytest.approx(matched.attacked_match)
    clean, attacked = kr.analysis.cosine_table(model, examples, pgd(), seed=0).summary()
    assert measures["cosine"](subject, statistic="std") == pytest.approx(clean[2])
    assert measures["cosine"](subject, PGD) == pytest.approx(attacked[1])


def test_points_are_judged_where_they_end_by_the_source_if_there_is_one(tmp_path):
    moons = kr.data.load("two_moons", "test", EXAMPLES, 0)
    mine, judge = (kr.models.build("mlp", hidden=(4,)) for _ in range(2))
    threat = {"norm": "linf", "eps": 0.1, "step_size": 0.02}
    shifted = SimpleNamespace(transform=lambda points: np.minimum(points + 0.2, 1.0))
    both = [
        Subject(model, "two_moons", threat, EXAMPLES, 0, tmp_path, {"shifted": shifted}.__getitem__, False)
        for model in (mine, judge)
    ]
    moved = kr.attacks.PGD(eps=0.1, step_size=0.02, steps=5)(mine, *moons, seed=0)

    def share(model, points):
        return pytest.approx(100 * right(model, points, moons.labels).mean())

    measure = measures["plane"]
    assert measure(both[0]) == share(mine, moons.images)
    assert measure(both[0], attack="pgd-5") == share(mine, moved)
    assert measure(*both, attack="pgd-5") == share(judge, moved)
    assert measure(both[0], attack="pgd-5", variant="shifted") == share(mine, shifted.transform(moved))
    rows = list(csv.DictReader((tmp_path / "plane.csv").open()))
    points = [row for row in rows if row["what"] == "point"]
    np.testing.assert_allclose([float(row["x"]) for row in points], moved[:, 0], rtol=1e-5)


@pytest.mark.parametrize(
    ("measure", "options", "nearest"),
    [
        ("distance", {"attack": "ddn-2", "measured": "linff"}, "linf"),
        ("distance", {"attack": "ddn-2", "statistic": "meen"}, "mean"),
        ("surface", {"attack": PGD, "around": "clear"}, "clean"),
        ("latent_map", {"attack": PGD, "show": "succesful"}, "successful"),
        ("entropy", {"attack": PGD, "against": "succesful"}, "successful"),
    ],
)
def test_a_mistyped_option_is_told_before_an_attack_is_made(subject, monkeypatch, measure, options, nearest):
    for name in ("PGD", "DDN"):
        attack = getattr(kr.attacks, name)
        monkeypatch.setattr(attack, "run", lambda *_, **__: pytest.fail("an attack was made"))
    with pytest.raises(kr.InputError, match=f"Did you mean .*'{nearest}'"):
        measures[measure](subject, **options)


def test_the_discriminator_beside_a_model_is_a_loss(tmp_path):
    random.seed(0)  # the judge's units can all be dead at the points
    model = kr.models.build("mlp", hidden=(4,))
    judge = kr.models.build_discriminator("residual_mlp", (4,), width=8)
    object.__setattr__(model, "companions", {"discriminator": judge})
    threat = {"norm": "linf", "eps": 0.1, "step_size": 0.1}
    subject = Subject(model, "two_moons", threat, EXAMPLES, 0, tmp_path, {}.__getitem__, False)
    moons = kr.data.load("two_moons", "test", EXAMPLES, 0)
    loss = kr.attacks.separation.Separation(judge, "latent")
    moved = kr.attacks.FGSM(eps=0.1, loss=loss)(model, *moons)
    found = measures["accuracy"](subject, {"name": "fgsm", "loss": {"name": "separation", "on": "latent"}})
    assert found == pytest.approx(100 * (right(model, moved, moons.labels) & right(model, *moons)).mean())
    for bad, said in (({"name": "separation", "at": "latent"}, "at"), ({"name": "separatoin"}, "separatoin")):
        with pytest.raises(kr.InputError, match=said):
            measures["accuracy"](subject, {"name": "pgd-1", "loss": bad})
