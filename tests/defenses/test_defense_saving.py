"""What is saved is all that training needs: it goes on as if it had not stopped."""

from functools import cache

import keras
import numpy as np
import pytest
from defense_building import EVERY_IF_WHOLE, Duel, batch, build

from keras_robust.defenses import defenses

EVERY = pytest.mark.parametrize("defense", [*defenses, Duel])
IF_WHOLE = pytest.mark.parametrize("defense", [*EVERY_IF_WHOLE, Duel])
IMAGES, LABELS = batch(12)


def compiled(defense):
    made = build(defense, dropout=0.5, seed=3)
    _, *others = made.players()
    optimizers = {player: keras.optimizers.SGD(0.1, momentum=0.9) for player in others}
    made.compile(keras.optimizers.Adam(0.01), optimizers=optimizers, metrics=["accuracy"], run_eagerly=True)
    return made


def train(defense, first, last, **options):
    """The epochs from `first` to `last`, of two batches each."""
    data = {"batch_size": 6, "shuffle": False, "verbose": 0}
    return defense.fit(IMAGES, LABELS, initial_epoch=first, epochs=last, **data, **options)


@pytest.fixture(scope="module")
def trained():
    """Each defense after a number of epochs in one go; trained once, so leave it as it is."""

    @cache
    def run(defense, epochs):
        made = compiled(defense)
        train(made, 0, epochs)
        return made

    return run


def options(defense):
    """The plain part of its config; parts that are serialized objects carry an id of the object."""
    return {key: value for key, value in defense.get_config().items() if not isinstance(value, dict)}


def assert_same_state(one, other):
    assert int(one.step) == int(other.step) > 0
    for left, right in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)
    for player in one.players():
        pairs = zip(one.optimizer_of(player).variables, other.optimizer_of(player).variables, strict=True)
        for left, right in pairs:
            np.testing.assert_array_equal(left, right, err_msg=f"{player}: {left.path}")


@IF_WHOLE
def test_weights_file_continues_bit_for_bit(defense, trained, tmp_path):
    path = tmp_path / "state.weights.h5"
    first = trained(defense, 1)
    first.save_weights(path)
    second = compiled(defense)
    second.load_weights(path)
    assert_same_state(first, second)
    train(second, 1, 2)
    assert_same_state(second, trained(defense, 2))


@EVERY
def test_keras_file_continues_bit_for_bit(defense, trained, tmp_path):
    path = tmp_path / "defense.keras"
    first = trained(defense, 1)
    first.save(path)
    second = keras.saving.load_model(path)
    assert type(second) is type(first)
    assert options(second) == options(first)
    assert second.adversary == first.adversary
    assert second.compiled
    assert_same_state(first, second)
    np.testing.assert_array_equal(second.predict(IMAGES, verbose=0), first.predict(IMAGES, verbose=0))
    history = train(second, 1, 2).history
    assert "accuracy" in history
    assert_same_state(second, trained(defense, 2))


@EVERY
def test_keras_file_of_an_uncompiled_defense(defense, tmp_path):
    first = build(defense)
    first.save(tmp_path / "defense.keras")
    second = keras.saving.load_model(tmp_path / "defense.keras")
    assert not second.compiled
    np.testing.assert_array_equal(second.predict(IMAGES, verbose=0), first.predict(IMAGES, verbose=0))


class Stop(Exception):
    pass


@IF_WHOLE
def test_backup_and_restore_resumes(defense, trained, tmp_path):
    def stop(epoch, logs=None):
        if epoch == 1:
            raise Stop

    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(Stop):
        callbacks = [backup, keras.callbacks.LambdaCallback(on_epoch_begin=stop)]
        train(compiled(defense), 0, 2, callbacks=callbacks)
    second = compiled(defense)
    history = train(second, 0, 2, callbacks=[keras.callbacks.BackupAndRestore(tmp_path / "backup")])
    assert history.epoch == [1]
    assert_same_state(second, trained(defense, 2))
