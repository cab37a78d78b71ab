"""krobust zoo: what there is, and whether it is whole."""

from __future__ import annotations

from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from keras_robust.cli.output import console, print_json
from keras_robust.errors import InputError


@click.group()
def zoo() -> None:
    """List, show, verify and fetch trained models.

    \b
    Examples:
      krobust zoo list --dataset mnist
      krobust zoo show at_mnist
    """


@zoo.command("list")
@click.option("--dataset", help="Only models of this dataset.")
@click.option("--defense", help="Only models trained with this defense.")
@click.option("--json", "as_json", is_flag=True, help="Print the cards as JSON.")
def list_models(dataset: str | None, defense: str | None, as_json: bool) -> None:
    """List the models with their accuracies in percent.

    \b
    Examples:
      krobust zoo list --dataset mnist --defense trades
      krobust zoo list --json
    """
    from keras_robust import zoo as models

    cards = models.list(dataset=dataset, defense=defense)
    if as_json:
        print_json([card.to_dict() for card in cards])
        return
    table = Table()
    for column in ("model", "dataset", "defense", "threat", "clean %", "worst case %", "under"):
        table.add_column(column, justify="right" if column.endswith("%") else "left")
    for card in cards:
        table.add_row(
            card.name,
            escape(card.dataset or ""),
            card.defense or "",
            f"{card.threat['norm']} {card.threat['eps']:.3g}" if card.threat else "",
            *(_percent(card.results.get(key)) for key in ("clean", "worst_case")),
            escape(", ".join(key for key in card.results if key not in ("clean", "worst_case"))),
        )
    console().print(table)


@zoo.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the card as JSON.")
def show(name: str, as_json: bool) -> None:
    """Print the card of the model NAME.

    \b
    Example:
      krobust zoo show at_mnist
    """
    from keras_robust import zoo as models

    card = models.card(name)
    if as_json:
        print_json(card.to_dict())
    else:
        print_card(card)


def print_card(card: Any) -> None:
    """A card for people."""
    import yaml

    out = console()
    out.print(f"[bold]{card.name}[/bold]: {escape(card.description)}")
    quoted = (card.paper or {}).get("results", {})
    table = Table("attack", "accuracy %", "paper's %")
    for attack in dict.fromkeys([*card.results, *quoted]):
        table.add_row(escape(attack), _percent(card.results.get(attack)), _percent(quoted.get(attack)))
    out.print(table)
    shown = ("name", "description", "results")
    rest = {key: value for key, value in card.to_dict().items() if value and key not in shown}
    out.print(yaml.safe_dump(rest, sort_keys=False, width=100).rstrip(), highlight=False, markup=False)


@zoo.command()
@click.argument("names", nargs=-1)
def verify(names: tuple[str, ...]) -> None:
    """Check the files of the models NAMES (all, if none is given) against their cards.

    \b
    Example:
      krobust zoo verify at_mnist trades_mnist
    """
    from keras_robust import zoo as models

    damaged = []
    for name in names or models.names():
        try:
            models.verify(name)
        except InputError as error:
            damaged.append(str(error))
        else:
            click.echo(f"{name}: ok")
    if damaged:
        raise InputError("\n".join(damaged))


@zoo.command()
@click.argument("name")
def pull(name: str) -> None:
    """Fetch the weights of the model NAME, if they did not come with the package.

    \b
    Example:
      krobust zoo pull at_mnist
    """
    from keras_robust import zoo as models

    click.echo(models.pull(name))


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
