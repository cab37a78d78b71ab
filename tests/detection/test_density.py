"""Detectors by density and by local dimension: on toy data, against oracles, saved, served and attacked."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.neighbors import KernelDensity, NearestNeighbors

import keras_robust as kr
from keras_robust.attacks import PGD, Evasion, Goal, View
from keras_robust.detection import (
    ER2Detector,
    ERDetector,
    KernelDensityDetector,
    LIDDetector,
    detection_metrics,
    detectors,
    evade,
    load,
    matched_noise,
    save,
)
from keras_robust.detection.bandwidth import likeliest_bandwidth
from keras_robust.detection.density import DensityDetector
from keras_robust.detection.lid import local_dimension
from keras_robust.detection.logistic import log_odds
from keras_robust.errors import InputError
from keras_robust.models import LatentClassifier

ROOT = Path(__file__).resolve().parents[2]
rng = np.random.default_rng(0)
DENSITY = [name for name in detectors if issubclass(detectors[name], DensityDetector)]
LEARNING = [*DENSITY, "lid"]


def plane():
    """Two by two grey pixels whose latent is the image; the class is the brighter of the first two pixels."""
    encoder = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten()])
    head = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, use_bias=False)])
    head.layers[-1].set_weights([10 * np.eye(4, 2)])
    return LatentClassifier(encoder, head)


MODEL = plane()


def natural(count, seed=0):
    """Images near (0.9, 0.1, 0.5, 0.5) of class 0, and near (0.1, 0.9, 0.5, 0.5) of class 1."""
    draws = np.random.default_rng(seed)
    labels = draws.integers(0, 2, count)
    corners = np.array([[0.9, 0.1, 0.5, 0.5], [0.1, 0.9, 0.5, 0.5]])[labels]
    images = np.clip(corners + 0.03 * draws.normal(size=(count, 4)), 0, 1)
    return images.reshape(-1, 2, 2, 1).astype("float32"), labels


def foreign(count, seed=1):
    """Images around (0.5, 0.5, 0.5, 0.5), of neither class."""
    draws = np.random.default_rng(seed)
    return np.clip(0.5 + 0.05 * draws.normal(size=(count, 2, 2, 1)), 0, 1).astype("float32")


CLEAN, LABELS = natural(300)
FOREIGN = foreign(300)


@cache
def fitted(name):
    moved = 0.02 * np.random.default_rng(3).normal(size=CLEAN.shape)
    noisy = np.clip(CLEAN + moved, 0, 1).astype("float32")
    return detectors[name]().fit(MODEL, CLEAN, FOREIGN, noisy, LABELS, natural(400, seed=2))


@pytest.mark.parametrize("name", LEARNING)
def test_what_lies_elsewhere_is_detected(name):
    detector = fitted(name)
    clean, adversarial = natural(200, seed=5)[0], foreign(200, seed=6)
    assert detector.roc_auc(MODEL, clean, adversarial) > 0.99
    assert detector.predict(MODEL, adversarial).mean() > 0.95
    assert detector.predict(MODEL, clean).mean() < 0.05


def test_the_score_is_the_regression_of_the_density_in_the_predicted_class():
    codes, labels = natural(400, seed=2)
    detector = KernelDensityDetector(bandwidth=0.05).fit(MODEL, CLEAN, FOREIGN, None, LABELS, (codes, labels))
    codes = codes.reshape(400, 4)
    fits = [KernelDensity(bandwidth=0.05).fit(codes[labels == one]) for one in (0, 1)]

    def density(images):
        classes = np.asarray(MODEL(images)).argmax(axis=1)
        rows = images.reshape(len(images), 1, 4)
        return np.array([fits[one].score_samples(row)[0] for one, row in zip(classes, rows, strict=True)])

    found = detector.score(MODEL, FOREIGN)
    expected = detector._learnt["slope"] * density(FOREIGN) + detector._learnt["offset"]
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-2)
    assert detector._learnt["slope"] < 0


@pytest.mark.parametrize("tuned", [False, True])
def test_log_odds_are_those_of_scikit_learn(tuned):
    other, adversarial = rng.normal(size=(80, 3)), rng.normal(1.0, 2.0, size=(60, 3))
    weights, offset = log_odds(other, adversarial, tuned=tuned)
    points = rng.normal(size=(30, 3))
    both, truth = np.concatenate([other, adversarial]), np.repeat([0, 1], [80, 60])
    scale = both.std(axis=0)
    tuning = LogisticRegressionCV(Cs=np.logspace(-4, 4, 10), cv=5, max_iter=1000)
    regression = (tuning if tuned else LogisticRegression(max_iter=1000)).fit(both / scale, truth)
    expected = regression.decision_function(points / scale)
    np.testing.assert_allclose(points @ weights + offset, expected, atol=0.02)


def test_without_training_images_half_of_the_clean_ones_make_the_density():
    detector = ERDetector().fit(MODEL, CLEAN, FOREIGN, labels=LABELS)
    assert detector.get_arrays()["centers"].shape == (150, 4)
    np.testing.assert_array_equal(detector.get_arrays()["classes"], LABELS[::2])


@pytest.mark.parametrize(
    ("name", "kept"), [(name, slice(None, None, 2)) for name in DENSITY] + [("lid", slice(100))]
)
def test_nothing_is_learnt_from_what_was_made_of_images_that_others_are_compared_with(name, kept):
    noisy = np.clip(CLEAN + 0.02, 0, 1)
    moved = [images.copy() for images in (FOREIGN, noisy)]
    for images in moved:
        images[kept] = CLEAN[kept]
    fits = [detectors[name]().fit(MODEL, CLEAN, *some, LABELS) for some in ([FOREIGN, noisy], moved)]
    np.testing.assert_array_equal(*(fit.score(MODEL, FOREIGN) for fit in fits))
    # As many as there are clean images they must be: others are not made of these one by one.
    fits = [
        detectors[name]().fit(MODEL, CLEAN, some, None, LABELS) for some in (FOREIGN[:200], moved[0][:200])
    ]
    assert not np.array_equal(*(fit.score(MODEL, FOREIGN) for fit in fits))


def test_features_that_never_vary_are_left_as_they_are():
    flat = CLEAN.copy()
    flat[:, 1] = 0.5
    detector = ERDetector().fit(MODEL, flat, FOREIGN, labels=LABELS)
    np.testing.assert_array_equal(detector.get_arrays()["scale"][2:], [1, 1])
    assert np.isfinite(detector.score(MODEL, FOREIGN)).all()


@pytest.mark.parametrize("deviation", [0.2, 5.0])
def test_the_bandwidth_follows_the_scale_of_the_codes(deviation):
    """Of two narrow clusters in each class, of which Scott's rule sees the distance."""
    codes = deviation * (rng.choice([-1, 1], (600, 1)) + 0.2 * rng.normal(size=(600, 2)))
    found = likeliest_bandwidth(codes, rng.integers(0, 3, 600)) / deviation
    grid = np.linspace(0.02, 0.6, 60)

    def held_out(bandwidth):
        return KernelDensity(bandwidth=bandwidth).fit(codes[:200] / deviation).score(codes[200:] / deviation)

    assert found == pytest.approx(max(grid, key=held_out), rel=0.3)


