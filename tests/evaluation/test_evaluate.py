"""What an evaluation finds, on which examples, and what it refuses."""

import json
import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from reports import without_seconds

from keras_robust import data, models
from keras_robust.attacks import DDN, FGSM, PGD, Attack, Square
from keras_robust.errors import InputError
from keras_robust.evaluation import evaluate, transfer
from keras_robust.evaluation.masked import saturated
from keras_robust.models import split
from keras_robust.zoo import Card

EPS = 0.1


@pytest.fixture(scope="module")
def few(digits):
    images, labels = digits
    return images[:120], labels[:120]


def quiet(model, source, *attacks, **options):
    return evaluate(
        model, source, list(attacks), **{"eps": EPS, "checks": False, "progress": False, **options}
    )


def test_one_gradient_step_on_a_linear_classifier_by_hand(digits_classifier, few):
    images, labels = few
    kernel, bias = digits_classifier.get_weights()
    flat = images.reshape(len(images), -1)
    scores = flat @ kernel + bias
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    gradient = (shares - np.eye(10)[labels]) @ kernel.T
    moved = np.clip(flat + EPS * np.sign(gradient), 0, 1)
    clean = scores.argmax(-1) == labels
    robust = clean & ((moved @ kernel + bias).argmax(-1) == labels)
    report = quiet(digits_classifier, few, "fgsm", batch_size=50)
    np.testing.assert_array_equal(report.outcomes["clean"].correct, clean)
    np.testing.assert_array_equal(report.outcomes["fgsm"].correct, robust)
    assert report.worst_case == pytest.approx(100 * robust.mean()) and 0 < robust.sum() < clean.sum()
    assert report.indices.tolist() == list(range(120)) and report.examples == 120


class Recorder(Attack):
    """Remembers what it was given and flips the image, which fools on some examples."""

    def run(self, model, images, labels, targets=None, *, key):
        self.calls.append((images, labels, key))
        return 1 - images

    @property
    def calls(self):
        return vars(self).setdefault("given", [])


def test_attacks_run_on_all_examples_that_are_classified_rightly_and_on_no_other(digits_classifier, few):
    images, labels = few
    recorder, second = Recorder(eps=1.0), Recorder(eps=1.0)
    asked = {"eps": 1.0, "batch_size": 50, "checks": False, "progress": False}
    report = evaluate(digits_classifier, few, {"first": recorder, "second": second}, **asked)
    clean = report.outcomes["clean"].correct
    assert 0 < clean.sum() < len(clean), "or the test could not fail"
    for attack in (recorder, second):  # what the first has fooled is shown to the second too
        given, answers, keys = zip(*attack.calls, strict=True)
        np.testing.assert_array_equal(np.concatenate(given), images[clean])
        np.testing.assert_array_equal(np.concatenate(answers), labels[clean])
        assert len(set(keys)) == 3, "each batch draws for itself"
    expected = clean & (digits_classifier(1 - images).numpy().argmax(-1) == labels)
    np.testing.assert_array_equal(report.outcomes["first"].correct, expected)


def test_a_dataset_by_name_is_its_test_set(digits_classifier):
    by_name = quiet(digits_classifier, "digits", "fgsm")
    by_hand = quiet(digits_classifier, data.load("digits", "test"), "fgsm")
    assert {**without_seconds(by_name), "dataset": ""} == without_seconds(by_hand)
    assert (by_name.dataset, by_name.examples) == ("digits", 360)


def test_a_subset_is_random_stated_and_repeats(digits_classifier, few):
    images, labels = few
    report = quiet(digits_classifier, few, "fgsm", examples=40, seed=5)
    np.testing.assert_array_equal(report.indices, data.subset(120, 40, seed=5))
    assert (report.examples, report.seed) == (40, 5)
    assert report.indices.tolist() != list(range(40))
    chosen = quiet(digits_classifier, (images[report.indices], labels[report.indices]), "fgsm", seed=5)
    for name, outcome in report.outcomes.items():
        np.testing.assert_array_equal(outcome.correct, chosen.outcomes[name].correct)
    other = quiet(digits_classifier, few, "fgsm", examples=40, seed=6)
    assert other.indices.tolist() != report.indices.tolist()


