"""krobust train: a recipe to a classifier in a directory."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from keras_robust import workers
from keras_robust.cli import options
from keras_robust.cli.output import import_tensorflow
from keras_robust.recipes import PROFILES


@click.command()
@click.argument("recipe")
@click.option("--profile", default="laptop", show_default=True, help=f"One of {', '.join(PROFILES)}.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting.")
@options.out("Directory of the run.  [default: runs/RECIPE]")
@click.option("--resume", is_flag=True, help="Go on with the run in the directory, if there is one.")
@options.strategy
def train(
    recipe: str,
    profile: str,
    overrides: tuple[str, ...],
    out: Path | None,
    resume: bool,
    strategy: str,
    join_timeout: float,
    lost_timeout: float,
) -> None:
    """Train RECIPE, a packaged name or a YAML file.

    The directory receives the recipe, a log of every epoch, a checkpoint, and at the end the classifier
    with its card; `krobust evaluate` takes the directory. Ctrl-C saves; go on with --resume.

    With the strategy multiworker run the same command on every host, with a directory that they share.

    \b
    Examples:
      krobust train at_digits
      krobust train trades_mnist --profile smoke --set defense.beta=3.0 --out runs/try
      krobust train at_mnist --resume
    """
    import_tensorflow(search_devices=strategy != "multiworker")
    from keras_robust import recipes, training

    devices = workers.strategy(strategy, join_timeout, lost_timeout)
    chosen = recipes.load(recipe, profile, overrides)
    directory = out or Path("runs") / chosen.name
    settings = [part for override in overrides for part in ("--set", override)]
    stated = ["--profile", profile, *settings, "--strategy", strategy, "--out", str(directory)]
    go_on = shlex.join(["krobust", "train", recipe, *stated, "--resume"])
    try:
        training.train(chosen, directory, resume=resume, strategy=devices)
    except KeyboardInterrupt:
        raise click.ClickException(f"Interrupted. Go on with: {go_on}") from None
    except workers.WorkerLost as error:
        raise click.ClickException(f"{error} Go on, on all hosts, with: {go_on}") from error
    # A name in the zoo goes before a path: a directory of that name is told with its place.
    shown = str(directory) if len(directory.parts) > 1 else f"./{directory}"
    click.echo(f"Trained. Evaluate it with: {shlex.join(['krobust', 'evaluate', shown])}")
