"""krobust train: a recipe to a classifier in a directory."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from keras_robust.cli.output import import_tensorflow
from keras_robust.recipes import PROFILES


@click.command()
@click.argument("recipe")
@click.option("--profile", default="laptop", show_default=True, help=f"One of {', '.join(PROFILES)}.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting.")
@click.option("--out", type=click.Path(path_type=Path), help="Directory of the run.  [default: runs/RECIPE]")
@click.option("--resume", is_flag=True, help="Go on with the run in the directory, if there is one.")
@click.option(
    "--strategy",
    type=click.Choice(["single", "mirrored"]),
    default="single",
    show_default=True,
    help="Devices to train on: one, or all of this host.",
)
def train(
    recipe: str, profile: str, overrides: tuple[str, ...], out: Path | None, resume: bool, strategy: str
) -> None:
    """Train RECIPE, a packaged name or a YAML file.

    The directory receives the recipe, a log of every epoch, a checkpoint, and at the end the classifier
    with its card; `krobust evaluate` takes the directory. Ctrl-C saves; go on with --resume.

    \b
    Examples:
      krobust train at_digits
      krobust train trades_mnist --profile smoke --set defense.beta=3.0 --out runs/try
      krobust train at_mnist --resume
    """
    import_tensorflow()
    from keras_robust import recipes, training

    chosen = recipes.load(recipe, profile, overrides)
    directory = out or Path("runs") / chosen.name
    try:
        training.train(chosen, directory, resume=resume, strategy=strategy)
    except KeyboardInterrupt:
        settings = [part for override in overrides for part in ("--set", override)]
        options = ["--profile", profile, *settings, "--strategy", strategy, "--out", str(directory)]
        again = shlex.join(["krobust", "train", recipe, *options, "--resume"])
        raise click.ClickException(f"Interrupted. Go on with: {again}") from None
    click.echo(f"Trained. Evaluate it with: krobust evaluate {directory}")