def test_a_seed_makes_the_report_repeat(digits_classifier, few):
    reports = [
        without_seconds(quiet(digits_classifier, few, "pgd-2", "square-20", seed=seed, batch_size=32))
        for seed in (1, 1, 2)
    ]
    assert reports[0] == reports[1]
    assert reports[0]["outcomes"] != reports[2]["outcomes"]


def test_the_report_states_how_it_was_made(digits_classifier, few):
    report = quiet(digits_classifier, few, "pgd-4", Square(eps=0.05, queries=5), batch_size=64)
    assert report.threat == {"norm": "linf", "eps": EPS} and report.batch_size == 64
    assert report.outcomes["pgd-4"].options["step_size"] == pytest.approx(2.5 * EPS / 4)
    assert report.outcomes["square-5"].options["eps"] == 0.05, "its own"
    assert [outcome.black_box for outcome in report.outcomes.values()] == [False, False, True]
    assert {"keras", "tensorflow", "numpy"} <= report.versions.keys()
    assert report.versions["keras"] == keras.__version__


def test_what_is_left_open_is_taken_from_the_card_while_the_norm_is_the_same(digits_classifier, few):
    model = keras.models.clone_model(digits_classifier)
    threat = {"norm": "linf", "eps": 0.05, "step_size": 0.01}
    object.__setattr__(model, "card", Card("mine", {"name": "mlp"}, threat=threat))

    def steps(**options):
        report = evaluate(model, few, ["pgd-2"], examples=4, checks=False, progress=False, **options)
        used = report.outcomes["pgd-2"].options
        assert report.model == "mine"
        return used["norm"], used["eps"], pytest.approx(used["step_size"])

    assert steps() == ("linf", 0.05, 0.01)
    assert steps(eps=0.05) == ("linf", 0.05, 0.01)
    assert steps(step_size=0.02) == ("linf", 0.05, 0.02)
    assert steps(eps=0.2) == ("linf", 0.2, 0.04), "in proportion to the radius"
    assert steps(eps=np.float32(0.2), step_size=np.float32(0.5)) == ("linf", pytest.approx(0.2), 0.5)
    assert steps(norm="l2", eps=0.05) == ("l2", 0.05, 0.0625)
    with pytest.raises(InputError, match="give eps"):
        steps(norm="l2")
    with pytest.raises(InputError, match="Unknown norm: 'l1'"):
        steps(norm="l1")


def test_a_model_in_reduced_precision_is_evaluated_in_float32(few):
    random.seed(0)
    reduced = models.build("small_cnn", filters=4, hidden=8, dtype="mixed_bfloat16")
    full = models.build("small_cnn", filters=4, hidden=8)
    full.set_weights(reduced.get_weights())
    reports = [without_seconds(quiet(model, few, "pgd-3")) for model in (reduced, full)]
    assert reports[0]["outcomes"] == reports[1]["outcomes"]
    assert any(layer.compute_dtype == "bfloat16" for layer in reduced._flatten_layers())


def test_the_model_is_left_as_it_was(build_conv_classifier, few):
    model = build_conv_classifier()
    before = model.get_weights()
    images, labels = few
    evaluate(model, (images, labels % 5), ["pgd-2", "square-5"], eps=EPS, progress=False)
    for left, right in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_radii_that_numpy_made_are_kept_in_a_report(digits_classifier, few, tmp_path):
    (radius,) = np.linspace(0.1, 0.1, 1)
    report = quiet(digits_classifier, few, FGSM(eps=radius), eps=radius)
    (again,) = json.loads(report.to_json(tmp_path / "report.json").read_text())["outcomes"].keys() - {"clean"}
    assert report.outcomes[again].counted and report.worst_case == report.accuracy[again]


