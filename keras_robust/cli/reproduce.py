"""krobust reproduce: a paper's table or figure, ours beside the paper's."""

from __future__ import annotations

from pathlib import Path

import click

from keras_robust.cli import options
from keras_robust.cli.output import console, import_tensorflow
from keras_robust.recipes import PROFILES


@click.command()
@click.argument("study", required=False)
@click.option("--profile", default="laptop", show_default=True, help=f"One of {', '.join(PROFILES)}.")
@options.out(
    "Directory of what is trained and measured, and of the results.", default="runs", show_default=True
)
@click.option("--train/--no-train", default=True, show_default=True, help="Train what is missing.")
@click.option("--list", "listed", is_flag=True, help="List the studies.")
def reproduce(study: str | None, profile: str, out: Path, train: bool, listed: bool) -> None:
    """Make the table or figure of a paper that STUDY names, ours beside the paper's.

    Models that the zoo has are taken from it, others are trained. What is trained and measured is kept in
    --out and shared by all studies: after Ctrl-C the same command goes on.

    \b
    Examples:
      krobust reproduce --list
      krobust reproduce adr/table1 --profile smoke
      krobust reproduce adr/table1 --no-train
    """
    from keras_robust import studies

    if listed:
        for name in studies.names():
            click.echo(f"{name}  {studies.describe(name)}")
        return
    if study is None:
        raise click.UsageError("Name a STUDY; krobust reproduce --list lists them.")
    import_tensorflow()
    try:
        results = studies.reproduce(study, profile, out, train=train, tell=click.echo)
    except KeyboardInterrupt:
        raise click.ClickException("Interrupted. What was found is kept; the same command goes on.") from None
    console().print(results.table())
    click.echo(f"The same as data, Markdown, CSV and pictures: {out / results.study.directory}")
