"""What the sections of the benchmarks share: rows with targets, timing in turns, bare model evaluations."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

_CIFAR = {"input_shape": (32, 32, 3)}
MODELS: dict[str, dict[str, Any]] = {
    "cnn_4c3f_32": {"name": "cnn_4c3f", "input_shape": (28, 28, 1)},
    "cnn_4c3f_64": {"name": "cnn_4c3f", "filters": 64, "hidden": 256, **_CIFAR},
    "wrn_16_2": {"name": "wide_resnet", "depth": 16, "width": 2, **_CIFAR},
    "resnet_18_32": {"name": "resnet", "version": 2, "width": 32, **_CIFAR},
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
    """What the user chose: models by name, batch size, timed rounds, seeds, images (None: as suits)."""

    models: tuple[str, ...] = DEFAULT_MODELS
    batch: int = 128
    repeats: int = 5
    seeds: int = 3
    examples: int | None = None

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


def build_model(name: str, dtype: str = "float32", **options: Any) -> Any:
    """An untrained model, the same at each call; `options` are further ones of its architecture."""
    import keras

    from keras_robust import models

    keras.utils.set_random_seed(0)
    return models.build(**MODELS[name], dtype=dtype, **options)


def random_batch(name: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images `(size, H, W, C)` in [0, 1] for a model, and labels."""
    rng = np.random.default_rng(0)
    images = rng.random((size, *MODELS[name]["input_shape"]), dtype=np.float32)
    return images, rng.integers(0, 10, size).astype(np.int32)


def trained_or_random(
    setting: Setting, examples: int
) -> tuple[str, Any, np.ndarray, np.ndarray, tuple[float, float]]:
    """Name, model, images, labels and (eps, step size) of the first zoo entry at hand, else made up."""
    from keras_robust import data, zoo
    from keras_robust.errors import InputError

    for name in TRAINED:
        try:
            model, card = zoo.load(name), zoo.card(name)
            images, labels = data.load(str(card.dataset), "test")
        except InputError:
            continue
        threat = card.threat or {}
        budget = threat["eps"], threat.get("step_size") or 2.5 * threat["eps"] / 40
        return name, model, images[:examples], labels[:examples], budget
    name = setting.models[0]
    return f"{name} (random)", build_model(name), *random_batch(name, examples), (EPS, STEP_SIZE)


# Timing


Run = Callable[..., Any]


def turns(names: Iterable[str], rounds: int) -> Iterator[tuple[int, str]]:
    """Round and name of what takes its turn; every other round is in reverse order."""
    for turn in range(rounds):
        for name in list(names)[:: 1 if turn % 2 == 0 else -1]:
            yield turn, name


def interleaved(runs: dict[str, Run], repeats: int) -> dict[str, np.ndarray]:
    """Seconds of each run in each round, `(repeats,)`, after one call of each that is not timed.

    The runs take `turns`, so that a disturbance of the machine meets them all.
    """
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _, name in turns(runs, repeats):
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
        "detail": f"{_shown(over.min())} / {_shown(under.min())}",
    }


def _shown(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 10 else f"{1000 * seconds:.1f} ms"


# Bare evaluations of a model


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

    return partial(_repeat, count, gradient, tf.constant(images), tf.constant(labels))


def forward_passes(model: Any, images: np.ndarray, count: int) -> Run:
    """The least that an attack of `count` queries must do, compiled."""
    import tensorflow as tf

    forward = tf.function(lambda images: model(images, training=False), autograph=False)
    return partial(_repeat, count, forward, tf.constant(images))


def _repeat(count: int, function: Run, *arguments: Any) -> np.ndarray:
    for _ in range(count):
        last = function(*arguments)
    return last.numpy()


# Rows without a value


def not_installed(section: str, model: str, measure: str, extra: str = "bench") -> Row:
    """A row for a library that is not there to compare with, and the extra that brings it."""
    return Row(section, model, measure, detail=f"not installed (pip install keras-robust[{extra}])")


def pgd(steps: int, eps: float = EPS, step_size: float = STEP_SIZE, **options: Any) -> Any:
    """Our attack."""
    from keras_robust import attacks

    return attacks.PGD(eps=eps, steps=steps, step_size=step_size, **options)


def our_pgd(model: Any, images: np.ndarray, labels: np.ndarray, steps: int, **options: Any) -> Run:
    """Our attack on one batch, through its public call."""
    return partial(pgd(steps, **options), model, images, labels, batch_size=len(images))