def test_the_local_dimension_of_a_cube_is_its_dimension():
    for dimension in (1, 3):
        points = np.random.default_rng(0).uniform(size=(4000, dimension))
        near = NearestNeighbors(n_neighbors=40).fit(points)
        distances = near.kneighbors(np.full((1, dimension), 0.5))[0]
        assert local_dimension(distances)[0] == pytest.approx(dimension, rel=0.35)


def test_local_dimension_by_hand():
    distances = np.array([[1.0, 2.0, 4.0], [3.0, 3.0, 3.0]])
    found = local_dimension(distances)
    assert found[0] == pytest.approx(-3 / (np.log(1 / 4) + np.log(2 / 4)))
    assert np.isfinite(found).all()


# Noise and metrics


@settings(max_examples=10)
@given(size=st.floats(0.01, 0.5), seed=st.integers(0, 99))
def test_noise_is_as_far_as_the_adversarial_images(size, seed):
    draws = np.random.default_rng(seed)
    clean = draws.choice([0.0, 0.2, 1.0], size=(40, 6, 6, 1)).astype("float32")
    adversarial = np.clip(clean + size * draws.choice([-1, 1], clean.shape), 0, 1)
    noisy = matched_noise(clean, adversarial, seed)
    assert noisy.dtype == np.float32 and noisy.min() >= 0 and noisy.max() <= 1

    def distance(images):
        return np.linalg.norm((images - clean).reshape(40, -1), axis=1).mean()

    assert distance(noisy) == pytest.approx(distance(adversarial), rel=0.01)


def test_metrics_count_decisions():
    detected = np.array([1, 1, 0, 0, 0], bool)
    right = np.array([1, 0, 1, 0, 1], bool)
    found = detection_metrics(detected, np.array([1, 0, 0, 0], bool), right)
    assert (found.acc_adv, found.acc_nadv) == (40.0, 75.0)
    assert found.acc_cla == pytest.approx(100 * 2 / 3)
    assert found.acc_com == 80.0, "two are detected, and two of the others are right"
    assert detection_metrics([True], [False], [False]).acc_cla is None