def test_without_a_choice_gradients_and_a_search_are_tried_on_images_and_on_points(linear, few):
    images, labels = few
    on_points = linear(np.array([[1.0, -1.0], [-1.0, 1.0]], "float32"), (2,))
    points, sides = np.array([[0.3, 0.4], [0.9, 0.2]], "float32"), np.array([1, 0])
    asked = {"eps": 0.2, "checks": False, "progress": False}
    report = evaluate(on_points, (points, sides), **asked)
    assert list(report.outcomes) == ["clean", "pgd-40", "rays-1000"]
    assert report.outcomes["pgd-40"].correct.tolist() == report.outcomes["rays-1000"].correct.tolist()
    assert report.outcomes["pgd-40"].correct.tolist() == [False, True], "they are 0.05 and 0.35 from the line"
    on_images = linear(np.eye(64, 10, dtype="float32"), (8, 8, 1))
    report = evaluate(on_images, (images[:5], labels[:5]), **asked)
    assert list(report.outcomes) == ["clean", "pgd-40", "square-1000"]
    with pytest.raises(InputError, match=r"draws squares in images.*\(None, 2\)"):
        evaluate(on_points, (points, sides), ["pgd-40", "square-5"], **asked)
    with pytest.raises(InputError, match="for 4 classes or more"):
        evaluate(on_points, (points, sides), ["autoattack"], **asked)


def test_a_model_that_no_example_survives_is_reported(linear, few):
    model = linear(np.zeros((64, 10), "float32"), (8, 8, 1), 5 * 2 * np.eye(10, dtype="float32")[3])
    images, labels = few
    wrong = (images, np.full_like(labels, 2))
    report = quiet(model, wrong, "fgsm", "square-5")
    assert set(report.accuracy.values()) == {0.0} and report.worst_case == 0.0


