"""Options that several commands take, and what follows from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from keras_robust.errors import InputError
from keras_robust.files import check_directory
from keras_robust.workers import JOIN_TIMEOUT, LOST_TIMEOUT, STRATEGIES

_MOST_RADII = 1000


class Radii(click.ParamType):
    """A radius, or "start:stop:step" for a sweep."""

    name = "EPS"

    def convert(self, value: Any, param: Any, ctx: Any) -> float | list[float]:
        try:
            numbers = [float(part) for part in str(value).split(":")]
        except ValueError:
            self.fail(f'give a number, or "start:stop:step". Received: {value!r}.', param, ctx)
        if len(numbers) == 1:
            return numbers[0]
        if len(numbers) != 3 or not (numbers[2] > 0 and 0 <= numbers[0] <= numbers[1] < math.inf):
            self.fail(
                f'a sweep is "start:stop:step", rising from 0 or more. Received: {value!r}.', param, ctx
            )
        start, stop, step = numbers
        if (stop - start) / step > _MOST_RADII:
            self.fail(f"a sweep has at most {_MOST_RADII} radii. Received: {value!r}.", param, ctx)
        return [round(start + step * index, 10) for index in range(int((stop - start) / step + 1e-6) + 1)]


dataset = click.option("--dataset", help="Dataset whose test set is taken.  [default: the card's]")
eps = click.option("--eps", type=float, help="Radius of the ball in [0, 1] units.  [default: the card's]")
norm = click.option("--norm", help="linf or l2.  [default: the card's]")
examples = click.option(
    "--examples", type=click.IntRange(min=1), help="Size of a random subset.  [default: all]"
)
seed = click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0, 2**32 - 1),
    help="Seed of all that is drawn at random.",
)


def strategy(command: Any) -> Any:
    """The options --strategy, --join-timeout and --lost-timeout."""
    options = [
        click.option(
            "--strategy",
            type=click.Choice(list(STRATEGIES)),
            default="single",
            show_default=True,
            help="Devices: one, all GPUs of this host, those of the hosts in TF_CONFIG, the TPU in TPU_NAME.",
        ),
        click.option(
            "--join-timeout",
            default=JOIN_TIMEOUT,
            show_default=True,
            help="Seconds that a worker waits for the others.",
        ),
        click.option(
            "--lost-timeout",
            default=LOST_TIMEOUT,
            show_default=True,
            help="Seconds without a sign of life after which a worker counts as lost.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def attacks(examples: str, default: Sequence[str] = ("pgd-40",), shown: bool | str = True) -> Any:
    """The option --attack, which may be repeated; `shown` says what its default is, if it depends."""
    return click.option(
        "--attack",
        "attacks",
        multiple=True,
        default=default,
        show_default=shown,
        help=f"Short name such as {examples}; repeat it for several.",
    )


def at_most(count: int) -> Any:
    """The option --examples, with a default."""
    return click.option(
        "--examples",
        default=count,
        show_default=True,
        type=click.IntRange(min=1),
        help="Take a random subset of at most this size.",
    )


def out(help: str, **options: Any) -> Any:
    """The option --out, a directory."""
    return click.option("--out", type=click.Path(path_type=Path), callback=_writable, help=help, **options)


def _writable(context: click.Context, option: click.Parameter, place: Path | None) -> Path | None:
    """Refuse a directory that cannot be made or written, before the work whose results it is to take."""
    if place is not None:
        check_directory(place)
    return place


def attack_on(network: Any, name: str, eps: float | None, norm: str | None) -> Any:
    """The attack of a short name within the threat model asked for."""
    from keras_robust.evaluation import attack_named
    from keras_robust.evaluation.source import threat_of

    attack = attack_named(name, threat_of(network, eps, norm, None), network)
    if attack is None:
        raise InputError(f"{name} is no attack: name one.")
    return attack


def taken(network: Any, source: str, examples: int, seed: int) -> tuple[Any, Any]:
    """Images and labels of a random subset of the test set, of at most so many."""
    from keras_robust import data
    from keras_robust.evaluation.source import examples_of

    size = len(data.load(source, "test", raw=True).labels)
    images, labels, _ = examples_of(network, source, min(examples, size), seed)
    return images, labels


def training_images(source: str, examples: int, seed: int) -> Any:
    """A random subset of the training set, of at most so many."""
    from keras_robust import data

    stored = data.load(source, "train", raw=True)
    size = len(stored.labels)
    return stored.take(data.subset(size, min(examples, size), seed)).as_float()


def source(model: str, card: Any, dataset: str | None) -> str:
    """The dataset asked for, or that of the model's card."""
    chosen = dataset or (card and card.dataset)
    if not chosen:
        raise InputError(f"{model} has no card: say which --dataset to attack.")
    return chosen
