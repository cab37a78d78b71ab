"""MAT and MMC: one step equals the papers' formulas, and what they need is asked for."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from defense_building import ADVERSARY, CLASSES, batch, build, classifier

from keras_robust.attacks import PGD, get_objective
from keras_robust.defenses import MAT, MMC
from keras_robust.errors import InputError
from keras_robust.layers import CosineCenters, DistanceCenters, max_mahalanobis_centers

RATE = 0.1
IMAGES, LABELS = batch()
CENTERS = max_mahalanobis_centers(CLASSES, 6).astype("float32")
BIBO = PGD(eps=0.2, steps=3, loss="cosine_distance")
CORNERS = [(0.0, 0.0), (0.7, 0.0), (0.0, 3.0), (0.7, 3.0)]


def features(weights, images):
    return tf.reshape(images, (len(images), -1)) @ weights[0] + weights[1]


def cosine(a, b):
    return tf.reduce_sum(a * b, axis=1) / tf.norm(a, axis=1) / tf.norm(b, axis=1)


def mat(weights, adversarial, alpha, beta):
    clean, moved = features(weights, IMAGES), features(weights, adversarial)
    with tf.GradientTape() as tape:  # SO by its definition
        tape.watch(clean)
        to_center = 1 - cosine(clean, tf.gather(CENTERS, LABELS))
    steepness = tf.norm(tape.gradient(to_center, clean), axis=1)
    return to_center + alpha * steepness + beta * (1 - cosine(clean, moved))


def mmc(weights, adversarial, clean_weight, adversarial_weight, length=1.0):
    centers = length * tf.gather(CENTERS, LABELS)
    near, moved = (features(weights, x) - centers for x in (IMAGES, adversarial))
    terms = [tf.reduce_sum(away**2, axis=1) / 2 for away in (near, moved)]
    return clean_weight * terms[0] + adversarial_weight * terms[1]


CASES = {
    **{
        f"mat {corner}": ("mat", mat, dict(zip(("alpha", "beta"), corner, strict=True))) for corner in CORNERS
    },
    "mmc": ("mmc", mmc, {"clean_weight": 1.0, "adversarial_weight": 0.0}),
    "mmc, adversarial": ("mmc", mmc, {"clean_weight": 0.0, "adversarial_weight": 1.0}),
    "mmc, both": ("mmc", mmc, {"clean_weight": 0.5, "adversarial_weight": 2.0}),
}


@pytest.mark.parametrize(("name", "loss", "options"), CASES.values(), ids=CASES)
def test_one_step_by_hand(name, loss, options):
    defense = build(name, adversary=BIBO, seed=4, **options)
    start = defense.classifier.get_weights()[:2]
    adversarial = defense._batch((IMAGES, LABELS), training=True).adversarial
    if adversarial is None:
        adversarial = IMAGES
    variables = [tf.Variable(weight) for weight in start]
    with tf.GradientTape() as tape:
        mean = tf.reduce_mean(loss(variables, adversarial, **options))
    gradients = tape.gradient(mean, variables)
    defense.compile(keras.optimizers.SGD(RATE), run_eagerly=True)
    logs = defense.fit(IMAGES, LABELS, batch_size=8, shuffle=False, verbose=0).history

    assert logs["loss"] == pytest.approx([float(mean)], rel=1e-5)
    for weight, before, gradient in zip(defense.classifier.get_weights(), start, gradients, strict=False):
        np.testing.assert_allclose(weight, before - RATE * gradient, rtol=0, atol=2e-6)
    np.testing.assert_allclose(defense.classifier.get_weights()[2], CENTERS, atol=1e-7)


@pytest.mark.parametrize(("alpha", "beta"), CORNERS)
def test_a_term_of_weight_zero_is_left_out(alpha, beta):
    defense = build("mat", alpha=alpha, beta=beta)
    expected = {"feature_to_center": 1.0, "second_order": alpha, "bibo": beta}
    assert defense.active_terms == [term for term, weight in expected.items() if weight]
    (loss, *on_cosines) = defense.adaptive_objectives()
    assert loss["weights"] == [weight for weight in expected.values() if weight]
    assert get_objective(loss).needs_clean == bool(beta)
    labels = [get_objective(objective).label for objective in on_cosines]
    assert labels == ["cross_entropy on cosines", "margin on cosines"]
    defense.compile("sgd")
    assert defense.classifier.adaptive == [loss, *on_cosines]


class Forbidden(PGD):
    def perturb(self, *arguments, **options):
        raise AssertionError("no inner loop was needed")


@pytest.mark.parametrize(
    ("name", "options"), [("mat", {"beta": 0.0}), ("mmc", {"clean_weight": 1.0, "adversarial_weight": 0.0})]
)
def test_without_an_adversarial_term_no_adversary_is_needed_or_run(name, options):
    build(name, adversary=None, **options)
    defense = build(name, adversary=Forbidden(eps=0.1), **options)
    defense.compile("sgd", run_eagerly=True)
    logs = defense.fit(IMAGES, LABELS, verbose=0).history
    assert "adversarial_accuracy" not in logs
    with pytest.raises(AssertionError, match="no inner loop"):
        defense.evaluate(IMAGES, LABELS, verbose=0)


@pytest.mark.parametrize(("cls", "head"), [(MAT, CosineCenters), (MMC, DistanceCenters)])
def test_another_head_is_refused(cls, head):
    other = {CosineCenters: DistanceCenters, DistanceCenters: CosineCenters}[head]
    plain = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), head(CLASSES)])
    for model in (classifier(), classifier(head=other), plain):
        with pytest.raises(InputError, match=f"{cls.__name__} needs a LatentClassifier .*{head.__name__}"):
            cls(model, ADVERSARY)
    cls(classifier(head=head), ADVERSARY)


def test_mmc_trains_and_declares_the_length_of_its_centers():
    network = classifier(head=DistanceCenters)
    head = keras.Sequential([keras.Input((6,)), DistanceCenters(CLASSES, scale=4.0)])
    defense = MMC(type(network)(network.encoder, head), clean_weight=1.0, adversarial_weight=0.0)
    assert {"name": "max_mahalanobis_center", "scale": 4.0} in defense.adaptive_objectives()
    values = defense.loss_terms(defense._batch((IMAGES, LABELS), training=True))["clean"]
    expected = mmc(defense.classifier.get_weights(), IMAGES, 1.0, 0.0, length=4.0)
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_predictions_follow_the_largest_cosine():
    defense = build("mat")
    defense.compile(keras.optimizers.SGD(RATE))
    images, labels = batch(60, seed=5)
    defense.fit(images, labels, verbose=0)
    phi = defense.classifier.encoder.predict(images, verbose=0).astype("float64")
    cosines = phi @ max_mahalanobis_centers(CLASSES, 6).T / np.linalg.norm(phi, axis=1, keepdims=True)
    np.testing.assert_array_equal(defense.predict(images, verbose=0).argmax(1), cosines.argmax(1))
