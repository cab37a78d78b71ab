"""AutoAttack against its authors' in PyTorch: python tools/bench_autoattack.py --json FILE.

The section `autoattack` of bench.py prints ratios; this file, run by itself, measures at length: it keeps
each run in FILE as it ends, goes on from there when started again, and prints a table by stage.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
import reference
from measuring import (
    TRAINED,
    Row,
    Setting,
    Target,
    forward_passes,
    input_gradients,
    interleaved,
    not_installed,
    ratio,
    section,
    turns,
)
from reference import Stage

from keras_robust.cli.output import import_tensorflow
from keras_robust.errors import InputError, require
from keras_robust.files import write_text

EXAMPLES = 128
PARITY = 0.3  # points
# Gradients, and forward passes besides, that our stages make for an example that stands to the end.
EVALUATIONS = {"apgd-ce": (101, 1), "apgd-t": (909, 10), "fab-t": (900, 903), "square": (0, 5001)}


# Runs


@dataclass(frozen=True)
class Subject:
    """A trained model with its threat model, examples `(N, ...)` and the size of a batch."""

    name: str
    model: Any
    images: np.ndarray
    labels: np.ndarray
    eps: float
    norm: str
    batch: int

    @property
    def first_batch(self) -> tuple[np.ndarray, np.ndarray]:
        return self.images[: self.batch], self.labels[: self.batch]


@dataclass(frozen=True)
class Outcome:
    """What a stage left: the share of the examples that stand, in %, and the seconds it took."""

    accuracy: float
    seconds: float


Outcomes = dict[str, Outcome]  # by stage
Runs = dict[str, dict[int, Outcomes]]  # by what was run and its seed


def trained(names: tuple[str, ...], examples: int, batch: int) -> Subject:
    """The first of the zoo's entries that is at hand, with the examples that its card was measured on.

    Raises:
        InputError: none is.
    """
    from keras_robust import data, zoo

    problems = []
    for name in names:
        try:
            model, card = zoo.load(name), zoo.card(name)
            images, labels = data.load(str(card.dataset), "test")
        except InputError as error:
            problems.append(str(error))
            continue
        chosen = data.subset(len(labels), examples, seed=0)
        threat = card.threat or {}
        return Subject(name, model, images[chosen], labels[chosen], threat["eps"], threat["norm"], batch)
    raise InputError(" ".join(problems))


def in_stages(stages: dict[str, Stage], images: np.ndarray, labels: np.ndarray) -> Outcomes:
    """Run stages in turn, each on the examples that still stand; all of the examples stand at first."""
    standing, outcomes = np.arange(len(labels)), {}
    for name, stage in stages.items():
        begun = time.perf_counter()
        if standing.size:
            standing = standing[stage(images[standing], labels[standing])]
        outcomes[name] = Outcome(100 * standing.size / len(labels), time.perf_counter() - begun)
    return outcomes


def ours(version: str, subject: Subject) -> Callable[[int], Outcomes]:
    """A version of our AutoAttack as a function of its seed; its graphs are traced beforehand."""
    from keras_robust.attacks import classify
    from keras_robust.attacks.autoattack import AutoAttack

    attacks = AutoAttack(eps=subject.eps, norm=subject.norm, version=version).stages

    def clean(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return classify(subject.model, images) == labels

    def stage(attack: Any, seed: int) -> Stage:
        def run(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
            found = np.empty_like(images)
            for block, first in enumerate(range(0, len(labels), subject.batch)):
                part = slice(first, first + subject.batch)
                found[part] = attack.run(subject.model, images[part], labels[part], key=(seed, block))
            return clean(found, labels)

        return run

    def run(seed: int) -> Outcomes:
        stages = {name: stage(attack, seed) for name, attack in attacks.items()}
        return in_stages({"clean": clean, **stages}, subject.images, subject.labels)

    for attack in attacks.values():
        short: dict[str, Any] = {str(attack.budget): 2}
        stage(replace(attack, **short), seed=0)(*subject.first_batch)
    return run


def theirs(channels_last: bool, subject: Subject) -> Callable[[int], Outcomes]:
    """The authors' AutoAttack as a function of its seed, with as many threads as TensorFlow has."""
    reference.use_threads(threads())
    network = reference.checked_twin(subject.model, subject.first_batch[0], channels_last)

    def run(seed: int) -> Outcomes:
        stages = reference.stages(network, subject.eps, subject.norm, seed=seed, batch=subject.batch)
        return in_stages(stages, subject.images, subject.labels)

    return run


