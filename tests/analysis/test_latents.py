"""What is seen in the latent: maps, entropy, clusters and cosines, on features that are known."""

import csv

import keras
import matplotlib.image
import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax

from keras_robust.analysis import clusters, cosine_table, latent_map, prediction_entropy
from keras_robust.analysis.cosine import linear_centres
from keras_robust.attacks import FGSM, classify
from keras_robust.errors import InputError
from keras_robust.models import (
    LatentClassifier,
    build,
    build_discriminator,
    split,
    with_manifold_transform,
)
from keras_robust.models.heads import heads

EPS = 0.1
ANALYSES = {"map": latent_map, "entropy": prediction_entropy, "clusters": clusters, "cosine": cosine_table}


@pytest.fixture(scope="module")
def classifier(digits_classifier):
    """Its latent is the image as a row."""
    return split(digits_classifier, at=digits_classifier.layers[0])


@pytest.fixture(scope="module")
def few(digits):
    return digits[0][:40], digits[1][:40]


def read(path):
    return list(csv.DictReader(path.open()))


# What all share


@pytest.mark.parametrize("name", ANALYSES)
def test_it_writes_a_picture_and_its_numbers(name, classifier, few, tmp_path):
    found = ANALYSES[name](classifier, few, FGSM(eps=EPS))
    path = found.to_png(tmp_path / "new" / f"{name}.png")
    assert matplotlib.image.imread(path).std() > 0, "something is drawn"
    header, *rows = csv.reader(path.with_suffix(".csv").open())
    assert rows and all(len(row) == len(header) for row in rows)
    assert len(found.table().rows) > 1


@pytest.mark.parametrize("name", ANALYSES)
def test_adversarial_images_may_be_given(name, classifier, few):
    adversarial = FGSM(eps=EPS)(classifier, *few)
    rows = [list(ANALYSES[name](classifier, few, attack).rows()) for attack in (FGSM(eps=EPS), adversarial)]
    assert str(rows[0]) == str(rows[1])


@pytest.mark.parametrize("name", ["map", "clusters", "cosine"])
def test_a_model_without_latent_is_told_of_split(name, digits_classifier, few):
    with pytest.raises(InputError, match=r"keras_robust\.models\.split"):
        ANALYSES[name](digits_classifier, few, FGSM(eps=EPS))


@pytest.mark.parametrize(
    ("attack", "words"),
    [(None, "Give an attack"), (np.zeros((3, 8, 8, 1), "float32"), "one adversarial image for each of 40")],
)
def test_a_wrong_attack_is_told(classifier, few, attack, words):
    with pytest.raises(InputError, match=words):
        prediction_entropy(classifier, few, attack)


# The map


def test_the_map_tells_what_became_of_each_example(classifier, few, tmp_path):
    images, labels = few
    seen = images, FGSM(eps=EPS)(classifier, images, labels)
    before, after = (classify(classifier, shown) for shown in seen)
    logits = [np.asarray(classifier(shown), float) for shown in seen]
    entropies = [stats.entropy(softmax(scores, axis=1), axis=1) for scores in logits]
    right, stands = before == labels, after == labels
    expected = {"successful": right & ~stands, "failed": right & stands, "all": np.full(40, True)}
    for show, rows in expected.items():
        found = latent_map(classifier, few, FGSM(eps=EPS), show=show, perplexity=10)
        assert found.points.shape == (40 + rows.sum(), 2) and np.isfinite(found.points).all()
        assert (found.kind[:40] == "clean").all()
        np.testing.assert_array_equal(found.index[40:], np.flatnonzero(rows))
        np.testing.assert_array_equal(found.prediction, [*before, *after[rows]])
        np.testing.assert_array_equal(found.label, [*labels, *labels[rows]])
        np.testing.assert_allclose(found.entropy, [*entropies[0], *entropies[1][rows]], atol=1e-5)
        if show != "all":
            assert set(found.kind[40:]) == {show}


