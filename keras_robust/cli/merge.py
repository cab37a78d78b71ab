"""krobust merge: one report of all shards."""

from __future__ import annotations

from pathlib import Path

import click

from keras_robust.cli import options
from keras_robust.cli.evaluate import REPORT
from keras_robust.cli.output import import_tensorflow, print_report


@click.command()
@click.argument("shards", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.out("Directory for the merged report.json.", required=True)
def merge(shards: tuple[Path, ...], out: Path) -> None:
    """Merge the reports of all SHARDS of one evaluation, directories or report.json files.

    The result is the report that one process would have written.

    \b
    Examples:
      krobust evaluate at_mnist --attack autoattack --shard 1/2 --out shard1
      krobust evaluate at_mnist --attack autoattack --shard 2/2 --out shard2
      krobust merge shard1 shard2 --out whole
    """
    import_tensorflow()
    from keras_robust.evaluation import Report
    from keras_robust.evaluation import merge as merged

    report = merged(Report.from_json(path / REPORT if path.is_dir() else path) for path in shards)
    written = report.to_json(out / REPORT)
    print_report(report)
    click.echo(f"Wrote {written}")
