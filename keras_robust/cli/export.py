"""krobust export: SavedModel and TFLite, checked."""

from __future__ import annotations

from pathlib import Path

import click

from keras_robust.cli import options
from keras_robust.cli.output import MODEL_HELP, console, open_model
from keras_robust.errors import InputError

CALIBRATION_IMAGES = 200
FORMATS = ("savedmodel", "tflite")


@click.command(epilog=MODEL_HELP)
@click.argument("model")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "wanted",
    type=click.Choice(FORMATS),
    help="Refuse a PATH that stands for the other.  [default: by its ending]",
)
@click.option("--quantize", help="float16, dynamic or int8, for .tflite only.")
@click.option("--check", is_flag=True, help="Compare the export with the model, under attack too.")
@options.dataset
@options.eps
@options.norm
@options.at_most(500)
def export(
    model: str,
    path: Path,
    wanted: str | None,
    quantize: str | None,
    check: bool,
    dataset: str | None,
    eps: float | None,
    norm: str | None,
    examples: int,
) -> None:
    """Write MODEL to PATH: a name ending in .tflite, or a directory for a SavedModel.

    With --check it fails (exit code 1) where labels or robust accuracy of the export differ too much.
    Training images of the dataset calibrate int8, test images serve for the check.

    \b
    Examples:
      krobust export at_mnist served/at_mnist
      krobust export at_mnist at_mnist.tflite --quantize int8 --check
    """
    format_of_path = FORMATS[path.suffix == ".tflite"]
    if wanted and wanted != format_of_path:
        raise InputError(f"--format {wanted}, but {path} is the name of a {format_of_path}: see --help.")
    if not check and (eps is not None or norm is not None):
        raise InputError("--eps and --norm are those of --check, which is not given.")
    if not check and quantize != "int8" and dataset is not None:
        raise InputError("--dataset is that of --check or of --quantize int8, and neither is given.")
    network, card = open_model(model)
    import keras_robust as kr
    from keras_robust.evaluation.source import threat_of

    calibration, attack, test = None, None, None
    if quantize == "int8":
        source = options.source(model, card, dataset)
        calibration = options.training_images(source, CALIBRATION_IMAGES, seed=0).images
    if check:
        threat = threat_of(network, eps, norm, None)
        attack = kr.attacks.PGD(norm=threat["norm"], eps=threat["eps"], steps=20)
        test = options.taken(network, options.source(model, card, dataset), examples, seed=0)
    written = kr.export(network, path, quantize=quantize, calibration=calibration)
    click.echo(f"Wrote {written}")
    if test:
        result = kr.check_export(written, network, *test, attack=attack, strict=False)
        console().print(result.table())
        if not result.passed:
            raise click.ClickException("; ".join(result.failures))