def test_classes_that_are_apart_stay_apart(classifier, digits):
    images, labels = (part[np.isin(digits[1], (0, 4))][:80] for part in digits)
    found = latent_map(classifier, (images, labels), images, perplexity=10)
    distances = np.linalg.norm(found.points[:, None] - found.points[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    distances[found.index[:, None] == found.index[None]] = np.inf  # its own twin
    assert (found.label[distances.argmin(axis=1)] == found.label).mean() > 0.97


def test_none_to_show_is_said(classifier, few):
    found = latent_map(classifier, few, few[0], show="successful")
    assert len(found.points) == 40
    assert found.notes == ["There is no successful adversarial example among 40."]


def test_bad_options_of_the_map_are_told(classifier, few):
    with pytest.raises(InputError, match="perplexity must be > 0 and below the number of points, 80"):
        latent_map(classifier, few, few[0], perplexity=80)
    with pytest.raises(InputError, match=r"'succesful'\. Did you mean 'successful'"):
        latent_map(classifier, few, few[0], show="succesful")


def test_latents_may_be_maps_of_features(few):
    whole = build("small_cnn", filters=2, hidden=4)
    model = split(whole, at=whole.encoder.layers[1])
    assert len(model.encoder.output_shape) == 4
    assert latent_map(model, (few[0][:20], few[1][:20]), few[0][:20], perplexity=5).points.shape == (40, 2)


# Entropy


def test_entropy_is_that_of_scipy(classifier, few):
    found = prediction_entropy(classifier, few, FGSM(eps=EPS))
    adversarial = FGSM(eps=EPS)(classifier, *few)
    for values, images in ((found.clean, few[0]), (found.adversarial, adversarial)):
        logits = np.asarray(classifier(images), float)
        np.testing.assert_allclose(values, stats.entropy(softmax(logits, axis=1), axis=1), atol=1e-5)


def test_the_areas_count_pairs_in_the_right_order(classifier, few):
    found = prediction_entropy(classifier, few, FGSM(eps=EPS))

    def area(values):
        return stats.mannwhitneyu(values, found.clean).statistic / (len(values) * len(found.clean))

    assert found.roc_auc == pytest.approx(area(found.adversarial)) and found.roc_auc > 0.6
    assert found.roc_auc_of("successful") == pytest.approx(area(found.adversarial[found.successful]))
    assert np.isnan(prediction_entropy(classifier, few, few[0]).roc_auc_of("successful"))
    with pytest.raises(InputError, match="Did you mean 'successful'"):
        found.roc_auc_of("succesful")


# Clusters and centres


@pytest.fixture(scope="module")
def centred():
    """Images of three pixels that are their own latent, and a linear head with a centre for each pixel."""
    encoder = keras.Sequential([keras.Input((1, 3, 1)), keras.layers.Flatten()])
    head = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, use_bias=False)])
    model = LatentClassifier(encoder, head)
    model.set_weights([2 * np.eye(3, dtype="float32")])
    return model


def blobs(count=30, noise=0.05):
    """Images around three corners, and their classes."""
    labels = np.arange(count, dtype="int32") % 3
    drawn = 0.9 * np.eye(3)[labels] + noise * np.random.default_rng(0).random((count, 3))
    return drawn.reshape(-1, 1, 3, 1).astype("float32"), labels


def test_separated_blobs_match_wholly(centred):
    images, labels = blobs()
    found = clusters(centred, (images, labels), images)
    assert found.clean_match == found.attacked_match == 100
    np.testing.assert_array_equal(np.sort(found.dominant), [0, 1, 2])
    np.testing.assert_array_equal(found.clean, 10 * np.eye(3)[found.dominant])


def test_predictions_that_ignore_the_blobs_match_at_random(centred):
    """The decision hangs on a fourth pixel, which is too small to form clusters."""
    images, labels = blobs(90, 0.0)
    hidden = np.random.default_rng(1).permutation(labels)
    images = np.concatenate([images, 1e-3 * hidden[:, None, None, None].astype("float32")], axis=2)
    encoder = keras.Sequential([keras.Input((1, 4, 1)), keras.layers.Flatten()])
    head = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model = LatentClassifier(encoder, head)
    weights = np.zeros((4, 3), "float32")
    weights[3] = [0, 2e3, 4e3]
    model.set_weights([weights, np.array([0, -1, -4], "float32")])
    found = clusters(model, (images, hidden), images)
    np.testing.assert_array_equal(classify(model, images), hidden)
    assert found.clean_match < 50


