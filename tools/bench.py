"""Benchmarks as ratios measured in one run: python tools/bench.py [SECTION...]."""

from __future__ import annotations

import json
import logging
import os
import platform
import resource
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import bench_autoattack  # noqa: F401  (a section of its own)
import bench_distributed  # noqa: F401
import bench_looking  # noqa: F401
import click
import numpy as np
from measuring import (
    DEFAULT_MODELS,
    EPS,
    MODELS,
    SECTIONS,
    STEP_SIZE,
    Row,
    Run,
    Setting,
    Target,
    build_model,
    input_gradients,
    interleaved,
    not_installed,
    random_batch,
    ratio,
    section,
    trained_or_random,
)
from rich.table import Table

from keras_robust.cli.output import console, import_tensorflow
from keras_robust.files import write_text

_AGREEMENT = 1000  # images
_MINIMUM_NORM = 100


def pgd(steps: int, eps: float = EPS, step_size: float = STEP_SIZE, **options: Any) -> Any:
    """Our attack."""
    from keras_robust import attacks

    return attacks.PGD(eps=eps, steps=steps, step_size=step_size, **options)


def our_pgd(model: Any, images: np.ndarray, labels: np.ndarray, steps: int, **options: Any) -> Run:
    """Our attack on one batch, through its public call."""
    return partial(pgd(steps, **options), model, images, labels, batch_size=len(images))


# Sections


@section
def attack(setting: Setting) -> Iterator[Row]:
    """PGD-20 over 20 bare compiled input gradients."""
    for name, model, images, labels in setting.subjects():
        runs = {
            "attack": our_pgd(model, images, labels, steps=20),
            "gradients": input_gradients(model, images, labels, count=20),
        }
        times = interleaved(runs, setting.repeats)
        compared = ratio(times["attack"], times["gradients"])
        yield Row("attack", name, "PGD-20 / 20 gradients", target=Target("<=", 1.10), **compared)


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
    """A step of MAT with BIBO over one of TRADES on the same network, both with an adversary of 10 steps."""
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


@section
def precision(setting: Setting) -> Iterator[Row]:
    """PGD-10 in float32 over the same in mixed_bfloat16."""
    for name, model, images, labels in setting.subjects():
        runs = {
            "float32": our_pgd(model, images, labels, steps=10),
            "bfloat16": our_pgd(build_model(name, "mixed_bfloat16"), images, labels, steps=10),
        }
        times = interleaved(runs, setting.repeats)
        compared = ratio(times["float32"], times["bfloat16"])
        yield Row("precision", name, "PGD-10 float32 / mixed_bfloat16", **compared)


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


@section
def traces(setting: Setting) -> Iterator[Row]:
    """Graphs traced by an attack while eps, steps, step size and batch size change."""
    from keras_robust import attacks
    from keras_robust.attacks.compiling import trace_count

    for name in setting.models:
        images, labels = random_batch(name, 4)
        for cls in (attacks.PGD, attacks.MIM, attacks.CW):
            model = build_model(name)
            for eps, steps, step_size, size in ((0.1, 1, 0.1, 4), (0.2, 2, None, 4), (0.1, 3, 0.05, 3)):
                cls(eps=eps, steps=steps, step_size=step_size)(model, images[:size], labels[:size])
            yield Row("traces", name, f"{cls.__name__}, 3 budgets", trace_count(model), Target("<=", 1))


@section
def memory(setting: Setting) -> Iterator[Row]:
    """Peak memory with ten times the steps, or sixteen times the examples, over that without."""
    for name in setting.models:
        longer = [_in_new_process(_peak_of_attack, name, setting.batch, steps) for steps in (10, 100)]
        larger = [_in_new_process(_peak_of_evaluation, name, setting.batch, count) for count in (1, 16)]
        for measure, (few, many) in {
            "PGD-100 / PGD-10 peak memory": longer,
            "evaluation of 16 batches / of 1, peak memory": larger,
        }.items():
            ratio, detail = many / few, f"{many:.0f} / {few:.0f} MiB"
            yield Row("memory", name, measure, ratio, Target("<=", 1.05), detail=detail)


