"""krobust evaluate: attack a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from keras_robust import workers
from keras_robust.cli import options
from keras_robust.cli.output import MODEL_HELP, console, import_tensorflow, print_report
from keras_robust.errors import InputError

REPORT = "report.json"


@click.command(epilog=MODEL_HELP)
@click.argument("model")
@options.dataset
@options.attacks(
    "pgd-40, cw-100, square-5000, autoattack, adaptive, rays",
    (),
    "pgd-40 and square-1000, for points pgd-40 and rays-1000",
)
@click.option(
    "--eps",
    type=options.Radii(),
    help='Radius of the ball in [0, 1] units, or a sweep "start:stop:step".  [default: the card\'s]',
)
@options.norm
@click.option(
    "--step-size",
    type=float,
    help="Of gradient attacks.  [default: the card's, in proportion to --eps, else 2.5 eps/N]",
)
@options.examples
@options.seed
@click.option("--batch", default=128, show_default=True, type=click.IntRange(min=1), help="Attacked at once.")
@options.out("Directory for report.json and what is resumed.")
@click.option("--resume", is_flag=True, help="Go on with the evaluation in --out, if there is one.")
@click.option("--shard", metavar="I/N", help="Only every N-th block of examples; see krobust merge.")
@options.strategy
def evaluate(
    model: str,
    dataset: str | None,
    attacks: tuple[str, ...],
    eps: float | list[float] | None,
    out: Path | None,
    resume: bool,
    shard: str | None,
    strategy: str,
    join_timeout: float,
    lost_timeout: float,
    batch: int,
    **asked: Any,
) -> None:
    """Accuracy of MODEL under each attack, and the share of examples that survives all of them.

    With --out everything found is kept as it is found: a killed evaluation goes on with --resume. A sweep
    writes the accuracies as curve.csv and curve.png.

    With the strategy multiworker run the same command on every host; --out is a directory that they share.

    \b
    Examples:
      krobust evaluate at_mnist --attack pgd-40
      krobust evaluate at_mnist --attack autoattack --examples 1000 --out report --resume
      krobust evaluate at_mnist --attack pgd-40 --examples 500 --eps 0:0.4:0.05 --out sweep
      krobust evaluate at_mnist --attack ddn-100 --attack rays-2000 --examples 100
      krobust evaluate my.keras --dataset digits --eps 0.1 --shard 3/16 --out shard3
    """
    import_tensorflow(search_devices=strategy != "multiworker")
    import keras_robust as kr

    if resume and not out:
        raise InputError("--resume goes on with what lies in --out: give it.")
    if isinstance(eps, list) and not out:
        raise InputError("A sweep is written to a directory: give --out.")
    if isinstance(eps, list) and shard:
        raise InputError(f"The shards of a sweep cannot be merged: give one eps. Received: --shard {shard}.")
    devices = workers.strategy(strategy, join_timeout, lost_timeout)

    def opened() -> tuple[Any, Any]:
        network, card = kr.zoo.open_model(model)
        return network, options.source(model, card, dataset)

    network, source = workers.Workers(devices).together(opened)
    asked |= {"batch_size": batch, "resume": resume, "shard": shard, "directory": out}
    asked["strategy"] = None if strategy == "single" else devices
    on_all = " on all hosts" if strategy == "multiworker" else ""
    go_on = f" What was found is kept; go on{on_all} with --out {out} --resume." if out else ""
    try:
        if isinstance(eps, list) and out:
            curve = kr.analysis.sweep(network, source, attacks or None, eps, **asked)
            if workers.is_chief(devices):
                console().print(curve.table())
                click.echo(f"Wrote {curve.to_png(out / 'curve.png')} and curve.csv")
            return
        report = kr.evaluate(network, source, attacks or None, eps=eps, **asked)
    except KeyboardInterrupt:
        raise click.ClickException(f"Interrupted.{go_on}") from None
    except workers.WorkerLost as error:
        raise click.ClickException(f"{error}{go_on}") from error
    if not workers.is_chief(devices):
        return
    print_report(report)
    if out:
        click.echo(f"Wrote {report.to_json(out / REPORT)}")
