"""Benchmarks as ratios measured in one run: python tools/bench.py [SECTION...]."""

from __future__ import annotations

import json
import logging
import operator
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from rich.table import Table

from keras_robust.cli.output import console, import_tensorflow
from keras_robust.errors import InputError
from keras_robust.files import write_text

_CIFAR = {"input_shape": (32, 32, 3)}
MODELS: dict[str, dict[str, Any]] = {
    "cnn_4c3f_64": {"name": "cnn_4c3f", "filters": 64, "hidden": 256, **_CIFAR},
    "wrn_16_2": {"name": "wide_resnet", "depth": 16, "width": 2, **_CIFAR},
    "small_cnn": {"name": "small_cnn", "input_shape": (8, 8, 1)},
}
DEFAULT_MODELS = ("cnn_4c3f_64", "wrn_16_2")
TRAINED = ("at_mnist", "at_digits")  # zoo entries on which libraries should agree, best first
EPS, STEP_SIZE = 8 / 255, 2 / 255


# What a section works with


class Target(NamedTuple):
    """The bound that a value should keep."""

    sign: str
    limit: float

    def holds(self, value: float) -> bool:
        return {"<=": operator.le, ">=": operator.ge}[self.sign](value, self.limit)

    def __str__(self) -> str:
        return f"{self.sign} {self.limit:g}"


@dataclass(frozen=True)
class Row:
    """One measured value; `low` and `high` are its extremes over the rounds, `detail` what it is made of."""

    section: str
    model: str
    measure: str
    value: float | None = None
    target: Target | None = None
    low: float | None = None
    high: float | None = None
    detail: str = ""

    @property
    def passed(self) -> bool | None:
        """Whether the target is met; None if there is nothing to judge."""
        return None if self.target is None or self.value is None else self.target.holds(self.value)


@dataclass(frozen=True)
class Setting:
    """What the user chose: models by name, batch size, timed rounds, images for the agreement."""

    models: tuple[str, ...] = DEFAULT_MODELS
    batch: int = 128
    repeats: int = 5
    examples: int = 1000

    def subjects(self) -> Iterator[tuple[str, Any, np.ndarray, np.ndarray]]:
        """Each model with its name and one batch of images and labels."""
        for name in self.models:
            yield name, build_model(name), *random_batch(name, self.batch)


Section = Callable[[Setting], Iterator[Row]]
SECTIONS: dict[str, Section] = {}


def section(function: Section) -> Section:
    """Decorator that adds a section under its function's name."""
    SECTIONS[function.__name__] = function
    return function


def build_model(name: str, dtype: str = "float32") -> Any:
    """An untrained model, the same at each call."""
    import keras

    from keras_robust import models

    keras.utils.set_random_seed(0)
    return models.build(**MODELS[name], dtype=dtype)