def test_adversarial_points_go_to_the_nearest_centroid(centred):
    """Moved on to the next blob, each is predicted and clustered as that; half way, only predicted so."""
    images, labels = blobs()
    moved = np.roll(images, 1, axis=2)
    assert clusters(centred, (images, labels), moved).attacked_match == 100
    grown = images.copy()
    grown[np.arange(30), 0, (labels + 1) % 3, 0] = 1.0  # nearer to its own blob's centroid or the next's
    found = clusters(centred, (images, labels), grown)
    centroids = np.array([images[labels == label].mean(axis=0).ravel() for label in range(3)])
    nearest = np.linalg.norm(grown.reshape(30, 1, 3) - centroids, axis=-1).argmin(axis=1)
    assert found.attacked_match == pytest.approx(100 * (nearest == classify(centred, grown)).mean())


def test_more_clusters_than_classes(centred):
    images, labels = blobs()
    found = clusters(centred, (images, labels), images, count=6)
    assert found.clean.shape == (6, 3) and found.clean_match == 100
    with pytest.raises(InputError, match=r"must be in 1\.\.30, the number of examples. Received: 31"):
        clusters(centred, (images, labels), images, count=31)


def test_cosines_are_those_of_numpy(classifier, few):
    found = cosine_table(classifier, few, FGSM(eps=EPS))
    weights = classifier.head.get_weights()[0].astype(float)
    adversarial = FGSM(eps=EPS)(classifier, *few)
    for values, classes, images in (
        (found.clean, found.clean_class, few[0]),
        (found.attacked, found.attacked_class, adversarial),
    ):
        rows = images.reshape(len(images), -1).astype(float)
        centres = weights.T[classify(classifier, images)]
        lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(centres, axis=1)
        np.testing.assert_allclose(values, (rows * centres).sum(axis=1) / lengths, atol=1e-4)
        np.testing.assert_array_equal(classes, classify(classifier, images))


def test_the_table_of_cosines_has_a_line_for_all_and_for_each_class(centred):
    images, labels = blobs()
    found = cosine_table(centred, (images, labels), np.roll(images, 1, axis=2))
    _, whole, *lines = found.rows()
    clean, attacked = ((30, side.mean(), side.std()) for side in (found.clean, found.attacked))
    assert whole == ("all", *clean, *attacked)
    for label, line in enumerate(lines):
        assert line[:2] == (label, 10) and line[2] == pytest.approx(found.clean[labels == label].mean())
    assert found.clean.min() > 0.99


@pytest.mark.parametrize(
    ("name", "options"), [*((name, {}) for name in heads), ("cosine_centers", {"normalize": True})]
)
def test_fixed_centres_are_found(name, options):
    model = build("small_cnn", filters=2, head={"name": name, "dim": 12, **options})
    found, centers = linear_centres(model), np.asarray(model.head.layers[-1].centers)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    np.testing.assert_allclose(found, centers, atol=1e-5)


def test_an_affine_head_has_its_weights_as_centres(centred):
    inputs = keras.Input((3,))
    model = LatentClassifier(centred.encoder, keras.Model(inputs, keras.layers.Dense(4)(inputs)))
    weights, bias = (np.random.default_rng(0).normal(size=shape) for shape in [(3, 4), (4,)])
    model.set_weights([weights, bias])
    np.testing.assert_allclose(linear_centres(model), weights.T, atol=1e-5)


def test_a_head_that_is_not_linear_is_told(few):
    encoder = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    layers = [keras.layers.Dense(8, "relu", name="hidden"), keras.layers.Dense(10, name="last")]
    head = keras.Sequential([keras.Input((64,)), *layers])
    with pytest.raises(InputError, match=r"not linear.*models\.split.*hidden, last"):
        cosine_table(LatentClassifier(encoder, head), few, few[0])


def test_logits_that_need_more_than_the_latent_have_no_centres(few):
    images = keras.Input((8, 8, 1))
    flat = keras.layers.Flatten()(images)
    latent = keras.layers.Dense(4, name="side")(flat)
    logits = keras.layers.Dense(10)(keras.layers.Concatenate()([flat, latent]))
    with pytest.raises(InputError, match="needs a head, logits that are a function of the latent alone"):
        cosine_table(split(keras.Model(images, logits), at="side"), few, few[0])


def test_a_classifier_behind_a_transform_has_no_head_of_its_own(classifier, few):
    judge = build_discriminator("residual_mlp", (10,), depth=1, width=4)
    transformed = with_manifold_transform(classifier, judge, "imt", eps=EPS)
    with pytest.raises(InputError, match="take it out of what transforms its input"):
        cosine_table(transformed, few, few[0])
