"""Every defense, trained for two steps by workers or by one process."""

import json
import random
from functools import partial

import keras
import tensorflow as tf
from defense_building import ADVERSARY, CLASSES, SHAPE, Duel, batch, build

from keras_robust import workers
from keras_robust.defenses import AdversarialTraining, defenses
from keras_robust.models import LatentClassifier

GLOBAL_BATCH = 8


def dataset():
    data = tf.data.Dataset.from_tensor_slices(batch(2 * GLOBAL_BATCH + 1))  # the last one is dropped
    return data.batch(GLOBAL_BATCH, drop_remainder=True)


def toy(defense):
    return build(defense, seed=2, weight_decay=0.01)


def normalized():
    """A defense of a classifier with synchronised batch normalisation."""
    random.seed(1)
    normalization = keras.layers.BatchNormalization(momentum=0.5, synchronized=True)
    inputs = [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(6), normalization]
    head = keras.Sequential([keras.Input((6,)), keras.layers.Dense(CLASSES)])
    return AdversarialTraining(LatentClassifier(keras.Sequential(inputs), head), ADVERSARY)


FURTHER = {
    "two players": partial(toy, Duel),
    "synchronised batch normalisation": normalized,
}
MADE = {**{name: partial(toy, name) for name in defenses}, **FURTHER}


def train(make, strategy):
    """Two steps of a defense: the logs, and the weights before and after them."""
    with strategy.scope():
        defense = make()
        for term in defense.coupled_terms:  # of each replica's pairs only
            defense.terms[term] = 0.0
        metrics = [keras.metrics.SparseCategoricalAccuracy("accuracy")]  # by name it would trace twice
        # Eagerly in one process: two are compared with the steps as they are written.
        alone = strategy.num_replicas_in_sync == 1
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True)
        defense.compile(optimizer, metrics=metrics, run_eagerly=alone)
    start = defense.get_weights()
    history = defense.fit(dataset(), shuffle=False, verbose=0).history
    return {
        "logs": {key: values[-1] for key, values in history.items()},
        "start": [weight.tolist() for weight in start],
        "weights": [weight.tolist() for weight in defense.get_weights()],
    }


def train_all(path, names):
    """Train the defenses of these names under the strategy of several workers; the results go to a file."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    strategy = workers.strategy("multiworker")
    done = {name: train(MADE[name], strategy) for name in names}
    path.write_text(json.dumps(done))
