"""Train the defenses that are named on one device and on two logical ones; prints what came out as JSON.

A script, because logical devices are set before TensorFlow starts, and a process takes one strategy.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

from defense_building import Duel, batch, build  # noqa: E402

from keras_robust.attacks import BIM  # noqa: E402
from keras_robust.defenses import defenses  # noqa: E402

GLOBAL_BATCH = 8
STRATEGY = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def dataset(drop_remainder=True):
    images, labels = batch(2 * GLOBAL_BATCH + 1)
    data = tf.data.Dataset.from_tensor_slices((images, labels))
    return data.batch(GLOBAL_BATCH, drop_remainder=drop_remainder)


def run(name, strategy):
    with strategy.scope():
        defense = build(name, seed=2, weight_decay=0.01)
        for term in defense.coupled_terms:  # of each replica's pairs only
            defense.terms[term] = 0.0
        metrics = [keras.metrics.SparseCategoricalAccuracy("accuracy")]  # by name it would trace twice
        # Eagerly on one device: two are compared with the steps as they are written.
        alone = strategy.num_replicas_in_sync == 1
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True)
        defense.compile(optimizer, metrics=metrics, run_eagerly=alone)
        start = defense.get_weights()
    history = defense.fit(dataset(), verbose=0).history
    with strategy.scope():
        ends = [weight.tolist() for weight in defense.get_weights()]
        replicas = [
            [np.asarray(local).tolist() for local in strategy.experimental_local_results(variable.value)]
            for variable in defense.trainable_variables
        ]
    return {
        "start": [weight.tolist() for weight in start],
        "logs": {key: values[-1] for key, values in history.items()},
        "weights": ends,
        "replicas": replicas,
    }


def evaluated(name, strategy):
    """What a defense reports of its test step; of the last batch one device gets nothing."""
    with strategy.scope():
        defense = build(name, seed=2)
        defense.compile(metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")])
    return defense.evaluate(dataset(drop_remainder=False), verbose=0, return_dict=True)


def coupled_step(name, strategy):
    """Weights after one step in which each replica is given the same images, with its coupled terms."""
    images, labels = batch(GLOBAL_BATCH // 2)
    count = strategy.num_replicas_in_sync
    copies = np.concatenate([images] * count), np.concatenate([labels] * count)
    with strategy.scope():
        defense = build(name, adversary=BIM(eps=0.1, steps=2))
        defense.compile(keras.optimizers.SGD(0.1), run_eagerly=count == 1)
    defense.fit(tf.data.Dataset.from_tensors(copies), verbose=0)
    with strategy.scope():
        return [weight.tolist() for weight in defense.classifier.get_weights()]


def slices():
    """The images that each replica is given, for each global batch."""
    distributed = STRATEGY.experimental_distribute_dataset(dataset())
    return [
        [local.numpy().tolist() for local in STRATEGY.experimental_local_results(images)]
        for images, _ in distributed
    ]


if __name__ == "__main__":
    names = sys.argv[1:]
    made = {name: name for name in names} | {"duel": Duel}
    report = {
        name: {"one": run(defense, tf.distribute.get_strategy()), "two": run(defense, STRATEGY)}
        for name, defense in made.items()
    }
    coupled = {
        name: [coupled_step(name, strategy) for strategy in (tf.distribute.get_strategy(), STRATEGY)]
        for name in names
        if defenses[name].coupled_terms
    }
    tested = [evaluated("trades", strategy) for strategy in (tf.distribute.get_strategy(), STRATEGY)]
    parts = {"slices": slices(), "defenses": report, "coupled": coupled, "evaluated": tested}
    print(json.dumps({"replicas": STRATEGY.num_replicas_in_sync, **parts}))
