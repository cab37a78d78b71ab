"""The benchmark's sections on other libraries: their time, and what they find, beside ours."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from measuring import (
    EPS,
    STEP_SIZE,
    Row,
    Run,
    Setting,
    Target,
    interleaved,
    not_installed,
    our_pgd,
    pgd,
    ratio,
    section,
    trained_or_random,
)

_AGREEMENT = 1000  # images
_MINIMUM_NORM = 100


@section
def libraries(setting: Setting) -> Iterator[Row]:
    """PGD-10 of other libraries over ours, in float32 as theirs, and searching in bfloat16."""
    for name, model, images, labels in setting.subjects():
        for library, (prepare, limit) in LIBRARIES.items():
            measure = f"{library} / ours"
            try:
                theirs = prepare(model, images, labels, 10, EPS, STEP_SIZE)
            except ImportError:
                yield not_installed("libraries", name, measure)
                continue
            ours = {
                dtype: our_pgd(model, images, labels, steps=10, search_dtype=dtype)
                for dtype in ("float32", "bfloat16")
            }
            times = interleaved({"theirs": theirs, **ours}, setting.repeats)
            for dtype in ours:
                compared = ratio(times["theirs"], times[dtype])
                row = f"{measure} in {dtype}"
                yield Row("libraries", name, row, target=Target(">=", limit), **compared)


def foolbox_pgd(
    model: Any, images: np.ndarray, labels: np.ndarray, steps: int, eps: float, step_size: float
) -> Run:
    import foolbox
    import tensorflow as tf

    wrapped = foolbox.TensorFlowModel(model, bounds=(0, 1))
    adversary = foolbox.attacks.LinfPGD(steps=steps, abs_stepsize=step_size, random_start=True)
    # int64 like its predictions: under NumPy 2 EagerPy cannot compare two types of integers.
    batch = tf.constant(images), tf.constant(labels, tf.int64)
    return lambda: np.asarray(adversary(wrapped, *batch, epsilons=eps)[1])


def art_pgd(
    model: Any, images: np.ndarray, labels: np.ndarray, steps: int, eps: float, step_size: float
) -> Run:
    import keras
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import TensorFlowV2Classifier

    wrapped = TensorFlowV2Classifier(
        model,
        nb_classes=model.output_shape[-1],
        input_shape=images.shape[1:],
        loss_object=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        clip_values=(0, 1),
    )
    adversary = ProjectedGradientDescent(
        wrapped,
        norm=np.inf,
        eps=eps,
        eps_step=step_size,
        max_iter=steps,
        num_random_init=1,
        batch_size=len(images),
        verbose=False,
    )
    return partial(adversary.generate, images, labels)


def cleverhans_pgd(
    model: Any, images: np.ndarray, labels: np.ndarray, steps: int, eps: float, step_size: float
) -> Run:
    import tensorflow as tf
    from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

    run = partial(
        projected_gradient_descent,
        partial(model, training=False),
        tf.constant(images),
        eps,
        step_size,
        steps,
        np.inf,
        clip_min=0,
        clip_max=1,
        y=tf.constant(labels),
        rand_init=True,
    )
    return lambda: run().numpy()


# Each with how many times faster ours should be.
LIBRARIES = {
    "Foolbox": (foolbox_pgd, 2.5),
    "ART": (art_pgd, 3.0),
    "CleverHans": (cleverhans_pgd, 1.3),
}


@section
def agreement(setting: Setting) -> Iterator[Row]:
    """Robust accuracy under our PGD-40 against Foolbox's, on a trained model if there is one."""
    from keras_robust import attacks

    name, model, images, labels, budget = trained_or_random(setting, setting.examples or _AGREEMENT)
    measure = "|ours - Foolbox|, PGD-40, points"
    parts = [slice(first, first + setting.batch) for first in range(0, len(images), setting.batch)]

    def accuracy(adversarial: np.ndarray) -> float:
        return 100 * float((attacks.classify(model, adversarial) == labels).mean())

    try:
        theirs = accuracy(
            np.concatenate([foolbox_pgd(model, images[part], labels[part], 40, *budget)() for part in parts])
        )
    except ImportError:
        yield not_installed("agreement", name, measure)
        return
    ours = accuracy(pgd(40, *budget)(model, images, labels))
    detail = f"{ours:.2f} / {theirs:.2f} % of {len(images)}"
    yield Row("agreement", name, measure, abs(ours - theirs), Target("<=", 1.0), detail=detail)


@section
def minimum_norm(setting: Setting) -> Iterator[Row]:
    """Mean L2 norms that our minimum-norm attacks find against those of Foolbox's, with equal parameters."""
    from keras_robust import attacks

    name, model, images, labels, _ = trained_or_random(setting, setting.examples or _MINIMUM_NORM)
    search: dict[str, Any] = {"steps": 200, "binary_search_steps": 4, "initial_const": 1.0}
    pairs: dict[str, tuple[Any, str, dict[str, Any]]] = {
        "DDN-100": (attacks.DDN(steps=100), "DDNAttack", {"steps": 100}),
        "CW-L2-200": (
            attacks.CWL2(learning_rate=0.1, **search),
            "L2CarliniWagnerAttack",
            {"stepsize": 0.1, **search},
        ),
    }
    for attack, (ours, theirs, options) in pairs.items():
        measure = f"|ours / Foolbox - 1|, mean norm of {attack}, %"
        try:
            results = [foolbox_minimum(model, images, labels, theirs, options), ours(model, images, labels)]
        except ImportError:
            yield not_installed("minimum_norm", name, measure)
            continue
        norms, found = _mean_norms(model, images, labels, results)
        detail = f"{norms[1]:.3f} / {norms[0]:.3f} on {found} of {len(images)} found by both"
        value = 100 * abs(norms[1] / norms[0] - 1)
        yield Row("minimum_norm", name, measure, value, Target("<=", 3.0), detail=detail)


def _mean_norms(
    model: Any, images: np.ndarray, labels: np.ndarray, results: list[np.ndarray]
) -> tuple[list[float], int]:
    """Mean L2 distance of each result over the images that all have broken, and how many these are."""
    from keras_robust import attacks

    # Where Foolbox finds nothing it gives a black image.
    broken = [(attacks.classify(model, x) != labels) & x.any(axis=(1, 2, 3)) for x in results]
    every = np.all(broken, axis=0)
    norms = [np.sqrt(((x - images)[every] ** 2).sum(axis=(1, 2, 3))).mean() for x in results]
    return list(map(float, norms)), int(every.sum())


def foolbox_minimum(
    model: Any, images: np.ndarray, labels: np.ndarray, attack: str, options: dict[str, Any]
) -> np.ndarray:
    import foolbox
    import tensorflow as tf

    wrapped = foolbox.TensorFlowModel(model, bounds=(0, 1))
    adversary = getattr(foolbox.attacks, attack)(**options)
    batch = tf.constant(images), tf.constant(labels, tf.int64)  # int64 as in foolbox_pgd
    return np.asarray(adversary(wrapped, *batch, epsilons=None)[0])
