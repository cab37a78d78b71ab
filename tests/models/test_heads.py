"""A head of fixed centres serves every architecture, and the model remains an ordinary classifier."""

import random

import keras
import numpy as np
import pytest
from test_architectures import SMALL

import keras_robust as kr
from keras_robust import models
from keras_robust.attacks import PGD
from keras_robust.attacks.adaptive import Adaptive
from keras_robust.errors import InputError
from keras_robust.layers import max_mahalanobis_centers
from keras_robust.models.heads import heads
from keras_robust.models.precision import bfloat16_copy, in_float32

NAMES = list(models.architectures)
COSINE = {"name": "cosine_centers", "dim": 6}
rng = np.random.default_rng(0)


def batch(classifier, size=3):
    return rng.uniform(size=(size, *classifier.input_shape[1:])).astype("float32")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("head", heads)
def test_every_architecture_takes_every_head(name, head, tmp_path):
    options = {"name": head, "dim": 12, "scale": 2.0}
    classifier = models.build(name, head=options, dtype="mixed_bfloat16", **SMALL.get(name, {}))
    assert classifier.architecture == {"name": name, "head": options, **SMALL.get(name, {})}
    images = batch(classifier)
    latent, logits = classifier.latent_and_logits(images)
    num_classes = classifier.output_shape[-1]
    assert latent.shape == (3, 12) and latent.dtype == logits.dtype == "float32"
    assert (np.asarray(latent) < 0).any(), "centres have negative coordinates"
    centers = 2 * max_mahalanobis_centers(num_classes, 12)
    expected = {
        "cosine_centers": np.asarray(latent) @ centers.T,
        "distance_centers": -((np.asarray(latent)[:, None] - centers) ** 2).sum(-1),
    }[head]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-3)
    classifier.save_weights(tmp_path / "model.weights.h5")
    rebuilt = models.build(**classifier.architecture)
    rebuilt.load_weights(tmp_path / "model.weights.h5")
    for one, other in zip(rebuilt.get_weights(), classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_latent_has_as_many_features_as_without_unless_told():
    head = {"name": "cosine_centers"}
    assert models.build("small_cnn", hidden=24, head=head).encoder.output_shape == (None, 24)
    assert models.build("cnn_4c3f", head=head).encoder.output_shape == (None, 512)
    assert models.build("cnn_4c3f", latent="4C+2FC", head=head).encoder.output_shape == (None, 200)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("cosine_centers", "head must be a mapping with a name.*'cosine_centers'"),
        ({"dim": 3}, "head must be a mapping with a name.*Valid names: cosine_centers, distance_centers"),
        ({"name": "cosine_center"}, "Unknown head: 'cosine_center'. Did you mean 'cosine_centers'"),
        ({"name": "cosine_centers", "scal": 1.0}, "'scal'. Did you mean 'scale'"),
        ({"name": "cosine_centers", "scale": "big"}, "scale must be a number"),
        ({"name": "cosine_centers", "scale": 0.0}, "scale must be a finite number > 0"),
        ({"name": "cosine_centers", "dim": 0}, "dim must be an integer >= 1"),
        ({"name": "cosine_centers", "dim": 1}, "dim must be an integer >= 2 for 10 centres"),
        ({"name": "distance_centers", "normalize": True}, "'normalize'"),
    ],
)
def test_bad_heads_are_told(head, words):
    with pytest.raises(InputError, match=words):
        models.build("small_cnn", head=head)


def test_a_latent_that_is_not_flat_is_refused():
    with pytest.raises(InputError, match=r"takes flat features.*12, 12, 32"):
        models.build("cnn_4c3f", latent="2C", head=COSINE)


@pytest.fixture(scope="module")
def trained(digits):
    """A small MAT model: it classifies by cosine, and has margins that int8 must keep."""
    random.seed(0)
    classifier = models.build("small_cnn", filters=8, hidden=24, head={"name": "cosine_centers"})
    defense = kr.defenses.MAT(classifier, alpha=0.1, beta=0.0)
    defense.compile(keras.optimizers.Adam(3e-3), metrics=["accuracy"])
    defense.fit(digits[0][:1000], digits[1][:1000], batch_size=64, epochs=12, shuffle=False, verbose=0)
    return classifier


def test_the_largest_logit_is_the_largest_cosine_on_every_image(trained, digits):
    phi = np.asarray(trained.encoder.predict(digits[0], verbose=0), "float64")
    cosines = phi @ max_mahalanobis_centers(10, 24).T / np.linalg.norm(phi, axis=1, keepdims=True)
    predicted = trained.predict(digits[0], verbose=0).argmax(1)
    np.testing.assert_array_equal(predicted, cosines.argmax(1))
    assert (predicted == digits[1]).mean() > 0.9


@pytest.mark.parametrize("file", ["saved", "model.tflite", "int8.tflite"])
def test_exports_pass_their_check(trained, digits, tmp_path, file):
    images, labels = digits[0][1000:1400], digits[1][1000:1400]
    options = {"quantize": "int8", "calibration": digits[0][:200]} if file.startswith("int8") else {}
    path = kr.export(trained, tmp_path / file, **options)
    check = kr.check_export(path, trained, images, labels, eps=0.05)
    assert check.passed and check.clean_accuracy > 85


def test_it_is_saved_whole(trained, digits, tmp_path):
    trained.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(digits[0][:20]), trained(digits[0][:20]))
    assert again.architecture == trained.architecture


def test_it_is_kept_in_the_zoo_with_its_adaptive_attack(trained, digits, tmp_path):
    path = kr.zoo.save(trained, "centred", directory=tmp_path)
    again, _ = kr.zoo.open_model(path)
    np.testing.assert_array_equal(again(digits[0][:20]), trained(digits[0][:20]))
    attack = Adaptive(eps=0.1, steps=5, **Adaptive.options_for(again))
    found = attack(again, digits[0][:40], digits[1][:40])
    standing = again.predict(found, verbose=0).argmax(1) == digits[1][:40]
    assert standing.mean() < 0.7


def test_other_precisions_are_the_same_model(trained, digits):
    images = digits[0][:200]
    half = models.build(**trained.architecture, dtype="mixed_bfloat16")
    half.set_weights(trained.get_weights())
    np.testing.assert_allclose(in_float32(half)(images), trained(images), rtol=1e-5, atol=1e-5)
    for copy in (half, bfloat16_copy(trained)):
        logits = copy(images)
        assert logits.dtype == "float32"
        assert (np.argmax(logits, axis=1) == np.argmax(trained(images), axis=1)).mean() > 0.97


def test_it_can_be_attacked_by_its_own_bibo(trained, digits):
    images, labels = digits[0][:40], digits[1][:40]
    found = PGD(eps=0.2, steps=10, loss="cosine_distance")(trained, images, labels)
    assert (trained.predict(found, verbose=0).argmax(1) == labels).mean() < 0.3