def threads() -> int:
    """How many TensorFlow computes with."""
    import tensorflow as tf

    return tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count() or 1


OURS = {"fast": partial(ours, "fast"), "standard": partial(ours, "standard")}
THEIRS = {"as shipped": partial(theirs, False), "channels-last": partial(theirs, True)}


def measured(
    subject: Subject,
    seeds: int,
    runs: Runs | None = None,
    after_each: Callable[[Runs], None] = lambda runs: None,
) -> Runs:
    """Run everything from each seed; what is compared takes turns.

    Args:
        runs: those already made.
        after_each: called with all runs after each new one.
    """
    runs = {} if runs is None else runs
    variants = {**OURS, **(THEIRS if reference.installed() else {})}
    missing = [turn for turn in turns(variants, seeds) if turn[0] not in runs.get(turn[1], {})]
    ready = {name: variants[name](subject) for name in {name for _, name in missing}}
    for seed, name in missing:
        runs.setdefault(name, {})[seed] = ready[name](seed)
        after_each(runs)
    return runs


# What they say


def seconds(runs: dict[int, Outcomes]) -> np.ndarray:
    """Of each run as a whole, in the order of the seeds."""
    return np.array([sum(outcome.seconds for outcome in runs[seed].values()) for seed in sorted(runs)])


def accuracies(runs: dict[int, Outcomes], stage: str) -> np.ndarray:
    """Robust accuracy after a stage, in the order of the seeds."""
    return np.array([runs[seed][stage].accuracy for seed in sorted(runs)])


def speed(name: str, runs: Runs) -> Iterator[Row]:
    """How many times longer the authors' takes than ours."""
    for over, under, limit in (
        ("as shipped", "standard", 1.8),
        ("channels-last", "standard", 1.1),
        ("as shipped", "fast", 3.0),
    ):
        measure = f"reference {over} / our {under}"
        if over in runs:
            compared = ratio(seconds(runs[over]), seconds(runs[under]))
            yield Row("autoattack", name, measure, target=Target(">=", limit), **compared)
        else:
            yield not_installed("autoattack", name, measure, extra="reference")


def parity(name: str, runs: Runs) -> Iterator[Row]:
    """How far apart the robust accuracies are, by stage; the reference's own spread over seeds is allowed."""
    if "as shipped" in runs:
        for stage in runs["as shipped"][0]:
            expected = accuracies(runs["as shipped"], stage)
            measure = f"|our standard - reference| after {stage}, points"
            yield _apart(name, measure, accuracies(runs["standard"], stage), expected, np.ptp(expected))
    fast, standard = (accuracies(runs[version], list(runs[version][0])[-1]) for version in OURS)
    yield _apart(name, "|our fast - our standard|, points", fast, standard)


def _apart(name: str, measure: str, found: np.ndarray, expected: np.ndarray, spread: float = 0.0) -> Row:
    apart = abs(found.mean() - expected.mean())
    target = Target("<=", max(PARITY, float(spread)))
    detail = f"{found.mean():.2f} / {expected.mean():.2f} %"
    return Row("autoattack", name, measure, float(apart), target, detail=detail)


def overhead(subject: Subject, runs: dict[int, Outcomes], costs: tuple[float, float]) -> Iterator[Row]:
    """Seconds of our stages over the bare ones of their model evaluations.

    What was spent on examples that fell in a stage counts as overhead, so it is an upper bound.

    Args:
        costs: seconds of a gradient and of a forward pass of one example.
    """
    for stage, counts in EVALUATIONS.items():
        standing = len(subject.labels) * accuracies(runs, stage) / 100
        bare = standing * np.dot(costs, counts)
        spent = np.array([runs[seed][stage].seconds for seed in sorted(runs)])
        if standing.all():
            yield Row("autoattack", subject.name, f"our {stage} / bare evaluations", **ratio(spent, bare))


