"""Evaluate on one device and on two logical ones; prints both reports as JSON.

A script, because logical devices are set before TensorFlow starts.
"""

import json
import threading
from typing import ClassVar

import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

import keras_robust as kr  # noqa: E402

STRATEGY = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


class Noted(kr.attacks.PGD):
    """PGD that notes on which device the weights lie that it is given, and in which thread."""

    places: ClassVar[set] = set()

    def run(self, model, images, labels, targets=None, *, key):
        self.places.add((model.weights[0].value.device, threading.get_ident()))
        return super().run(model, images, labels, targets, key=key)


def run(strategy):
    Noted.places.clear()
    attacks = {"pgd": Noted(eps=0.15, steps=3), "square": kr.attacks.Square(eps=0.15, queries=30)}
    report = kr.evaluate(
        kr.zoo.load("at_digits"),
        "digits",
        attacks,
        examples=150,
        batch_size=16,
        checks=False,
        progress=False,
        strategy=strategy,
    ).to_dict()
    for outcome in report["outcomes"].values():
        del outcome["seconds"]
    return {"report": report, "devices": sorted({device for device, _ in Noted.places})}


if __name__ == "__main__":
    print(json.dumps({"one": run(None), "two": run(STRATEGY)}))
