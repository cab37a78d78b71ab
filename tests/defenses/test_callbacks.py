"""The guard keeps what stands against the worse attack; nothing that is saved is ever half-written."""

import csv
import os

import h5py
import keras
import numpy as np
import pytest
from keras import layers
from limits import full_disk

from keras_robust.defenses import Standard
from keras_robust.defenses.callbacks import Checkpoint, EpochLog, RobustGuard, Stopwatch
from keras_robust.errors import InputError

EXAMPLES, CLASSES = 20, 4
LABELS = np.arange(EXAMPLES) % CLASSES
IMAGES = np.eye(CLASSES, dtype="float32")[LABELS].reshape(EXAMPLES, 1, 1, CLASSES)


class Scripted:
    """An attack that finds an adversarial image for so many of its examples, a number a call."""

    def __init__(self, *found):
        self.found = iter(found)
        self.attacked = []

    def __call__(self, model, images, labels):
        self.attacked.append(labels)
        adversarial = images.copy()
        count = next(self.found)
        adversarial[:count] = np.roll(adversarial[:count], 1, axis=-1)
        return adversarial


@pytest.fixture
def defense():
    """Training of a classifier that answers with the largest of its inputs; its scale tells the epoch."""
    classifier = keras.Sequential([keras.Input((1, 1, CLASSES)), layers.Flatten(), layers.Dense(CLASSES)])
    defense = Standard(classifier)
    defense.compile(keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True, ema_momentum=0.5))
    set_scale(defense, 1.0)
    return defense


def set_scale(defense, scale, wrong=0):
    """Weights with which the examples of the first `wrong` classes are misclassified."""
    kernel = scale * np.roll(np.eye(CLASSES), 1, axis=0) if wrong else scale * np.eye(CLASSES)
    if wrong < CLASSES:
        kernel[wrong:] = scale * np.eye(CLASSES)[wrong:]
    defense.classifier.set_weights([kernel, np.zeros(CLASSES)])


def kept_scale(path):
    with h5py.File(path) as file:
        arrays = []
        file.visititems(lambda _, item: arrays.append(item[()]) if isinstance(item, h5py.Dataset) else None)
    return max(float(values.max()) for values in arrays)


def watch(defense, path, length, /, wrong=(), **options):
    """Run a guard over `length` epochs that set the scale to 1, 2, ... and get `wrong` classes wrong."""
    guard = RobustGuard(IMAGES, LABELS, path=path, **options)
    guard.set_model(defense)
    guard.set_params({"epochs": length})
    found = []
    for epoch in range(length):
        set_scale(defense, epoch + 1.0, wrong[epoch] if wrong else 0)
        logs = {"loss": 0.0}
        guard.on_epoch_end(epoch, logs)
        found.append(logs)
    return guard, found


def test_the_epoch_that_is_best_against_the_worse_attack_is_kept(defense, tmp_path):
    white, black = [2, 4, 18, 3, 9], [15, 8, 0, 9, 7]  # the best worse one is that of epoch 1
    path = tmp_path / "best.weights.h5"
    guard, logs = watch(defense, path, 5, white_box=Scripted(*white), black_box=Scripted(*black))
    assert kept_scale(path) == 2.0
    assert guard.best == pytest.approx((1 - 8 / EXAMPLES, 1.0))
    for epoch, found in enumerate(logs):
        assert found == {
            "loss": 0.0,
            "held_out_clean": 1.0,
            "held_out_white_box": pytest.approx(1 - white[epoch] / EXAMPLES),
            "held_out_black_box": pytest.approx(1 - black[epoch] / EXAMPLES),
        }


def test_without_a_file_training_ends_with_what_was_best(defense):
    guard, _ = watch(defense, None, 3, white_box=Scripted(9, 2, 4), black_box=None)
    assert defense.classifier.get_weights()[0].max() == 3.0
    guard.on_train_end()
    assert defense.classifier.get_weights()[0].max() == 2.0


