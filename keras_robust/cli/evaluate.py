"""krobust evaluate: attack a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from keras_robust.cli.output import MODEL_HELP, console, open_model, print_report
from keras_robust.errors import InputError

DEFAULT_ATTACKS = ("pgd-40", "square-1000")
REPORT = "report.json"


class Radii(click.ParamType):
    """A radius, or "start:stop:step" for a sweep."""

    name = "EPS"

    def convert(self, value: Any, param: Any, ctx: Any) -> float | list[float]:
        try:
            numbers = [float(part) for part in str(value).split(":")]
        except ValueError:
            self.fail(f'give a number, or "start:stop:step". Received: {value!r}.', param, ctx)
        if len(numbers) == 1:
            return numbers[0]
        if len(numbers) != 3 or not (numbers[2] > 0 and 0 <= numbers[0] <= numbers[1] < np.inf):
            self.fail(
                f'a sweep is "start:stop:step", rising from 0 or more. Received: {value!r}.', param, ctx
            )
        start, stop, step = numbers
        return [round(start + step * index, 10) for index in range(int((stop - start) / step + 1e-6) + 1)]


@click.command(epilog=MODEL_HELP)
@click.argument("model")
@click.option("--dataset", help="Dataset whose test set is attacked.  [default: that of the card]")
@click.option(
    "--attack",
    "attacks",
    multiple=True,
    default=DEFAULT_ATTACKS,
    show_default=True,
    help="Short name such as pgd-40, cw-100, square-5000, autoattack, adaptive, rays; repeat it for several.",
)
@click.option(
    "--eps",
    type=Radii(),
    help='Radius of the ball in [0, 1] units, or a sweep "start:stop:step".  [default: that of the card]',
)
@click.option("--norm", help="linf or l2.  [default: that of the card]")
@click.option("--examples", type=click.IntRange(min=1), help="Size of a random subset.  [default: all]")
@click.option("--seed", default=0, show_default=True, help="Seed of the subset and of the attacks.")
@click.option("--batch", default=128, show_default=True, type=click.IntRange(min=1), help="Attacked at once.")
@click.option("--out", type=click.Path(path_type=Path), help="Directory for report.json and what is resumed.")
@click.option("--resume", is_flag=True, help="Go on with the evaluation in --out, if there is one.")
@click.option("--shard", metavar="I/N", help="Only every N-th block of examples; see krobust merge.")
@click.option(
    "--strategy",
    type=click.Choice(["single", "mirrored"]),
    default="single",
    show_default=True,
    help="Devices to attack on: one, or all of this host.",
)
def evaluate(
    model: str,
    dataset: str | None,
    attacks: tuple[str, ...],
    eps: float | list[float] | None,
    out: Path | None,
    resume: bool,
    shard: str | None,
    strategy: str,
    batch: int,
    **options: Any,
) -> None:
    """Accuracy of MODEL under each attack, and the share of examples that survives all of them.

    With --out everything found is kept as it is found: a killed evaluation goes on with --resume. A sweep
    writes the accuracies as curve.csv and curve.png.

    \b
    Examples:
      krobust evaluate at_mnist --attack pgd-40
      krobust evaluate at_mnist --attack autoattack --examples 1000 --out report --resume
      krobust evaluate at_mnist --attack pgd-40 --examples 500 --eps 0:0.4:0.05 --out sweep
      krobust evaluate at_mnist --attack ddn-100 --attack rays-2000 --examples 100
      krobust evaluate my.keras --dataset digits --eps 0.1 --shard 3/16 --out shard3
    """
    network, card = open_model(model)
    import keras_robust as kr
    from keras_robust import training

    source = dataset or (card and card.dataset)
    if not source:
        raise InputError(f"{model} has no card: say which --dataset to attack.")
    if resume and not out:
        raise InputError("--resume goes on with what lies in --out: give it.")
    options |= {"batch_size": batch, "resume": resume, "shard": shard}
    options["strategy"] = training.STRATEGIES[strategy]()
    try:
        if isinstance(eps, list):
            if not out:
                raise InputError("A sweep is written to a directory: give --out.")
            curve = kr.analysis.sweep(network, source, list(attacks), eps, directory=out, **options)
            console().print(curve.table())
            click.echo(f"Wrote {curve.to_png(out / 'curve.png')} and curve.csv")
            return
        report = kr.evaluate(network, source, list(attacks), eps=eps, directory=out, **options)
    except KeyboardInterrupt:
        kept = f" What was found is kept; go on with --out {out} --resume." if out else ""
        raise click.ClickException(f"Interrupted.{kept}") from None
    print_report(report)
    if out:
        click.echo(f"Wrote {report.to_json(out / REPORT)}")