@pytest.mark.parametrize(
    ("detected", "flagged", "right"), [([], [1], []), ([1], [], [1]), ([1], [1], [1, 0])]
)
def test_metrics_need_inputs_of_both_kinds(detected, flagged, right):
    with pytest.raises(InputError, match="Metrics need adversarial inputs"):
        detection_metrics(detected, flagged, right)


# Files


@pytest.mark.parametrize("name", detectors)
def test_a_file_brings_back_the_detector(name, tmp_path):
    detector = fitted(name)
    path = save(detector, tmp_path / "new" / "mine.npz")
    again = load(path)
    assert type(again) is type(detector) and again.get_config() == detector.get_config()
    np.testing.assert_array_equal(again.score(MODEL, FOREIGN), detector.score(MODEL, FOREIGN))
    np.testing.assert_array_equal(again.predict(MODEL, CLEAN), detector.predict(MODEL, CLEAN))


def tampered(path, change):
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    config = json.loads(arrays["config"].tobytes())
    change(arrays, config)
    if "config" in arrays:
        arrays["config"] = np.frombuffer(json.dumps(config).encode(), np.uint8)
    np.savez(path, **arrays)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


TAMPERING = {
    "other detector": (lambda a, c: c.update(name="os.system"), "Unknown detector: 'os.system'"),
    "other option": (lambda a, c: c.update(command="ls"), "Unknown option of .*'command'"),
    "option of a wrong kind": (lambda a, c: c.update(bandwidth="wide"), "bandwidth must be"),
    "other space": (lambda a, c: c.update(space="__import__"), "Unknown space"),
    "no config": (lambda a, c: a.pop("config"), "has no config"),
    "missing array": (lambda a, c: a.pop("centers"), "the arrays are"),
    "further array": (lambda a, c: a.update(more=np.zeros(2)), "the arrays are"),
    "not finite": (lambda a, c: a.update(slope=np.float64("nan")), "slope must be finite"),
    "text": (lambda a, c: a.update(slope=np.array("1+1")), "slope must be finite numbers with 0 axes"),
    "other axes": (lambda a, c: a.update(centers=a["centers"][0]), "with 2 axes"),
    "other shapes": (lambda a, c: a.update(mean=a["mean"][:2]), "do not fit together"),
    "no scale": (lambda a, c: a.update(scale=0 * a["scale"]), "do not fit together"),
    "pickled objects": (lambda a, c: a.update(slope=np.array(Bomb())), "is not a detector's file"),
}


@pytest.mark.parametrize(("change", "message"), TAMPERING.values(), ids=TAMPERING)
def test_a_tampered_file_is_refused_and_nothing_in_it_is_run(change, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = save(fitted("er1"), "mine.npz")
    tampered(path, change)
    with pytest.raises(InputError, match=message):
        load(path)
    assert os.listdir() == ["mine.npz"]


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04 torn"])
def test_another_file_is_refused(content, tmp_path):
    (tmp_path / "mine.npz").write_bytes(content)
    with pytest.raises(InputError, match="is not a detector's file"):
        load(tmp_path / "mine.npz")


def test_places_are_told(tmp_path):
    with pytest.raises(InputError, match=r"Cannot read .*No such file"):
        load(tmp_path / "none.npz")
    with pytest.raises(InputError, match=r"ends in .npz"):
        save(fitted("er1"), tmp_path / "mine.pkl")
    with pytest.raises(InputError, match="not fit yet"):
        save(ERDetector(), tmp_path / "mine.npz")


# Rejection


@pytest.mark.parametrize("name", DENSITY)
def test_the_guarded_classifier_gives_logits_score_and_flag(name, tmp_path):
    detector = fitted(name)
    guarded = detector.guarded(MODEL)
    guarded.save(tmp_path / "guarded.keras")
    for one in (guarded, keras.saving.load_model(tmp_path / "guarded.keras")):
        found = {key: np.asarray(value) for key, value in one(FOREIGN).items()}
        np.testing.assert_allclose(found["logits"], MODEL(FOREIGN), rtol=1e-5)
        np.testing.assert_allclose(found["score"], detector.score(MODEL, FOREIGN), rtol=1e-3, atol=1e-3)
        np.testing.assert_array_equal(found["rejected"], found["score"] > 0)
        assert found["rejected"].dtype == bool


SERVE = """
import sys
import numpy as np
import tensorflow as tf

module = tf.saved_model.load(sys.argv[1])
images = tf.constant(np.load(sys.argv[2]))
served = module.signatures["serving_default"]
(name,) = served.structured_input_signature[1]
np.savez(sys.argv[3], **{key: value.numpy() for key, value in served(**{name: images}).items()})
assert "keras_robust" not in sys.modules
"""


def test_the_guarded_classifier_is_served_by_a_fresh_process(tmp_path):
    detector = fitted("er2")
    served = kr.export(detector.guarded(MODEL), tmp_path / "served")
    np.testing.assert_allclose(kr.load_exported(served)(CLEAN), MODEL(CLEAN), rtol=1e-5)
    np.save(tmp_path / "images.npy", FOREIGN[:5])
    arguments = [str(tmp_path / name) for name in ("served", "images.npy", "found.npz")]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", SERVE, *arguments],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "found.npz") as found:
        np.testing.assert_allclose(found["logits"], MODEL(FOREIGN[:5]), rtol=1e-5)
        np.testing.assert_allclose(found["score"], detector.score(MODEL, FOREIGN[:5]), rtol=1e-3, atol=1e-3)
        np.testing.assert_array_equal(found["rejected"], found["score"] > 0)


# Evasion


def test_the_objective_trades_a_wrong_class_for_a_low_score():
    logits, score = np.float32([[2, 0], [0, 1]]), np.float32([[3.0], [-4.0]])
    goal = Goal(np.array([0, 0]))
    found = np.asarray(Evasion("margin", weight=2.0, slack=1.0)(View(logits, score), goal))
    margins = np.asarray(kr.attacks.get_objective("margin")(View(logits), goal))
    np.testing.assert_allclose(found, margins - 2.0 * np.array([4.0, 0.0]))
    with pytest.raises(InputError, match="whose latent is a detector's score"):
        Evasion()(View(logits, logits), goal)
    attack = PGD(eps=0.1, loss=Evasion("margin", 2.0))
    assert keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(attack)) == attack


