"""krobust analyze: look at a classifier under attack, and at its data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.markup import escape

import keras_robust as kr
from keras_robust.cli import options
from keras_robust.cli.output import MODEL_HELP, console, import_tensorflow, open_model

AT_MOST = 1000
RADII_OF_CURVE = (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2)  # in those of the card

_out = options.out("Directory for the picture and its numbers.")
_examples = options.at_most(AT_MOST)


class Subject(NamedTuple):
    """What is looked at: a model, images with labels, and the attack on them."""

    model: Any
    examples: tuple[Any, Any]
    attack: Any


@click.group()
def analyze() -> None:
    """Look at a classifier under attack: pictures, and the numbers behind them.

    Every command prints a table. With --out it writes a picture as PNG and the numbers behind it as CSV.

    \b
    Examples:
      krobust analyze surface at_mnist --out looks
      krobust analyze latent runs/mine --attack pgd-40 --show successful --out looks
      krobust analyze dimension cifar10
    """


def _subject(command: Callable) -> Callable:
    """The argument and options of the commands that look at a model and one attack on it."""
    for option in (
        _out,
        options.seed,
        _examples,
        click.option("--at", help="Cut the model at this layer: its output is the latent."),
        options.norm,
        options.eps,
        click.option(
            "--attack", default="pgd-40", show_default=True, help="Short name such as fgsm, pgd-40, ddn-100."
        ),
        options.dataset,
        click.argument("model"),
    ):
        command = option(command)
    return command


@analyze.command(epilog=MODEL_HELP)
@_subject
@click.option(
    "--space",
    "spaces",
    multiple=True,
    type=click.Choice(["input", "latent"]),
    help="Where the plane lies; repeat it for both.  [default: both, if there is a latent]",
)
@click.option(
    "--second",
    type=click.Choice(["orthogonal", "rademacher"]),
    default="orthogonal",
    show_default=True,
    help="Second axis: a random vector of ±1, made orthogonal to the gradient's sign or not.",
)
def surface(
    spaces: Sequence[str], second: str, seed: int, out: Path | None, eps: float | None, **asked: Any
) -> None:
    """Loss and predicted class around a clean, a successful and a failed adversarial example.

    \b
    Examples:
      krobust analyze surface at_mnist --out looks
      krobust analyze surface my.keras --dataset digits --eps 0.1 --space input --second rademacher
    """
    subject = _opened(seed=seed, eps=eps, **asked)
    found = kr.analysis.loss_surface(*subject, spaces=spaces or None, second=second, eps=eps, seed=seed)
    _tell(found, out, "surface")


@analyze.command(epilog=MODEL_HELP)
@_subject
@click.option(
    "--show",
    type=click.Choice(["all", "successful", "failed"]),
    default="all",
    show_default=True,
    help="Which adversarial examples.",
)
@click.option(
    "--perplexity", default=30.0, show_default=True, help="About how many neighbours t-SNE looks at."
)
def latent(show: str, perplexity: float, seed: int, out: Path | None, **asked: Any) -> None:
    """t-SNE of the latents of clean and adversarial examples, flat and with the prediction's entropy.

    \b
    Examples:
      krobust analyze latent at_mnist --show successful --out looks
      krobust analyze latent my.keras --at flatten --dataset mnist --eps 0.3
    """
    subject = _opened(seed=seed, **asked)
    found = kr.analysis.latent_map(*subject, show=show, perplexity=perplexity, seed=seed)
    _tell(found, out, "latent")


@analyze.command(epilog=MODEL_HELP)
@_subject
def entropy(seed: int, out: Path | None, **asked: Any) -> None:
    """Entropy of the predictions, and how well it tells adversarial from clean examples.

    \b
    Example:
      krobust analyze entropy at_mnist --attack pgd-40 --out looks
    """
    subject = _opened(seed=seed, **asked)
    _tell(kr.analysis.prediction_entropy(*subject, seed=seed), out, "entropy")


@analyze.command(epilog=MODEL_HELP)
@_subject
@click.option("--clusters", "count", type=int, help="How many.  [default: as many as classes]")
def clusters(count: int | None, seed: int, out: Path | None, **asked: Any) -> None:
    """Match rate: how often the predicted class is the dominant one of the latent's cluster.

    \b
    Example:
      krobust analyze clusters at_mnist --attack pgd-40 --out looks
    """
    subject = _opened(seed=seed, **asked)
    _tell(kr.analysis.clusters(*subject, count=count, seed=seed), out, "clusters")


@analyze.command(epilog=MODEL_HELP)
@_subject
def cosine(seed: int, out: Path | None, **asked: Any) -> None:
    """Cosine similarity of the features to the centre of the predicted class.

    The centre is the class's column of the last layer's weights. That layer must work on the latent: cut
    a model before it with --at.

    \b
    Examples:
      krobust analyze cosine at_digits --out looks
      krobust analyze cosine at_mnist --at dense_1 --attack pgd-40
    """
    subject = _opened(seed=seed, **asked)
    _tell(kr.analysis.cosine_table(*subject, seed=seed), out, "cosine")


@analyze.command(epilog=MODEL_HELP)
@_subject
def plane(seed: int, out: Path | None, **asked: Any) -> None:
    """Decisions of a classifier of points over the plane, and where the attack moves the points.

    \b
    Example:
      krobust analyze plane runs/moons --attack pgd-20 --out looks
    """
    subject = _opened(seed=seed, **asked)
    _tell(kr.analysis.decision_map(*subject, seed=seed), out, "plane")


@analyze.command(epilog=MODEL_HELP)
@click.argument("model")
@options.dataset
@options.attacks("pgd-40, cw-100, square-1000")
@click.option(
    "--eps",
    "radii",
    type=options.Radii(),
    help='A radius or a sweep "start:stop:step" in [0, 1] units.  [default: up to twice the card\'s]',
)
@options.norm
@_examples
@options.seed
@_out
def curve(
    model: str,
    dataset: str | None,
    attacks: tuple[str, ...],
    radii: float | list[float] | None,
    norm: str | None,
    examples: int,
    seed: int,
    out: Path | None,
) -> None:
    """Accuracy against the radius of the ball, under each attack and under all together.

    \b
    Examples:
      krobust analyze curve at_mnist --attack pgd-40 --attack square-1000 --out looks
      krobust analyze curve my.keras --dataset digits --eps 0:0.3:0.05
    """
    network, card = open_model(model)
    from keras_robust.evaluation.source import threat_of

    if radii is None:
        eps = threat_of(network, None, norm, None)["eps"]
        radii = [round(eps * share, 6) for share in RADII_OF_CURVE]
    taken = options.taken(network, options.source(model, card, dataset), examples, seed)
    found = kr.analysis.sweep(
        network, taken, attacks, radii if isinstance(radii, list) else [radii], norm=norm, seed=seed
    )
    _tell(found, out, "curve")


@analyze.command()
@click.argument("dataset")
@_examples
@options.seed
@_out
def dimension(dataset: str, examples: int, seed: int, out: Path | None) -> None:
    """Intrinsic dimension of the training images of DATASET, by each way of averaging.

    \b
    Example:
      krobust analyze dimension digits --out looks
    """
    import_tensorflow()
    _tell(kr.analysis.intrinsic_dimension(dataset, examples=examples, seed=seed), out, "dimension")


def _opened(
    model: str,
    dataset: str | None,
    attack: str,
    eps: float | None,
    norm: str | None,
    at: str | None,
    examples: int,
    seed: int,
) -> Subject:
    network, card = open_model(model)
    made = options.attack_on(network, attack, eps, norm)
    taken = options.taken(network, options.source(model, card, dataset), examples, seed)
    return Subject(kr.models.split(network, at) if at else network, taken, made)


def _tell(found: Any, out: Path | None, name: str) -> None:
    console().print(found.table())
    for note in found.notes:
        console().print(f"[yellow]note[/yellow]: {escape(note)}")
    if out:
        click.echo(f"Wrote {found.to_png(out / f'{name}.png')} and {name}.csv")
