"""krobust demo: the whole way on digits, in about a minute."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from keras_robust.cli import options
from keras_robust.cli.output import console, import_tensorflow
from keras_robust.cli.zoo import print_card

TWINS = {"undefended": "standard_digits", "robust": "at_digits"}
ATTACKS = ("fgsm", "pgd-40", "square-1000")
SHOWN_IN_CARD = "at_mnist"


@click.command()
@options.out("Where the files go.", default="demo", show_default=True)
def demo(out: Path) -> None:
    """Train an undefended and a robust classifier, attack both, export the robust one.

    It needs no download: the images are scikit-learn's digits.

    \b
    Example:
      krobust demo --out demo
    """
    import_tensorflow()
    import tempfile

    import keras_robust as kr
    from keras_robust import analysis, training
    from keras_robust.exporting.loading import interpreter_class

    interpreter_class()  # what the end needs is missed at the start
    models, digits = {}, kr.data.load("digits", "test")
    for twin, name in TWINS.items():
        click.echo(f"Training the {twin} classifier ({name}) ...")
        recipe = kr.recipes.load(name, profile="laptop")
        with tempfile.TemporaryDirectory() as directory:
            models[twin] = training.train(recipe, directory, verbose=0)
    threat = recipe.threat
    click.echo("Attacking both ...")
    reports = {
        twin: kr.evaluate(model, digits, ATTACKS, eps=threat["eps"], progress=False)
        for twin, model in models.items()
    }
    console().print(_table(reports, threat["eps"]))
    for twin, report in reports.items():
        report.to_json(out / f"{twin}.json")
    attack = kr.attacks.PGD(eps=threat["eps"], steps=40)
    radii = [round(threat["eps"] * share, 4) for share in (0, 0.25, 0.5, 0.75, 1, 1.5, 2)]
    gallery = analysis.gallery(models, digits.take(range(10)), attack, out / "pairs.png")
    curve = analysis.accuracy_curve(models, digits, attack, radii).to_png(out / "accuracy_vs_eps.png")
    click.echo(f"Wrote {gallery} and {curve}, with the numbers beside them as CSV.")
    click.echo("Exporting the robust classifier to int8 TFLite and checking it under attack ...")
    calibration = kr.data.load("digits", examples=200, seed=0).images
    path = kr.export(models["robust"], out / "robust.tflite", quantize="int8", calibration=calibration)
    checked = kr.check_export(path, models["robust"], *digits, eps=threat["eps"], strict=False)
    console().print(checked.table())
    if not checked.passed:
        raise click.ClickException("; ".join(checked.failures))
    model = kr.zoo.load(SHOWN_IN_CARD)
    shape, classes = model.input_shape[1:], model.output_shape[-1]
    click.echo(f"Loaded {SHOWN_IN_CARD} from the zoo: images {shape} to {classes} logits.")
    print_card(kr.zoo.card(SHOWN_IN_CARD))


def _table(reports: dict, eps: float) -> Table:
    table = Table(title=f"Digits, accuracy in percent under attack (Linf, eps {eps:g})")
    columns = next(iter(reports.values())).accuracy
    for column in ("classifier", *columns, "worst case"):
        table.add_column(column, justify="left" if column == "classifier" else "right")
    for twin, report in reports.items():
        values = [*report.accuracy.values(), report.worst_case]
        table.add_row(twin, *(f"{value:.1f}" for value in values))
    return table