def test_the_target_shows_the_score_as_its_latent():
    detector = fitted("er1")
    score, logits = detector.target(MODEL).latent_and_logits(FOREIGN)
    np.testing.assert_allclose(score[:, 0], detector.score(MODEL, FOREIGN), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(logits, MODEL(FOREIGN), rtol=1e-5)


@pytest.mark.parametrize("name", DENSITY)
def test_an_attack_that_knows_the_detector_evades_it(name):
    """Between the classes a plain attack is caught; past the middle lies the other class itself."""
    detector = fitted(name)
    images, labels = natural(60, seed=9)
    plain = PGD(eps=0.45, steps=40, step_size=0.02, loss="margin")(MODEL, images, labels)
    attack = PGD(eps=0.9, steps=60, step_size=0.03)
    found = evade(detector, MODEL, images, labels, attack)
    assert np.abs(found - images).max() <= 0.9 + 1e-6 and found.min() >= 0 and found.max() <= 1
    wrong = np.asarray(MODEL(found)).argmax(axis=1) != labels
    assert detector.predict(MODEL, plain).mean() > 0.9
    assert (wrong & ~detector.predict(MODEL, found)).mean() > 0.9


def test_what_cannot_be_attacked_is_told():
    images, labels = natural(4)
    with pytest.raises(InputError, match="one by density, which has a gradient"):
        evade(fitted("lid"), MODEL, images, labels, PGD(eps=0.1))
    with pytest.raises(InputError, match="PGD or a relative of it"):
        evade(fitted("er1"), MODEL, images, labels, kr.attacks.Square(eps=0.1))


# Errors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ERDetector(bandwidth=0), "bandwidth must be a finite number > 0"),
        (lambda: ERDetector("latents"), "Unknown space: 'latents'"),
        (lambda: LIDDetector(neighbors=1), "neighbors must be an integer >= 2"),
        (lambda: LIDDetector(neighbors=20, batch=20), "neighbors must be below batch"),
        (
            lambda: ERDetector().fit(MODEL, CLEAN),
            "Without: adversarial, labels",
        ),
        (lambda: ERDetector().fit(MODEL, CLEAN, FOREIGN, labels=0 * LABELS), "Without: 1"),
        (lambda: LIDDetector().fit(MODEL, CLEAN), "on clean images and on adversarial. Without: adversarial"),
        (lambda: LIDDetector().fit(MODEL, CLEAN[:30], FOREIGN), "more than 40 clean images"),
        (lambda: ER2Detector().guarded(MODEL), "fit it first"),
        (lambda: matched_noise(CLEAN, FOREIGN[:3]), "as many as clean ones"),
    ],
)
def test_bad_input_is_told(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_latent_is_needed(linear):
    bare = linear(np.eye(4, 2, dtype="float32"), (2, 2, 1))
    with pytest.raises(InputError, match="A classifier with a latent is needed"):
        ERDetector().fit(bare, CLEAN, FOREIGN, labels=LABELS)
    KernelDensityDetector().fit(bare, CLEAN, FOREIGN, labels=LABELS)