def _in_new_process(function: Callable[..., float], *arguments: Any) -> float:
    # From a server that was small when it was started: on Linux the peak of a spawned process starts
    # from the size of the process that spawned it.
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as pool:
        return pool.submit(function, *arguments).result()


def _peak_of_attack(name: str, batch: int, steps: int) -> float:
    """Peak memory of a process after one attack."""
    import_tensorflow()
    pgd(steps)(build_model(name), *random_batch(name, batch), batch_size=batch)
    return _peak_memory()


def _peak_of_evaluation(name: str, batch: int, count: int) -> float:
    """Peak memory of a process after it has evaluated so many batches."""
    import_tensorflow()
    from keras_robust import attacks, evaluate

    model = build_model(name)
    images, _ = random_batch(name, batch * count)
    labels = attacks.classify(model, images).astype(np.int32)
    options = {"eps": 1 / 255, "batch_size": batch, "checks": False, "progress": False}
    evaluate(model, (images, labels), ["pgd-10", "square-20"], **options)
    return _peak_memory()


def _peak_memory() -> float:
    """That of this process in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


# Reporting


def table(rows: list[Row]) -> Table:
    """The rows of one section."""
    shown = Table(title=f"{rows[0].section}: {SECTIONS[rows[0].section].__doc__}", title_justify="left")
    for column in ("model", "measure"):
        shown.add_column(column)
    for column in ("value", "rounds", "target", "", "of"):
        shown.add_column(column, justify="right")
    verdict = {True: "[green]pass[/green]", False: "[red]FAIL[/red]", None: ""}
    for row in rows:
        shown.add_row(
            row.model,
            row.measure,
            "" if row.value is None else f"{row.value:.3g}",
            "" if row.low is None else f"{row.low:.2f} to {row.high:.2f}",
            str(row.target or ""),
            verdict[row.passed],
            row.detail.replace("[", "\\["),
        )
    return shown


def as_json(setting: Setting, rows: list[Row]) -> str:
    """Everything that was measured, and on what."""
    environment = {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        **{package: version(package) for package in ("tensorflow", "keras", "numpy")},
    }
    values = [{**asdict(row), "target": row.target and str(row.target), "passed": row.passed} for row in rows]
    return json.dumps({"setting": asdict(setting), "environment": environment, "rows": values}, indent=1)


_POSITIVE = click.IntRange(min=1)


def _help() -> str:
    lines = [f"  {name:<12} {function.__doc__}" for name, function in SECTIONS.items()]
    return "\n".join(["\b", "Sections:", *lines])


@click.command(epilog=_help())
@click.argument("sections", nargs=-1, type=click.Choice(list(SECTIONS)), metavar="[SECTION]...")
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Also write this file.")
@click.option("--batch", default=128, show_default=True, type=_POSITIVE, help="Images in a batch.")
@click.option("--repeats", default=5, show_default=True, type=_POSITIVE, help="Timed rounds.")
@click.option("--seeds", default=3, show_default=True, type=_POSITIVE, help="Runs of AutoAttack.")
@click.option("--examples", type=_POSITIVE, help="Images for agreement [1000] and autoattack [128].")
@click.option(
    "--models",
    "-m",
    multiple=True,
    default=DEFAULT_MODELS,
    show_default=True,
    type=click.Choice(list(MODELS)),
    help="Repeat it for several.",
)
def main(
    sections: tuple[str, ...],
    path: Path | None,
    batch: int,
    repeats: int,
    seeds: int,
    examples: int | None,
    models: tuple[str, ...],
) -> None:
    """Measure ratios: every SECTION, or those named.

    What is compared is timed in turns within one run, so a ratio holds where seconds would not. Run it on
    an otherwise idle machine.
    """
    import_tensorflow()
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # deprecations inside the libraries
    setting = Setting(models, batch, repeats, seeds, examples)
    rows: list[Row] = []
    for name in sections or SECTIONS:
        with console().status(name):
            measured = list(SECTIONS[name](setting))
        console().print(table(measured))
        rows += measured
    judged = [row.passed for row in rows if row.passed is not None]
    click.echo(f"{sum(judged)} of {len(judged)} targets met.")
    if path:
        write_text(path, as_json(setting, rows))


if __name__ == "__main__":
    main()