def test_progress_is_told_on_standard_error_only(digits_classifier, few, capfd, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as if on a terminal
    evaluate(digits_classifier, few, ["fgsm"], eps=EPS, progress=True)
    out, error = capfd.readouterr()
    assert out == "" and "fgsm" in error
    evaluate(digits_classifier, few, ["fgsm"], eps=EPS, progress=False)
    assert capfd.readouterr() == ("", "")


# Signs of masking


def test_hidden_gradients_are_flagged_and_honest_ones_are_not(digits_classifier, digits):
    images, labels = digits
    honest = split(digits_classifier, at=digits_classifier.layers[0])
    attacks = {"pgd": PGD(eps=EPS, steps=10), "square": Square(eps=EPS, queries=200)}
    reports = {
        kind: evaluate(model, (images[:200], labels[:200]), attacks, eps=EPS, progress=False)
        for kind, model in {"honest": honest, "masked": saturated(honest)}.items()
    }
    honest, hidden = reports["honest"], reports["masked"]
    assert honest.accuracy["clean"] == hidden.accuracy["clean"]
    assert hidden.accuracy["pgd"] > honest.accuracy["pgd"] + 10, "the gradient is hidden"
    assert honest.flags == []
    (flag,) = (text for text in hidden.flags if text.startswith("square leaves"))
    assert "best white-box attack pgd" in flag and "masked" in flag
    assert any("gradient of the cross-entropy is exactly zero" in text for text in hidden.flags)


def test_checks_may_be_left_out(digits_classifier, few):
    hidden = saturated(split(digits_classifier, at=digits_classifier.layers[0]))
    report = quiet(hidden, few, "pgd-5", "square-100", checks=False)
    assert report.flags == [] and report.probes == {}


# Bad input


def build(*outputs, shape=(8, 8, 1)):
    return keras.Sequential([keras.Input(shape), layers.Flatten(), *outputs])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"eps": None}, "give eps for linf, for example eps=8/255"),
        ({"eps": -0.1}, "eps must be a finite number >= 0"),
        ({"norm": "l3"}, "Unknown norm: 'l3'"),
        ({"step_size": -1.0, "attacks": "pgd-2"}, "step_size must be a finite number > 0"),
        ({"attacks": ["pdg-40"]}, "Unknown attack: 'pdg-40'. Did you mean 'pgd-40'"),
        ({"shard": "0/3"}, 'A shard is "i/n" with 1 <= i <= n'),
        ({"shard": "2"}, 'A shard is "i/n"'),
        (
            {"shard": "3/3"},
            "Shard 3/3 is empty: 120 examples make 1 blocks of 128. The shards up to 1/3 have",
        ),
        ({"strategy": "mirrored"}, "strategy must be a tf.distribute.Strategy"),
        ({"attacks": "adaptive"}, "The model declares no adaptive objectives"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1. Received: batch_size=0"),
        ({"examples": 0}, "examples must be in 1..120. Received: 0"),
        ({"examples": 121}, "examples must be in 1..120. Received: 121"),
        ({"examples_from": "mnits"}, "Unknown dataset: 'mnits'. Did you mean 'mnist'?"),
        ({"examples_from": None}, "card names no dataset: give (images, labels) or a dataset's name"),
        ({"examples_from": 3}, "Give (images, labels) or the name of a dataset. Received: int"),
        ({"model": "at_digits"}, "The model must be a built keras.Model. Received: 'at_digits'"),
        ({"model": keras.Sequential([layers.Dense(3)])}, "The model must be a built keras.Model"),
        ({"model": build(layers.Dense(10, activation="softmax"))}, "outputs probabilities where logits"),
        ({"model": build(layers.Dense(10), shape=(8, 8, 3))}, "valid: (N, 8, 8, 3)"),
        ({"model": build(layers.Dense(5))}, "Labels must be integers 0 to 4"),
    ],
)
def test_bad_arguments_are_told(digits_classifier, few, change, words):
    arguments = {"model": digits_classifier, "examples_from": few, "attacks": "fgsm", "eps": EPS, **change}
    with pytest.raises(InputError) as error:
        evaluate(**arguments, progress=False)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (lambda x: (255 * x).astype("uint8"), None, "received uint8"),
        (lambda x: 255 * x, None, "Images must be in [0, 1]"),
        (lambda x: np.where(x > 0.9, np.nan, x), None, "NaN"),
        (lambda x: x[..., 0], None, "valid: (N, 8, 8, 1)"),
        (lambda x: x[:7], None, "120 labels for 7 images"),
        (lambda x: x[:0], None, "no images"),
        (None, lambda y: y[:7], "7 labels for 120 images"),
        (None, lambda y: np.eye(10)[y], "argmax"),
        (None, lambda y: y + 1, "received values from 1 to 10"),
        (None, lambda y: y.astype(float), "received dtype float64"),
        (None, lambda y: 3, "received ()"),
    ],
)
def test_bad_images_and_labels_are_told(digits_classifier, few, images, labels, words):
    x, y = few
    with pytest.raises(InputError) as error:
        quiet(digits_classifier, (images(x) if images else x, labels(y) if labels else y), "fgsm")
    assert words in str(error.value)


def test_tensors_and_lists_are_taken(digits_classifier, few):
    images, labels = few
    kinds = few, (tf.constant(images), tf.constant(labels)), [images.tolist(), labels.tolist()]
    expected, *others = (without_seconds(quiet(digits_classifier, kind, FGSM(eps=EPS))) for kind in kinds)
    assert others == [expected] * 2
    assert quiet(digits_classifier, few, "fgsm", eps=np.float32(EPS)).to_dict()["threat"][
        "eps"
    ] == np.float32(EPS)


class Neighbour(DDN):
    """Shows every image as the one before it."""

    def run(self, model, images, labels, targets=None, *, key):
        return np.roll(images, 1, axis=0)


