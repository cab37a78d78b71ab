"""`krobust` in worker processes, some of which are killed."""

import os
import signal
import sys
from contextlib import suppress

import keras
from small_runs import FINISHED, Sender, small_recipe

from keras_robust import training, workers
from keras_robust.attacks import Attack
from keras_robust.cli import main
from keras_robust.defenses import Defense


def krobust(*arguments):
    """The command line."""
    main(list(map(str, arguments)))


def killed_after(step, *arguments):
    """The command line of a worker that is killed after a training step."""
    fit, killer = Defense.fit, Sender(signal.SIGKILL, after_step=step)
    Defense.fit = lambda self, *data, callbacks, **options: fit(
        self, *data, callbacks=[*callbacks, killer], **options
    )
    krobust(*arguments)


def killed_while_writing(*arguments):
    """The command line of a chief that is killed when it has written half a checkpoint."""
    save = Defense.save_weights

    def half(self, path, **options):
        save(self, path, **options)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    Defense.save_weights = half
    krobust(*arguments)


def killed_while_attacking(*arguments):
    """The command line of a worker that is killed in its first attack."""
    Attack.run = lambda *given, **options: os.kill(os.getpid(), signal.SIGKILL)
    krobust(*arguments)


def fit(strategy, directory):
    """A recipe by Python's `fit`, with validation and everything that it writes."""
    recipe = small_recipe(*FINISHED)
    with strategy.scope():
        defense = recipe.build()
    train, test = recipe.data()
    callbacks = recipe.callbacks(directory)
    defense.fit(train, validation_data=test, epochs=1, callbacks=callbacks, shuffle=False, verbose=0)
    return defense


def fit_together(directory):
    """What each worker does."""
    fit(workers.strategy("multiworker"), directory)


class Stopped(Exception):
    """A run ends early."""


def stop(epoch, logs=None):
    """Before the second epoch."""
    if epoch:
        raise Stopped


def backed_up(directory):
    """A run that is stopped after its first epoch, and goes on with what Keras has backed up."""
    strategy, recipe = workers.strategy("multiworker"), small_recipe(*FINISHED, name="standard_digits")
    train, _ = recipe.data()
    for stopping in ([keras.callbacks.LambdaCallback(on_epoch_begin=stop)], []):
        with strategy.scope():
            defense = recipe.build()
        if not workers.is_chief(strategy):
            defense.save_weights = lambda *given, **options: sys.exit("only the chief backs up")
        backup = keras.callbacks.BackupAndRestore(directory / "backup")
        with suppress(Stopped):
            history = defense.fit(train, epochs=2, callbacks=[backup, *stopping], shuffle=False, verbose=0)
    assert history.epoch == [1]
    if workers.is_chief(strategy):
        defense.save_weights(directory / training.CHECKPOINT)


def idle():
    """Do nothing, as a worker."""
    workers.strategy("multiworker")
    print("idle", flush=True)
    signal.pause()
