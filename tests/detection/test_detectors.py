"""Every registered detector keeps the promises of the base; entropy and ROC-AUC against other truths."""

import keras
import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from keras_robust.analysis import detection
from keras_robust.attacks import FGSM
from keras_robust.attacks.predictions import predict_logits
from keras_robust.detection import EntropyDetector, detectors, load, roc_auc, save
from keras_robust.errors import InputError
from keras_robust.models import LatentClassifier, split


@pytest.fixture(scope="module")
def guarded(digits_classifier, digits):
    """A classifier with its latent, and clean, adversarial and noisy digits with their labels."""
    images, labels = digits[0][:200], digits[1][:200]
    model = split(digits_classifier, at=digits_classifier.layers[0])
    adversarial = FGSM(eps=0.1)(model, images, labels)
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, images.shape).astype("float32")
    return model, images, adversarial, np.clip(images + noise, 0, 1), labels


# The contract


@pytest.mark.parametrize("name", detectors)
def test_it_scores_and_predicts_after_a_fit(name, guarded):
    model, clean, adversarial, noisy, labels = guarded
    detector = detectors[name]()
    assert detector.fit(model, clean, adversarial, noisy, labels) is detector
    scores = detector.score(model, adversarial)
    assert scores.shape == (200,) and np.isfinite(scores).all()
    np.testing.assert_array_equal(detector.predict(model, adversarial), scores > detector.threshold)
    truth = [0] * 200 + [1] * 200
    area = roc_auc_score(truth, [*detector.score(model, clean), *scores])
    assert detector.roc_auc(model, clean, adversarial) == pytest.approx(area) and area > 0.55


@pytest.mark.parametrize("name", detectors)
def test_it_predicts_nothing_before_a_fit(name, guarded):
    with pytest.raises(InputError, match="fit it first"):
        detectors[name]().predict(*guarded[:2])


@pytest.mark.parametrize("name", detectors)
def test_it_refuses_images_of_a_wrong_kind(name, guarded):
    model, clean, adversarial, noisy, labels = guarded
    detector = detectors[name]().fit(model, clean, adversarial, noisy, labels)
    with pytest.raises(InputError, match="wrong shape"):
        detector.score(model, clean[:, :4])


@pytest.mark.parametrize("name", [name for name in detectors if name != "entropy"])
def test_it_refuses_a_model_that_it_was_not_fit_on(name, guarded):
    model, clean, adversarial, noisy, labels = guarded
    detector = detectors[name]().fit(model, clean, adversarial, noisy, labels)
    layers = keras.layers.Flatten(), keras.layers.Dense(7), keras.layers.Dense(10)
    other = split(keras.Sequential([keras.Input((8, 8, 1)), *layers]), at=layers[1])
    with pytest.raises(InputError, match="of another model"):
        detector.score(other, clean)
    with pytest.raises(InputError, match="of another model"):
        detection(other, (clean, labels), {"none": never}, {name: detector}, only_right=False)


def never(*_, **__):
    raise AssertionError("An attack was made for nothing.")


@pytest.mark.parametrize("name", detectors)
def test_it_guards_a_classifier_of_points_and_comes_back_from_a_file(name, tmp_path):
    points = np.random.default_rng(0).random((120, 2), "float32")
    labels = (points[:, 0] > points[:, 1]).astype("int32")
    encoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(5, activation="tanh")])
    head = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
    model = LatentClassifier(encoder, head)
    detector = detectors[name]().fit(model, points, 1 - points, points, labels)
    kept = load(save(detector, tmp_path / "detector.npz"))
    np.testing.assert_array_equal(kept.score(model, points), detector.score(model, points))


# ROC-AUC


@pytest.mark.parametrize(
    ("clean", "adversarial", "area"),
    [([1, 2], [3, 4], 1.0), ([3, 4], [1, 2], 0.0), ([1, 3], [2, 4], 0.75), ([1, 1], [1, 1], 0.5)],
)
def test_the_area_is_the_share_of_pairs_in_the_right_order(clean, adversarial, area):
    assert roc_auc(np.array(clean), np.array(adversarial)) == area


@pytest.mark.parametrize(("clean", "adversarial"), [([], [1.0]), ([1.0], [])])
def test_an_area_needs_scores_of_both_kinds(clean, adversarial):
    with pytest.raises(InputError, match="scores of both kinds"):
        roc_auc(np.array(clean), np.array(adversarial))


# Entropy


def test_the_score_is_the_entropy_of_the_prediction(guarded):
    model, clean, *_ = guarded
    logits = np.asarray(predict_logits(model, clean))
    expected = stats.entropy(softmax(logits.astype(float), axis=1), axis=1)
    np.testing.assert_allclose(EntropyDetector().score(model, clean), expected, atol=1e-5)
    np.testing.assert_allclose(EntropyDetector().score(None, logits), expected, atol=1e-5)


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.5])
def test_the_threshold_lets_so_many_clean_inputs_be_called_adversarial(rate):
    logits = np.random.default_rng(0).normal(size=(400, 3)).astype("float32")
    detector = EntropyDetector(rate).fit(None, logits[:300], noisy=logits[300:])
    called = detector.predict(None, logits).mean()
    assert rate - 1 / 400 <= called <= rate


def test_unsure_predictions_are_called_adversarial():
    sure, unsure = 20 * np.eye(3, dtype="float32"), 2 * np.eye(3, dtype="float32")
    detector = EntropyDetector().fit(None, sure)
    assert detector.predict(None, unsure).all() and not detector.predict(None, 2 * sure).any()
    assert detector.roc_auc(None, sure, unsure) == 1


@pytest.mark.parametrize("rate", [-0.1, 1, "few", float("nan")])
def test_a_rate_outside_its_range_is_told(rate):
    with pytest.raises(InputError, match=r"false_positive_rate must be in \[0, 1\)"):
        EntropyDetector(rate)
