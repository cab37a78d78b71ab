"""Cheap measurements on a few examples that show whether attacks on a model can be believed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_robust.attacks import PGD, Goal, classify, objectives, observe
from keras_robust.attacks.gradient import value_and_input_gradient
from keras_robust.attacks.predictions import likeliest
from keras_robust.evaluation.planted import planted_success
from keras_robust.registry import Registry
from keras_robust.threat import ThreatModel

MOST = 64  # examples that are looked at

_SCOPES = ("gradient_tape/", "gradients/", "gradients_")  # in which TensorFlow puts what differentiates


class Sample(NamedTuple):
    """What a probe works on: a classifier and a few examples that it classifies rightly."""

    model: keras.Model
    images: np.ndarray
    labels: np.ndarray
    threat: ThreatModel
    seed: int = 0


probes: Registry[Callable[[Sample], Mapping[str, float]]] = Registry("probe")


def probe(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, threat: ThreatModel, *, seed: int = 0
) -> dict[str, float]:
    """What every registered probe measures, for `checks` to judge.

    Args:
        model: maps images in [0, 1] to logits `(B, K)`, in float32.
        images: `(N, H, W, C)` float32 in [0, 1], which the model classifies rightly; at most 64, the
            first ones, are used.
        labels: `(N,)` int32.
        threat: the ball of the evaluation.
        seed: makes it repeat.

    Returns:
        Numbers by name: "probed", how many examples were looked at, and shares of them in percent. Nothing
        if there are no examples, or if the ball is a point or the whole space.

    >>> import keras_robust as kr
    >>> images, labels = kr.data.load("digits", "test")
    >>> values = probe(kr.zoo.load("at_digits"), images[:8], labels[:8], kr.ThreatModel("linf", 0.15))
    >>> values["pgd_20_double_eps"] <= values["pgd_20_half_eps"], values["varying_outputs"]
    (True, 0.0)
    """
    if not len(labels) or not 0 < threat.eps < math.inf:
        return {}
    sample = Sample(model, images[:MOST], labels[:MOST], threat, seed)
    measured = (probes[name](sample).items() for name in probes)
    return {"probed": float(len(sample.labels)), **dict(chain.from_iterable(measured))}


@probes.register("accuracy")
def accuracy(sample: Sample) -> dict[str, float]:
    """Accuracy under PGD of several radii, steps and goals, and what one of two attacks alone has broken.

    The ball of `pgd_20_whole_range` holds every image, so that nothing should stand. Attacks of other radii
    start from the image itself, so that it is their gradients that count: a random start in a large ball
    is another image before the first step.
    """
    standing = {name: _standing(sample, attack) for name, attack in _attacks(sample).items()}
    values = {name: _percent(kept) for name, kept in standing.items()}
    for pair in (("pgd_20", "pgd_20_targeted"), ("pgd_10", "pgd_100")):
        for one, other in (pair, pair[::-1]):
            values[f"only_{one}"] = _percent(~standing[one] & standing[other])
    return values


@probes.register("zero_gradients")
def zero_gradients(sample: Sample) -> dict[str, float]:
    """Share of the examples at which the gradient of the cross-entropy is exactly zero."""
    cross_entropy, goal = objectives["cross_entropy"](), Goal(sample.labels)
    _, gradient = value_and_input_gradient(
        lambda images: cross_entropy(observe(sample.model, images), goal), tf.convert_to_tensor(sample.images)
    )
    flat = np.reshape(gradient, (len(sample.labels), -1))
    return {"zero_gradients": _percent((flat == 0).all(axis=1))}


@probes.register("varying_outputs")
def varying_outputs(sample: Sample) -> dict[str, float]:
    """Largest difference of a logit between two calls, relative to the largest logit."""
    first, second = (np.asarray(observe(sample.model, sample.images).logits) for _ in range(2))
    return {"varying_outputs": float(np.abs(first - second).max() / max(np.abs(first).max(), 1e-30))}


@probes.register("gradient_operations")
def gradient_operations(sample: Sample) -> dict[str, float]:
    """Number of operations in the inference graph, functions in it included, that differentiation made.

    They stand in a name scope of their own, or are of a type that ends in Grad. `Conv2DBackpropInput` is
    no sign of it: a transposed convolution is one.
    """
    signature = tf.TensorSpec((None, *sample.images.shape[1:]), tf.float32)
    inference = tf.function(lambda images: observe(sample.model, images).logits, autograph=False)
    graph = inference.get_concrete_function(signature).graph.as_graph_def()
    nodes = chain(graph.node, *(function.node_def for function in graph.library.function))
    made = [node for node in nodes if node.name.startswith(_SCOPES) or node.op.endswith("Grad")]
    return {"gradient_operations": float(len(made))}


@probes.register("planted")
def planted(sample: Sample) -> dict[str, float]:
    """Share of planted adversarial examples that Auto-PGD and random search find, and how many there were."""
    result = planted_success(sample.model, sample.images, sample.threat, seed=sample.seed)
    return {
        "planted_found": 100 * result.found,
        "planted_random": 100 * result.random,
        "planted_images": float(result.images),
    }


def _attacks(sample: Sample) -> dict[str, PGD]:
    threat = sample.threat
    low, high = (np.full_like(sample.images[:1], bound) for bound in threat.bounds)
    whole_range = float(threat.distance(high, low)[0])

    def pgd(steps: int = 20, eps: float = threat.eps, **options: Any) -> PGD:
        return PGD(eps=eps, norm=threat.norm, bounds=threat.bounds, steps=steps, **options)

    return {
        "pgd_20": pgd(),
        "pgd_20_half_eps": pgd(eps=threat.eps / 2, start=None),
        "pgd_20_double_eps": pgd(eps=2 * threat.eps, start=None),
        "pgd_20_whole_range": pgd(eps=whole_range, start=None),
        "pgd_20_targeted": pgd(targeted=True),
        "pgd_10": pgd(steps=10),
        "pgd_100": pgd(steps=100),
    }


def _standing(sample: Sample, attack: PGD) -> np.ndarray:
    """Which examples, `(N,)` bool, are still classified rightly."""
    model, images, labels, *_ = sample
    targets = next(likeliest(model, images, 1, "auto")) if attack.targeted else None
    return classify(model, attack(model, images, labels, targets, seed=sample.seed)) == labels


def _percent(rows: np.ndarray) -> float:
    return 100.0 * float(rows.mean())
