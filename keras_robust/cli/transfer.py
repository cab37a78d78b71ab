"""krobust transfer: images made on one model, shown to the others."""

from __future__ import annotations

from pathlib import Path

import click

from keras_robust.cli import options
from keras_robust.cli.output import MODEL_HELP, console, open_model
from keras_robust.errors import InputError


@click.command(epilog=MODEL_HELP)
@click.argument("models", nargs=-1, required=True, metavar="MODEL MODEL...")
@options.dataset
@click.option(
    "--attack", default="pgd-40", show_default=True, help="Short name such as fgsm, pgd-40, cw-100."
)
@options.eps
@options.norm
@options.examples
@options.seed
@options.out("Directory for transfer.json, transfer.csv and a heat map, transfer.png.")
def transfer(
    models: tuple[str, ...],
    dataset: str | None,
    attack: str,
    eps: float | None,
    norm: str | None,
    examples: int | None,
    seed: int,
    out: Path | None,
) -> None:
    """Accuracy of every MODEL on the adversarial images that were made on each of them.

    One row a model that was attacked, one column a model that the images were shown to.

    \b
    Examples:
      krobust transfer standard_mnist at_mnist trades_mnist --examples 1000
      krobust transfer at_mnist runs/mine --attack cw-100 --out transfer
      krobust transfer a.keras b.keras --dataset digits --eps 0.1
    """
    if len(set(models)) != len(models) or len(models) < 2:
        raise InputError(f"Give two or more different models. Received: {', '.join(models)}.")
    opened = {model: open_model(model) for model in models}
    import keras_robust as kr

    source = dataset or _dataset({model: card and card.dataset for model, (_, card) in opened.items()})
    found = kr.evaluation.transfer(
        {model: network for model, (network, _) in opened.items()},
        source,
        attack,
        eps=eps,
        norm=norm,
        examples=examples,
        seed=seed,
    )
    console().print(found.table())
    if out:
        click.echo(f"Wrote {found.to_json(out / 'transfer.json')}")
        click.echo(f"Wrote {kr.analysis.heat_map(found, out / 'transfer.png')} and transfer.csv")


def _dataset(cards: dict[str, str | None]) -> str:
    """The dataset that all cards name."""
    stated = {name: dataset for name, dataset in cards.items() if dataset}
    if len(set(stated.values())) != 1:
        told = "; ".join(f"{name}: {dataset}" for name, dataset in stated.items()) or "no card names one"
        raise InputError(f"Say which --dataset to attack. The models' own: {told}.")
    return next(iter(stated.values()))