def test_distances_and_what_they_leave_are_those_of_the_definition(digits_classifier, few):
    images, labels = few
    kernel, bias = digits_classifier.get_weights()

    def right(images, labels):
        return (images.reshape(len(images), -1) @ kernel + bias).argmax(-1) == labels

    clean = right(images, labels)
    moved = np.roll(images[clean], 1, axis=0)
    wrong, delta = ~right(moved, labels[clean]), (moved - images[clean]).reshape(-1, 64)
    expected = {
        "linf": np.abs(delta).max(1),
        "l2": np.linalg.norm(delta, axis=1),
        "rms": np.linalg.norm(delta, axis=1) / 8,
    }
    radius = float(np.median(expected["l2"]))
    asked = {"norm": "l2", "eps": radius, "checks": False, "progress": False}
    outcome = evaluate(digits_classifier, few, {"neighbour": Neighbour()}, **asked).outcomes["neighbour"]
    np.testing.assert_array_equal(outcome.correct[clean], ~(wrong & (expected["l2"] <= radius)))
    assert not outcome.correct[~clean].any() and 0 < outcome.correct[clean].sum() < wrong.sum()
    for name, values in expected.items():
        found = outcome.distances[name]
        np.testing.assert_allclose(found[clean], np.where(wrong, values, np.nan), rtol=1e-5)
        assert np.isnan(found[~clean]).all()
        summary = {"mean": values[wrong].mean(), "median": np.median(values[wrong])}
        assert outcome.distance_summary[name] == pytest.approx(summary, rel=1e-5)


def test_a_minimum_norm_attack_that_finds_nothing_leaves_all_standing(few):
    _, labels = few
    constant = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(10)])
    constant.set_weights([np.zeros((64, 10), "float32"), 2 * np.eye(10, dtype="float32")[3]])
    outcome = quiet(constant, few, "ddn-2", norm="l2").outcomes["ddn-2"]
    np.testing.assert_array_equal(outcome.correct, labels == 3)
    assert all(np.isnan(values).all() for values in outcome.distances.values())
    assert outcome.distance_summary == {}


def test_a_card_says_what_to_evaluate_on(digits_classifier):
    model = keras.models.clone_model(digits_classifier)
    object.__setattr__(model, "card", Card("mine", {}, dataset="digits"))
    assert quiet(model, None, "fgsm", examples=20).dataset == "digits"


@keras.saving.register_keras_serializable("tests")
class Jitter(layers.Layer):
    """Adds noise, drawn anew at every call."""

    def __init__(self, **options):
        super().__init__(**options)
        self.draws = keras.random.SeedGenerator(3)

    def call(self, images):
        return images + 0.3 * keras.random.normal(keras.ops.shape(images), seed=self.draws)


def test_a_classifier_that_draws_noise_gives_the_same_report_again(digits_classifier, few):
    images = keras.Input((8, 8, 1))
    jittery = keras.Model(images, digits_classifier(Jitter()(images)))
    reports = [without_seconds(quiet(jittery, few, "pgd-3", "square-20", batch_size=50)) for _ in range(2)]
    assert reports[0] == reports[1]
    other = without_seconds(quiet(jittery, few, "pgd-3", "square-20", batch_size=50, seed=1))
    assert other["outcomes"] != reports[0]["outcomes"]


def test_a_classifier_that_draws_noise_goes_on_with_what_it_would_have_drawn(digits_classifier, few):
    images = keras.Input((8, 8, 1))
    jittery = keras.Model(images, digits_classifier(Jitter()(images)))
    (state,) = (kept for kept in jittery.variables if kept.name == "seed_generator_state")
    before = np.copy(state)
    quiet(jittery, few, "fgsm", checks=True)
    transfer({"a": jittery, "b": jittery}, few, "fgsm", eps=EPS, progress=False)
    np.testing.assert_array_equal(state, before)