def test_of_equal_epochs_the_first_is_kept(defense, tmp_path):
    watch(defense, tmp_path / "b.weights.h5", 2, white_box=Scripted(5, 5), black_box=Scripted(3, 2))
    assert kept_scale(tmp_path / "b.weights.h5") == 1.0


def test_of_epochs_that_nothing_withstands_that_of_the_best_clean_accuracy_is_kept(defense, tmp_path):
    fallen = {"white_box": Scripted(*[EXAMPLES] * 3), "black_box": Scripted(*[EXAMPLES] * 3)}
    guard, _ = watch(defense, tmp_path / "b.weights.h5", 3, wrong=(CLASSES, 0, CLASSES), **fallen)
    assert kept_scale(tmp_path / "b.weights.h5") == 2.0 and guard.best == (0.0, 1.0)


def test_a_resumed_guard_keeps_only_what_beats_its_earlier_part(defense, tmp_path):
    path = tmp_path / "best.weights.h5"
    watch(defense, path, 3, white_box=Scripted(10, 9, 8), black_box=None, best=(0.6, 1.0))
    assert not path.exists()
    guard, _ = watch(defense, path, 3, white_box=Scripted(10, 7, 9), black_box=None, best=(0.6, 1.0))
    assert kept_scale(path) == 2.0 and guard.best == pytest.approx((0.65, 1.0))


def test_without_attacks_the_clean_accuracy_counts(defense, tmp_path):
    _, logs = watch(defense, tmp_path / "best.weights.h5", 2, white_box=None, black_box=None)
    assert logs[0] == {"loss": 0.0, "held_out_clean": 1.0} and kept_scale(tmp_path / "best.weights.h5") == 1.0


@pytest.mark.parametrize(
    ("options", "scored"),
    [
        ({"every": 3}, [0, 3, 6, 7]),
        ({"every": 3, "epochs": 20}, [0, 3, 6]),
        ({"every": 20}, [0, 7]),
        ({}, [*range(8)]),
    ],
)
def test_the_first_the_last_and_every_so_many_epochs_are_scored(defense, tmp_path, options, scored):
    _, logs = watch(
        defense, tmp_path / "best.weights.h5", 8, white_box=Scripted(*[1] * 8), black_box=None, **options
    )
    assert [epoch for epoch, found in enumerate(logs) if "held_out_white_box" in found] == scored


@pytest.mark.parametrize("wrong", [2, CLASSES])
def test_only_examples_that_are_classified_rightly_are_attacked(defense, tmp_path, wrong):
    attack = Scripted(1)
    guard = RobustGuard(IMAGES, LABELS, attack, None, tmp_path / "best.weights.h5")
    guard.set_model(defense)
    guard.set_params({"epochs": 1})
    set_scale(defense, 1.0, wrong)
    logs = {}
    guard.on_epoch_end(0, logs)
    standing = EXAMPLES * (CLASSES - wrong) // CLASSES
    assert logs["held_out_clean"] == pytest.approx(standing / EXAMPLES)
    assert logs["held_out_white_box"] == pytest.approx(max(standing - 1, 0) / EXAMPLES)
    assert [len(labels) for labels in attack.attacked] == ([standing] if standing else [])
    assert all((labels >= wrong).all() for labels in attack.attacked)


