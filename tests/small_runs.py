"""Training runs of a few steps, for the tests of all that trains or takes a run."""

import atexit
import os
import shutil
import signal
import tempfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import keras

from keras_robust import recipes, training
from keras_robust.recipes import Recipe

# Four steps an epoch of a network of some hundred weights.
SMALL = [
    "threat={norm: linf, eps: 0.1}",
    "architecture.filters=2",
    "architecture.hidden=8",
    "batch_size=32",
    "examples=176",
    "held_out=48",
    "guard={white_box: {name: fgsm}, black_box: {name: square, queries: 3}}",
]
STEPS = 4
FINISHED = ["epochs=2", "optimizer={name: sgd, learning_rate: 0.1, momentum: 0.9, use_ema: true}"]


def small_recipe(*overrides, name="at_digits"):
    """A smoke recipe with `SMALL` and further settings."""
    return recipes.load(name, profile="smoke", overrides=[*SMALL, *overrides])


@cache
def finished_run():
    """The directory of a run with the settings `FINISHED`; leave it as it is."""
    directory = Path(tempfile.mkdtemp(prefix="finished_run_"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    training.train(small_recipe(*FINISHED), directory, verbose=0)
    return directory


@cache
def moons_run():
    """The directory of a run on points in the plane; leave it as it is."""
    directory = Path(tempfile.mkdtemp(prefix="moons_run_"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    training.train(recipes.load("standard_two_moons", "smoke", {"epochs": 1}), directory, verbose=0)
    return directory


class Sender(keras.callbacks.Callback):
    """Sends a signal to this process after a step, or at the end of an epoch, before it is scored."""

    def __init__(self, signum, after_step=None, after_epoch=None):
        super().__init__()
        self.signum, self.after_step, self.after_epoch = signum, after_step, after_epoch

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.step.numpy()) == self.after_step:
            os.kill(os.getpid(), self.signum)

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.after_epoch:
            os.kill(os.getpid(), self.signum)


@contextmanager
def sending(signum, **moment):
    """Within it every run sends itself a signal."""
    if signum == signal.SIGINT:  # a process that was started in the background may ignore it
        signal.signal(signum, signal.default_int_handler)
    callbacks = Recipe.callbacks
    Recipe.callbacks = lambda *given, **options: [Sender(signum, **moment), *callbacks(*given, **options)]
    try:
        yield
    finally:
        Recipe.callbacks = callbacks
