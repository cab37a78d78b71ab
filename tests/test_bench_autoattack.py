"""How AutoAttack is compared with its authors': the bookkeeping, and the twin where PyTorch is at hand."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_robust import models
from keras_robust.errors import InputError

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
import bench_autoattack as bench
import reference
from bench_autoattack import Outcome

needs_reference = pytest.mark.skipif(
    not reference.installed(), reason="torch and pyautoattack are not installed (extra: reference)"
)


def run(seconds=1.0, **accuracies):
    return {name.replace("_", "-"): Outcome(accuracy, seconds) for name, accuracy in accuracies.items()}


def subject(model=None, size=8, eps=0.9):
    model = model or models.build("small_cnn")
    images = np.random.default_rng(0).random((size, *model.input_shape[1:]), dtype=np.float32)
    labels = np.argmax(model(images), axis=1).astype("int32")
    return bench.Subject("made up", model, images, labels, eps, "linf", batch=4)


# Bookkeeping


def test_a_stage_sees_what_the_one_before_left():
    seen = []

    def keep(bound):
        def stage(images, labels):
            seen.append(images.tolist())
            assert (images == labels).all()
            return images < bound

        return stage

    examples = np.arange(8)
    found = bench.in_stages({"a": keep(4), "b": keep(2), "c": keep(0), "d": keep(9)}, examples, examples)
    assert {name: outcome.accuracy for name, outcome in found.items()} == {"a": 50, "b": 25, "c": 0, "d": 0}
    assert seen == [list(range(8)), list(range(4)), [0, 1]]


def test_speed_compares_the_fastest_runs():
    runs = {
        "as shipped": {0: run(6, a=50), 1: run(4, a=50)},
        "channels-last": {0: run(3, a=50), 1: run(3, a=50)},
        "standard": {0: run(2, a=50), 1: run(3, a=50)},
        "fast": {0: run(1, a=50), 1: run(1, a=50)},
    }
    rows = list(bench.speed("model", runs))
    assert [row.value for row in rows] == pytest.approx([2, 1.5, 4])
    assert [str(row.target) for row in rows] == [">= 1.8", ">= 1.1", ">= 3"]


def test_without_the_reference_its_rows_say_so():
    runs = {"standard": {0: run(a=50)}, "fast": {0: run(a=50)}}
    assert all("not installed" in row.detail for row in bench.speed("model", runs))
    (row,) = bench.parity("model", runs)
    assert row.value == 0 and row.passed


@pytest.mark.parametrize(
    ("ours", "theirs", "passed"),
    [([50.2], [50.0], True), ([50.5], [50.0], False), ([50.5, 50.5], [50.0, 51.0], True)],
)
def test_parity_allows_the_references_own_spread(ours, theirs, passed):
    runs = {
        "as shipped": {seed: run(a=value) for seed, value in enumerate(theirs)},
        "standard": {seed: run(a=value) for seed, value in enumerate(ours)},
        "fast": {seed: run(a=value) for seed, value in enumerate(ours)},
    }
    row, *_ = bench.parity("model", runs)
    assert row.passed is passed
    assert row.value == pytest.approx(abs(np.mean(ours) - np.mean(theirs)))


def test_fast_is_held_against_standard_by_what_stands_at_the_end():
    runs = {"standard": {0: run(a=60, b=50)}, "fast": {0: run(a=51)}}
    (row,) = bench.parity("model", runs)
    assert row.value == pytest.approx(1) and not row.passed


def test_overhead_is_over_the_counted_evaluations_of_what_stands(monkeypatch):
    monkeypatch.setattr(bench, "EVALUATIONS", {"a": (10, 4), "b": (0, 5)})
    runs = {0: run(seconds=8.0, a=50, b=0)}
    (row,) = bench.overhead(subject(), runs, costs=(0.1, 0.25))
    assert row.value == pytest.approx(8 / (4 * (10 * 0.1 + 4 * 0.25)))


class Counting(keras.layers.Layer):
    """Counts the examples that pass it forward and backward."""

    def __init__(self):
        super().__init__()
        self.forward, self.backward = (tf.Variable(0, trainable=False) for _ in range(2))

    def call(self, inputs):
        @tf.custom_gradient
        def passing(inputs):
            self.forward.assign_add(tf.shape(inputs)[0])

            def gradient(upstream):
                self.backward.assign_add(tf.shape(upstream)[0])
                return upstream

            return tf.identity(inputs), gradient

        return passing(inputs)


def test_the_counts_of_evaluations_are_those_of_our_stages():
    layer = Counting()
    layers = [keras.Input((4, 4, 1)), layer, keras.layers.Flatten(), keras.layers.Dense(10)]
    made_up = subject(keras.Sequential(layers), size=1, eps=1e-6)
    counts = {}

    def counted(stages, images, labels):
        for name, stage in stages.items():
            layer.forward.assign(0)
            layer.backward.assign(0)
            assert stage(images, labels).all()
            gradients = int(layer.backward)
            counts[name] = (gradients, int(layer.forward) - gradients)
        return {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "in_stages", counted)
        bench.ours("standard", made_up)(0)
    assert counts.pop("clean") == (0, 1)
    assert counts == bench.EVALUATIONS


# Runs that are kept


def test_runs_take_turns_and_are_kept_and_not_repeated(monkeypatch, tmp_path):
    calls = []

    def prepare(name):
        def at_seed(seed):
            calls.append((name, seed))
            return run(a=10.0 * seed)

        return lambda subject: at_seed

    monkeypatch.setattr(bench, "OURS", {"ours": prepare("ours")})
    monkeypatch.setattr(bench, "THEIRS", {"theirs": prepare("theirs")})
    monkeypatch.setattr(reference, "installed", lambda: True)
    monkeypatch.setattr(bench, "about", lambda subject: {"model": subject.name})
    path, made_up = tmp_path / "runs.json", subject()

    def measure(seeds):
        return bench.measured(
            made_up, seeds, bench.kept(path, made_up), lambda runs: bench.keep(path, made_up, runs)
        )

    measure(1)
    again = measure(2)
    assert calls == [("ours", 0), ("theirs", 0), ("theirs", 1), ("ours", 1)]
    assert again == bench.kept(path, made_up)
    assert again["ours"][1]["a"].accuracy == 10


def test_runs_of_something_else_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "about", lambda subject: {"eps": subject.eps})
    bench.keep(tmp_path / "runs.json", subject(eps=0.1), {})
    with pytest.raises(InputError, match="Choose another file"):
        bench.kept(tmp_path / "runs.json", subject(eps=0.2))


def test_the_table_has_a_row_for_each_stage():
    runs = {
        "fast": {0: run(2, clean=99, square=60)},
        "standard": {0: run(3, clean=99, fab=61, square=60), 1: run(2, clean=99, fab=60.5, square=60)},
    }
    assert bench.table(runs).splitlines() == [
        "| after | fast | standard |",
        "| --- | ---: | ---: |",
        "| clean | 99.00 % (2 s) | 99.00 % (2 s) |",
        "| fab |  | 60.50 to 61.00 % (2 s) |",
        "| square | 60.00 % (2 s) | 60.00 % (2 s) |",
        "| all | 4 s | 6 s |",
    ]


# The reference


def with_biases(model):
    rng = np.random.default_rng(0)
    model.set_weights([values + 0.1 * rng.normal(size=values.shape) for values in model.get_weights()])
    return model


@needs_reference
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"name": "small_cnn"},
        {"name": "cnn_4c3f", "filters": 4, "hidden": 8, "input_shape": (20, 16, 3)},
        {"name": "cnn_4c3f", "filters": 4, "hidden": 8, "variant": "carlini", "latent": "3C"},
        {"name": "wide_resnet", "depth": 10, "width": 1, "input_shape": (16, 12, 3)},
        {"name": "resnet", "width": 4, "input_shape": (17, 16, 3)},
        {"name": "resnet", "width": 4, "version": 2, "bottleneck": True, "input_shape": (16, 16, 3)},
    ],
    ids=lambda options: options["name"],
)
def test_the_twins_logits_agree(options, channels_last):
    made_up = subject(with_biases(models.build(**options)))
    twin = reference.checked_twin(made_up.model, made_up.images, channels_last)
    assert reference.difference(made_up.model, twin, made_up.images) <= reference.TOLERANCE


@pytest.fixture(autouse=True)
def one_thread():
    """Small models gain nothing from more threads, and lose much where cores are shared."""
    if reference.installed():
        reference.use_threads(1)


@needs_reference
def test_a_twin_that_differs_is_refused(monkeypatch):
    monkeypatch.setattr(reference, "TOLERANCE", -1.0)
    made_up = subject()
    with pytest.raises(InputError, match="must agree"):
        reference.checked_twin(made_up.model, made_up.images)


@needs_reference
def test_a_layer_without_a_twin_is_named():
    layers = [keras.layers.Flatten(), keras.layers.LayerNormalization(), keras.layers.Dense(3)]
    with pytest.raises(InputError, match="a LayerNormalization"):
        reference.twin(keras.Sequential([keras.Input((4, 4, 1)), *layers]))


@needs_reference
@pytest.mark.parametrize(("eps", "left"), [(0.9, 0), (1e-6, 100)])
def test_the_reference_runs_stage_by_stage(eps, left):
    made_up = subject(eps=eps)
    network = reference.twin(made_up.model)
    stages = reference.stages(network, eps, "linf", seed=0, batch=4)
    assert list(stages) == ["clean", *bench.EVALUATIONS]
    first = {name: stages[name] for name in ("clean", "apgd-ce")}
    found = bench.in_stages(first, made_up.images, made_up.labels)
    assert [outcome.accuracy for outcome in found.values()] == [100, left]