def bare_costs(subject: Subject, repeats: int, count: int = 10) -> tuple[float, float]:
    """Seconds of a gradient and of a forward pass, compiled, for one example of a batch."""
    images, labels = subject.first_batch
    gradients = input_gradients(subject.model, images, labels, count)
    times = interleaved(
        {"gradient": gradients, "forward": forward_passes(subject.model, images, count)}, repeats
    )
    gradient, forward = (float(times[name].min()) / count / len(labels) for name in times)
    return gradient, forward


@section
def autoattack(setting: Setting) -> Iterator[Row]:
    """Our AutoAttack against its authors' in PyTorch, on a trained model: time, and accuracy by stage."""
    subject = trained(TRAINED, setting.examples or EXAMPLES, setting.batch)
    runs = measured(subject, setting.seeds)
    yield from speed(subject.name, runs)
    yield from parity(subject.name, runs)
    yield from overhead(subject, runs["standard"], bare_costs(subject, setting.repeats))


# At length


def about(subject: Subject) -> dict[str, Any]:
    """What runs must have in common to be compared."""
    return {
        "model": subject.name,
        "eps": subject.eps,
        "norm": subject.norm,
        "examples": len(subject.labels),
        "batch": subject.batch,
        "threads": threads(),
        "versions": {package: version(package) for package in ("tensorflow", "torch", "pyautoattack")},
    }


def kept(path: Path, subject: Subject) -> Runs:
    """The runs that a file holds; none if there is no file.

    Raises:
        InputError: they are of something else.
    """
    if not path.exists():
        return {}
    values = json.loads(path.read_text())
    require(
        values["about"] == about(subject),
        f"{path} holds runs of {values['about']}. Asked for: {about(subject)}. Choose another file.",
    )
    return {
        name: {
            int(seed): {stage: Outcome(**outcome) for stage, outcome in outcomes.items()}
            for seed, outcomes in runs.items()
        }
        for name, runs in values["runs"].items()
    }


def keep(path: Path, subject: Subject, runs: Runs) -> None:
    """Write the runs to a file."""
    plain = {
        name: {
            seed: {stage: asdict(outcome) for stage, outcome in outcomes.items()}
            for seed, outcomes in by_seed.items()
        }
        for name, by_seed in runs.items()
    }
    write_text(path, json.dumps({"about": about(subject), "runs": plain}, indent=1))


def table(runs: Runs) -> str:
    """Robust accuracy and seconds by stage, in Markdown."""
    stages = max((list(by_seed[0]) for by_seed in runs.values()), key=len)
    lines = [["after", *runs], ["---", *["---:"] * len(runs)]]
    lines += [[stage, *[_cell(by_seed, stage) for by_seed in runs.values()]] for stage in stages]
    lines += [["all", *[f"{seconds(by_seed).min():.0f} s" for by_seed in runs.values()]]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(runs: dict[int, Outcomes], stage: str) -> str:
    if stage not in runs[0]:
        return ""
    values = accuracies(runs, stage)
    low, high = f"{values.min():.2f}", f"{values.max():.2f}"
    fastest = min(outcomes[stage].seconds for outcomes in runs.values())
    return f"{low if low == high else f'{low} to {high}'} % ({fastest:.0f} s)"


_POSITIVE = click.IntRange(min=1)


@click.command()
@click.option(
    "--json", "path", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The runs."
)
@click.option("--model", "-m", default="at_mnist", show_default=True, help="An entry of the zoo.")
@click.option("--examples", default=1000, show_default=True, type=_POSITIVE)
@click.option("--batch", default=128, show_default=True, type=_POSITIVE)
@click.option("--seeds", default=3, show_default=True, type=_POSITIVE)
def main(path: Path, model: str, examples: int, batch: int, seeds: int) -> None:
    """Our AutoAttack and its authors', stage by stage.

    Each run goes into the file as it ends, and is not repeated when the command is given again.
    """
    import_tensorflow()
    require(reference.installed(), "torch and pyautoattack are needed: pip install keras-robust[reference].")
    subject = trained((model,), examples, batch)
    runs = measured(subject, seeds, kept(path, subject), partial(keep, path, subject))
    click.echo(table(runs))


if __name__ == "__main__":
    main()