def test_averaged_weights_are_scored_and_kept_and_training_goes_on_with_its_own(defense, tmp_path):
    class Observer(Scripted):
        def __call__(self, model, images, labels):
            self.seen = [weight.copy() for weight in model.get_weights()]
            return super().__call__(model, images, labels)

    defense.optimizer.finalize_variable_values = lambda _: (
        None
    )  # so that the weights stay apart from averages
    defense.fit(IMAGES, LABELS, batch_size=4, epochs=1, verbose=0)
    own = defense.classifier.get_weights()
    averages = [np.asarray(value) for value in defense.optimizer._model_variables_moving_average]
    assert any(np.abs(left - right).max() > 1e-3 for left, right in zip(own, averages, strict=True))
    attack, path = Observer(0), tmp_path / "best.weights.h5"
    guard = RobustGuard(IMAGES, LABELS, attack, None, path)
    guard.set_model(defense)
    guard.set_params({"epochs": 1})
    guard.on_epoch_end(0)
    for left, right in zip(attack.seen, averages, strict=True):
        np.testing.assert_array_equal(left, right)
    for left, right in zip(defense.classifier.get_weights(), own, strict=True):
        np.testing.assert_array_equal(left, right)
    defense.classifier.load_weights(path)
    for left, right in zip(defense.classifier.get_weights(), averages, strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_checkpoint_holds_all_that_training_needs(defense, tmp_path):
    checkpoint = Checkpoint(tmp_path / "checkpoint.weights.h5")
    defense.fit(IMAGES, LABELS, batch_size=4, epochs=2, verbose=0, callbacks=[checkpoint])
    checkpoint.save()
    other = Standard(keras.models.clone_model(defense.classifier))
    other.compile(keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True, ema_momentum=0.5))
    other.load_weights(checkpoint.path)
    assert int(other.step) == 10
    for left, right in zip(other.variables, defense.variables, strict=True):
        np.testing.assert_array_equal(left, right)
    assert len(other.optimizer.variables) > 4
    for left, right in zip(other.optimizer.variables, defense.optimizer.variables, strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_checkpoint_that_does_not_fit_on_the_disk_leaves_the_old_one(defense, tmp_path):
    checkpoint = Checkpoint(tmp_path / "checkpoint.weights.h5")
    checkpoint.set_model(defense)
    checkpoint.save()
    before = checkpoint.path.read_bytes()
    set_scale(defense, 5.0)
    with full_disk(), pytest.raises(InputError, match="Cannot write"):
        checkpoint.on_epoch_end(0)
    assert checkpoint.path.read_bytes() == before
    assert os.listdir(tmp_path) == ["checkpoint.weights.h5"]


def test_a_checkpoint_that_is_interrupted_leaves_the_old_one(defense, tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path / "checkpoint.weights.h5")
    checkpoint.set_model(defense)
    checkpoint.save()
    before = checkpoint.path.read_bytes()

    def half(path, **options):
        path.write_bytes(before[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(defense, "save_weights", half)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save()
    assert checkpoint.path.read_bytes() == before
    assert os.listdir(tmp_path) == ["checkpoint.weights.h5"]


def test_the_log_keeps_the_columns_of_its_first_epoch(tmp_path):
    path = tmp_path / "history.csv"
    EpochLog(path).on_epoch_end(0, {"loss": 0.1 + 0.2, "held_out_clean": 1.0})
    EpochLog(path).on_epoch_end(1, {"loss": 2})
    EpochLog(path).on_epoch_end(2, {"held_out_clean": 0.5, "loss": 1.0, "new": 3.0})
    assert list(csv.DictReader(path.open())) == [
        {"epoch": "0", "loss": "0.30000000000000004", "held_out_clean": "1.0"},
        {"epoch": "1", "loss": "2", "held_out_clean": "NA"},
        {"epoch": "2", "loss": "1.0", "held_out_clean": "0.5"},
    ]


def test_a_log_that_does_not_fit_on_the_disk_stays_as_it_was(tmp_path):
    log = EpochLog(tmp_path / "history.csv")
    log.on_epoch_end(0, {"loss": 1.0})
    before = log.path.read_text()
    with full_disk(len(before) + 3), pytest.raises(InputError, match="Cannot write"):
        log.on_epoch_end(1, {"loss": 1.0 / 3})
    assert log.path.read_text() == before


def test_the_stopwatch_adds_seconds():
    watch, logs = Stopwatch(), {}
    watch.on_epoch_begin(0)
    watch.on_epoch_end(0, logs)
    assert list(logs) == ["seconds"] and 0 <= logs["seconds"] < 60
