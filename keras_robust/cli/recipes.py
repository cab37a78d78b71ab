"""krobust recipes: the training presets."""

from __future__ import annotations

import click
from rich.table import Table

from keras_robust.cli.output import console, import_tensorflow
from keras_robust.recipes import PROFILES


@click.group()
def recipes() -> None:
    """List and show training presets.

    \b
    Examples:
      krobust recipes list
      krobust recipes show trades_mnist --profile paper
    """


@recipes.command("list")
def list_recipes() -> None:
    """List the packaged recipes.

    \b
    Example:
      krobust recipes list
    """
    from keras_robust import recipes as presets

    table = Table("recipe", "description")
    for name in presets.names():
        table.add_row(name, presets.describe(name))
    console().print(table)


@recipes.command()
@click.argument("recipe")
@click.option("--profile", default="laptop", show_default=True, help=f"One of {', '.join(PROFILES)}.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting.")
def show(recipe: str, profile: str, overrides: tuple[str, ...]) -> None:
    """Print the settings of RECIPE, a packaged name or a YAML file, as YAML.

    \b
    Example:
      krobust recipes show trades_mnist --profile paper --set defense.beta=3.0
    """
    import yaml

    import_tensorflow()
    from keras_robust import recipes as presets

    chosen = presets.load(recipe, profile, overrides)
    click.echo(yaml.safe_dump(chosen.to_dict(), sort_keys=False, width=100).rstrip())
