"""The benchmark's section on what makes training on a CPU fast, one thing at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from bench_steps import stepping
from measuring import Row, Run, Setting, build_model, interleaved, pgd, ratio, section

BATCHES = 4  # a turn is as many steps


@section
def training(setting: Setting) -> Iterator[Row]:
    """A step of PGD-1 adversarial training without one of the things that make it fast, over one with all."""
    for name, model, *arrays in setting.subjects():
        step = adversarial_training(build_model(name, "mixed_bfloat16"))
        runs: dict[str, Run] = {
            "all": repeated(step, *arrays),
            "float32": repeated(adversarial_training(model), *arrays),
            "pgd-7": repeated(adversarial_training(build_model(name, "mixed_bfloat16"), steps=7), *arrays),
            "fed": fed(step, *arrays),
        }
        if normalized(model):
            runs["unfused"] = repeated(adversarial_training(unfused(name)), *arrays)
        times = interleaved(runs, setting.repeats)
        measures = {
            "float32": "float32 / mixed_bfloat16",
            "pgd-7": "PGD-7 / PGD-1",
            "unfused": "batch normalisation of Keras / ours",
            "fed": "fed by the pipeline, augmented / one batch again and again",
        }
        for without in (key for key in measures if key in times):
            yield Row("training", name, measures[without], **ratio(times[without], times["all"]))


def adversarial_training(model: Any, steps: int = 1) -> Callable[..., Any]:
    from keras_robust import defenses

    return stepping(defenses.AdversarialTraining(model, pgd(steps), clean_weight=0.0))


def repeated(step: Callable[..., Any], *arrays: np.ndarray) -> Run:
    """Steps on one batch."""
    import tensorflow as tf

    batch = [tf.constant(array) for array in arrays]
    return lambda: [step(*batch) for _ in range(BATCHES)]


def fed(step: Callable[..., Any], images: np.ndarray, labels: np.ndarray) -> Run:
    """Steps on shuffled batches of padded, cropped and flipped images, all from one running pipeline."""
    from keras_robust import data

    many = data.Arrays((255 * np.tile(images, (BATCHES, 1, 1, 1))).astype(np.uint8), np.tile(labels, BATCHES))
    batches = iter(data.pipeline(many, len(images), augment=["pad_crop", "flip"]).repeat())
    return lambda: [step(*batch) for batch in islice(batches, BATCHES)]


def unfused(name: str) -> Any:
    """The model with Keras's own batch normalisation."""
    model = build_model(name, "mixed_bfloat16")
    for layer in normalized(model):
        layer._fuses = lambda inputs: False
    return model


def normalized(model: Any) -> list[Any]:
    """The model's layers of batch normalisation."""
    import keras

    from keras_robust.models.graph import inner_layers

    return [layer for layer in inner_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]