def random_batch(name: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images `(size, H, W, C)` in [0, 1] for a model, and labels."""
    rng = np.random.default_rng(0)
    images = rng.random((size, *MODELS[name]["input_shape"]), dtype=np.float32)
    return images, rng.integers(0, 10, size).astype(np.int32)


# Timing


Run = Callable[[], Any]


def interleaved(runs: dict[str, Run], repeats: int) -> dict[str, np.ndarray]:
    """Seconds of each run in each round, `(repeats,)`, after one call of each that is not timed.

    The runs take turns, so that a disturbance of the machine meets them all, and every other round is
    in reverse order.
    """
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats):
        for name in list(runs)[:: 1 if turn % 2 == 0 else -1]:
            begin = time.perf_counter()
            runs[name]()
            seconds[name].append(time.perf_counter() - begin)
    return {name: np.array(values) for name, values in seconds.items()}


def ratio(over: np.ndarray, under: np.ndarray) -> dict[str, Any]:
    """The ratio of the fastest rounds (noise only adds time), and its extremes over single rounds."""
    rounds = over / under
    return {
        "value": float(over.min() / under.min()),
        "low": float(rounds.min()),
        "high": float(rounds.max()),
        "detail": f"{1000 * over.min():.1f} / {1000 * under.min():.1f} ms",
    }


def pgd(steps: int, eps: float = EPS, step_size: float = STEP_SIZE) -> Any:
    """Our attack."""
    from keras_robust import attacks

    return attacks.PGD(eps=eps, steps=steps, step_size=step_size)


def our_pgd(model: Any, images: np.ndarray, labels: np.ndarray, steps: int) -> Run:
    """Our attack on one batch, through its public call."""
    return partial(pgd(steps), model, images, labels, batch_size=len(images))


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


def input_gradients(model: Any, images: np.ndarray, labels: np.ndarray, count: int) -> Run:
    """The least that an attack of `count` steps must do, compiled."""
    import tensorflow as tf

    from keras_robust.losses import cross_entropy

    @tf.function(autograph=False)
    def gradient(images: Any, labels: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            loss = tf.reduce_sum(cross_entropy(labels, model(images, training=False)))
        return tape.gradient(loss, images)

    batch = tf.constant(images), tf.constant(labels)

    def run() -> np.ndarray:
        for _ in range(count):
            last = gradient(*batch)
        return last.numpy()

    return run


@section
def step(setting: Setting) -> Iterator[Row]:
    """A step of adversarial training over the sum of its attack and its weight update, each alone."""
    import keras
    import tensorflow as tf

    from keras_robust import defenses

    for name, model, *arrays in setting.subjects():
        images, labels = map(tf.constant, arrays)
        defense = defenses.AdversarialTraining(model, pgd(10))
        defense.compile(optimizer=keras.optimizers.SGD(1e-4, momentum=0.9))
        runs: dict[str, Run] = {
            "step": partial(defense.train_on_batch, images, labels),
            "attack": attack_in_graph(model, images, labels),
            "update": weight_update(model, images, labels),
        }
        times = interleaved(runs, setting.repeats)
        compared = ratio(times["step"], times["attack"] + times["update"])
        yield Row("step", name, "PGD-10 step / (attack + update)", target=Target("<=", 1.10), **compared)


def attack_in_graph(model: Any, images: Any, labels: Any) -> Run:
    """The attack of a training step as a compiled function of its own."""
    import tensorflow as tf

    from keras_robust.noise import Noise

    @tf.function(autograph=False)
    def run(images: Any, labels: Any) -> Any:
        return pgd(10).perturb(model, images, labels, Noise((0, 0)))

    return lambda: run(images, labels).numpy()


def weight_update(model: Any, images: Any, labels: Any) -> Run:
    """Forward and backward pass on clean and adversarial images and the optimizer's update, compiled."""
    import keras
    import tensorflow as tf

    from keras_robust.losses import cross_entropy

    optimizer = keras.optimizers.SGD(1e-4, momentum=0.9)
    optimizer.build(model.trainable_variables)

    @tf.function(autograph=False)
    def run(clean: Any, adversarial: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            losses = [cross_entropy(labels, model(x, training=True)) for x in (clean, adversarial)]
            loss = sum(map(tf.reduce_mean, losses))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    return lambda: run(images, 1 - images, labels).numpy()


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
    """PGD-10 of other libraries over ours: the same Keras model, budget and random start."""
    for name, model, images, labels in setting.subjects():
        for library, (prepare, limit) in LIBRARIES.items():
            measure = f"{library} / ours, PGD-10"
            try:
                theirs = prepare(model, images, labels, 10, EPS, STEP_SIZE)
            except ImportError:
                yield _not_installed("libraries", name, measure)
                continue
            runs = {"theirs": theirs, "ours": our_pgd(model, images, labels, steps=10)}
            times = interleaved(runs, setting.repeats)
            compared = ratio(times["theirs"], times["ours"])
            yield Row("libraries", name, measure, target=Target(">=", limit), **compared)


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

    name, model, images, labels, budget = _trained_or_random(setting)
    measure = "|ours - Foolbox|, PGD-40, points"
    parts = [slice(first, first + setting.batch) for first in range(0, len(images), setting.batch)]

    def accuracy(adversarial: np.ndarray) -> float:
        return 100 * float((attacks.classify(model, adversarial) == labels).mean())

    try:
        theirs = accuracy(
            np.concatenate([foolbox_pgd(model, images[part], labels[part], 40, *budget)() for part in parts])
        )
    except ImportError:
        yield _not_installed("agreement", name, measure)
        return
    ours = accuracy(pgd(40, *budget)(model, images, labels))
    detail = f"{ours:.2f} / {theirs:.2f} % of {len(images)}"
    yield Row("agreement", name, measure, abs(ours - theirs), Target("<=", 1.0), detail=detail)


def _trained_or_random(setting: Setting) -> tuple[str, Any, np.ndarray, np.ndarray, tuple[float, float]]:
    """Name, model, images, labels and (eps, step size) of the first zoo entry at hand, else made up."""
    from keras_robust import data, zoo

    for name in TRAINED:
        try:
            model, card = zoo.load(name), zoo.card(name)
            images, labels = data.load(str(card.dataset), "test")
        except InputError:
            continue
        threat = card.threat or {}
        budget = threat["eps"], threat.get("step_size") or 2.5 * threat["eps"] / 40
        return name, model, images[: setting.examples], labels[: setting.examples], budget
    name = setting.models[0]
    return f"{name} (random)", build_model(name), *random_batch(name, setting.examples), (EPS, STEP_SIZE)


def _not_installed(section: str, model: str, measure: str) -> Row:
    return Row(section, model, measure, detail="not installed (pip install keras-robust[bench])")


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
    """Peak memory of a process that runs PGD-100 over that of one that runs PGD-10."""
    for name in setting.models:
        few, many = (_in_new_process(_peak_memory, name, setting.batch, steps) for steps in (10, 100))
        yield Row(
            "memory",
            name,
            "PGD-100 / PGD-10 peak memory",
            many / few,
            Target("<=", 1.05),
            detail=f"{many:.0f} / {few:.0f} MiB",
        )


def _in_new_process(function: Callable[..., float], *arguments: Any) -> float:
    # From a server that was small when it was started: on Linux the peak of a spawned process starts
    # from the size of the process that spawned it.
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as pool:
        return pool.submit(function, *arguments).result()


def _peak_memory(name: str, batch: int, steps: int) -> float:
    """Peak memory in MiB of this process after one attack."""
    import_tensorflow()
    pgd(steps)(build_model(name), *random_batch(name, batch), batch_size=batch)
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
    lines = [f"  {name:<10} {function.__doc__}" for name, function in SECTIONS.items()]
    return "\n".join(["\b", "Sections:", *lines])


@click.command(epilog=_help())
@click.argument("sections", nargs=-1, type=click.Choice(list(SECTIONS)), metavar="[SECTION]...")
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Also write this file.")
@click.option("--batch", default=128, show_default=True, type=_POSITIVE, help="Images in a batch.")
@click.option("--repeats", default=5, show_default=True, type=_POSITIVE, help="Timed rounds.")
@click.option("--examples", default=1000, show_default=True, type=_POSITIVE, help="Images for the agreement.")
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
    examples: int,
    models: tuple[str, ...],
) -> None:
    """Measure ratios: every SECTION, or those named.

    What is compared is timed in turns within one run, so a ratio holds where seconds would not. Run it on
    an otherwise idle machine.
    """
    import_tensorflow()
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # deprecations inside the libraries
    setting = Setting(models, batch, repeats, examples)
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
