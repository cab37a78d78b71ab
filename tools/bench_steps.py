"""The benchmark's sections on training steps: against their parts, and against each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from measuring import (
    EPS,
    Row,
    Run,
    Setting,
    Target,
    build_model,
    interleaved,
    pgd,
    ratio,
    section,
)


@section
def step(setting: Setting) -> Iterator[Row]:
    """A step of adversarial training over the sum of its attack and its weight update, each alone."""
    import tensorflow as tf

    from keras_robust import defenses

    for name, model, *arrays in setting.subjects():
        images, labels = map(tf.constant, arrays)
        defense = defenses.AdversarialTraining(model, pgd(10))
        runs: dict[str, Run] = {
            "step": partial(stepping(defense), images, labels),
            "attack": attack_in_graph(pgd(10), model, images, labels),
            "update": weight_update(model, images, labels),
        }
        times = interleaved(runs, setting.repeats)
        compared = ratio(times["step"], times["attack"] + times["update"])
        yield Row("step", name, "PGD-10 step / (attack + update)", target=Target("<=", 1.10), **compared)


def attack_in_graph(adversary: Any, model: Any, images: Any, labels: Any) -> Run:
    """The attack of a training step as a compiled function of its own."""
    import tensorflow as tf

    from keras_robust.noise import Noise

    @tf.function(autograph=False)
    def run(images: Any, labels: Any) -> Any:
        return adversary.perturb(model, images, labels, Noise((0, 0)))

    return lambda: run(images, labels).numpy()


def weight_update(model: Any, images: Any, labels: Any) -> Run:
    """Forward and backward pass on clean and adversarial images and the optimizer's update, compiled."""
    from keras_robust.losses import cross_entropy

    def loss(clean: Any, adversarial: Any, labels: Any) -> Any:
        return sum(cross_entropy(labels, model(x, training=True)) for x in (clean, adversarial))

    return descent(model, loss, images, 1 - images, labels)


def descent(model: Any, loss: Callable[..., Any], *tensors: Any) -> Run:
    """One step of SGD on the mean of `loss(*tensors)`, compiled."""
    import keras
    import tensorflow as tf

    optimizer = keras.optimizers.SGD(1e-4, momentum=0.9)
    optimizer.build(model.trainable_variables)

    @tf.function(autograph=False)
    def run(*tensors: Any) -> Any:
        with tf.GradientTape() as tape:
            mean = tf.reduce_mean(loss(*tensors))
        optimizer.apply(tape.gradient(mean, model.trainable_variables), model.trainable_variables)
        return mean

    return lambda: run(*tensors).numpy()


@section
def adr(setting: Setting) -> Iterator[Row]:
    """A step of ADR over one of adversarial training with the same adversary, PGD-20."""
    from keras_robust import defenses

    for name, _, *batch in setting.subjects():
        pair = [cls(build_model(name), pgd(20)) for cls in (defenses.ADR, defenses.AdversarialTraining)]
        compared = steps_compared(*pair, *batch, setting.repeats)
        yield Row("adr", name, "ADR / AdversarialTraining step", target=Target("<=", 1.15), **compared)


@section
def mat(setting: Setting) -> Iterator[Row]:
    """A step of MAT, SO and BIBO, over one of TRADES on the same network, with 10 inner steps each."""
    from keras_robust import defenses

    for name, _, *batch in setting.subjects():
        pair = [
            cls(build_model(name, head={"name": "cosine_centers"}), pgd(10, loss=loss))
            for cls, loss in ((defenses.MAT, "cosine_distance"), (defenses.TRADES, "kl"))
        ]
        compared = steps_compared(*pair, *batch, setting.repeats)
        yield Row("mat", name, "MAT / TRADES step", target=Target("<=", 1.10), **compared)


def steps_compared(
    defense: Any, other: Any, images: np.ndarray, labels: np.ndarray, repeats: int
) -> dict[str, Any]:
    """The time of a step of a defense over that of another's."""
    import tensorflow as tf

    runs = {"defense": stepping(defense), "other": stepping(other)}
    batch = tf.constant(images), tf.constant(labels)
    times = interleaved({name: partial(run, *batch) for name, run in runs.items()}, repeats)
    return ratio(times["defense"], times["other"])


def stepping(defense: Any) -> Callable[..., Any]:
    """A defense's training step on a batch."""
    import keras

    defense.compile(optimizer=keras.optimizers.SGD(1e-4, momentum=0.9))
    return defense.train_on_batch


@section
def atld(setting: Setting) -> Iterator[Row]:
    """A step of ATLD over the sum of its parts: one input gradient and the steps of both players."""
    import tensorflow as tf

    from keras_robust import attacks, defenses, losses

    for name, model, *arrays in setting.subjects():
        images, labels = map(tf.constant, arrays)
        adversary = pgd(1, step_size=EPS)
        defense = defenses.ATLD(model, adversary)
        critic, logits = defense.discriminator, tf.random.normal((len(images), 10), seed=0)

        def classifier_loss(clean: Any, adversarial: Any, labels: Any, model: Any = model) -> Any:
            fixed, moved = (model(images, training=True) for images in (clean, adversarial))
            hard = losses.soft_cross_entropy(losses.smoothed_labels(labels, 10), moved)
            return hard + 0.5 * losses.logit_matching(tf.stop_gradient(fixed), moved)

        def critic_loss(clean: Any, adversarial: Any, labels: Any, critic: Any = critic) -> Any:
            outputs = [critic(latents, training=True) for latents in (clean, adversarial)]
            targets = losses.smoothed_labels(labels, 10)
            classes = [losses.soft_cross_entropy(targets, found["classes"]) for found in outputs]
            return sum(classes) - losses.manifold_bound(*(found["manifold"] for found in outputs))

        ascent = replace(adversary, loss=attacks.Separation(critic))
        runs: dict[str, Run] = {
            "step": partial(stepping(defense), images, labels),
            "gradient": attack_in_graph(ascent, model, images, labels),
            "classifier": descent(model, classifier_loss, images, 1 - images, labels),
            "discriminator": descent(critic, critic_loss, logits, -logits, labels),
        }
        times = interleaved(runs, setting.repeats)
        parts = times["gradient"] + times["classifier"] + 2 * times["discriminator"]
        compared = ratio(times["step"], parts)
        yield Row("atld", name, "ATLD step / its parts", target=Target("<=", 1.15), **compared)
