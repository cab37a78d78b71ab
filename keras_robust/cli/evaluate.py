"""krobust evaluate: attack a classifier."""

from __future__ import annotations

from pathlib import Path

import click

from keras_robust.cli.output import MODEL_HELP, console, open_model
from keras_robust.errors import InputError

DEFAULT_ATTACKS = ("pgd-40", "square-1000")


@click.command(epilog=MODEL_HELP)
@click.argument("model")
@click.option("--dataset", help="Dataset whose test set is attacked.  [default: that of the card]")
@click.option(
    "--attack",
    "attacks",
    multiple=True,
    default=DEFAULT_ATTACKS,
    show_default=True,
    help="Short name such as fgsm, pgd-40, cw-100, multi-targeted-20, square-5000; repeat it for several.",
)
@click.option("--eps", type=float, help="Radius of the ball in [0, 1] units.  [default: that of the card]")
@click.option("--norm", help="linf or l2.  [default: that of the card]")
@click.option("--examples", type=click.IntRange(min=1), help="Size of a random subset.  [default: all]")
@click.option("--seed", default=0, show_default=True, help="Seed of the subset and of the attacks.")
@click.option("--out", type=click.Path(path_type=Path), help="Directory for report.json.")
def evaluate(
    model: str,
    dataset: str | None,
    attacks: tuple[str, ...],
    eps: float | None,
    norm: str | None,
    examples: int | None,
    seed: int,
    out: Path | None,
) -> None:
    """Accuracy of MODEL under each attack, and the share of examples that survives all of them.

    \b
    Examples:
      krobust evaluate at_mnist --attack pgd-40
      krobust evaluate at_mnist --attack pgd-40 --attack square-5000 --examples 1000 --out report
      krobust evaluate my.keras --dataset digits --eps 0.1
    """
    network, card = open_model(model)
    import keras_robust as kr

    source = dataset or (card and card.dataset)
    if not source:
        raise InputError(f"{model} has no card: say which --dataset to attack.")
    report = kr.evaluate(network, source, list(attacks), eps=eps, norm=norm, examples=examples, seed=seed)
    console().print(report.table())
    for flag in report.flags:
        console().print(f"[yellow]warning[/yellow]: {flag}")
    if out:
        click.echo(f"Wrote {report.to_json(out / 'report.json')}")
