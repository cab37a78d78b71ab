"""krobust export: SavedModel and TFLite, checked."""

from __future__ import annotations

from pathlib import Path

import click

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
@click.option("--dataset", help="For calibration and the check.  [default: that of the card]")
@click.option("--eps", type=float, help="Radius of the check's attack.  [default: that of the card]")
@click.option("--examples", default=500, show_default=True, help="Test images of the check.")
def export(
    model: str,
    path: Path,
    wanted: str | None,
    quantize: str | None,
    check: bool,
    dataset: str | None,
    eps: float | None,
    examples: int,
) -> None:
    """Write MODEL to PATH: a name ending in .tflite, or a directory for a SavedModel.

    With --check it fails (exit code 1) where labels or robust accuracy of the export differ too much.

    \b
    Examples:
      krobust export at_mnist served/at_mnist
      krobust export at_mnist at_mnist.tflite --quantize int8 --check
    """
    format_of_path = FORMATS[path.suffix == ".tflite"]
    if wanted and wanted != format_of_path:
        raise InputError(f"--format {wanted}, but {path} is the name of a {format_of_path}: see --help.")
    network, card = open_model(model)
    import keras_robust as kr

    source = dataset or (card.dataset if card else None) or ""
    threat = (card.threat if card else None) or {}
    radius = threat.get("eps") if eps is None else eps
    if not source and (check or quantize == "int8"):
        raise InputError(f"{model} has no card: say with --dataset what to calibrate and check on.")
    calibration = None
    if quantize == "int8":
        calibration = kr.data.load(source, "train", examples=CALIBRATION_IMAGES, seed=0).images
    written = kr.export(network, path, quantize=quantize, calibration=calibration)
    click.echo(f"Wrote {written}")
    if check:
        result = kr.check_export(
            written,
            network,
            *kr.data.load(source, "test", examples=examples, seed=0),
            eps=radius,
            strict=False,
        )
        console().print(result.table())
        if not result.passed:
            raise click.ClickException("; ".join(result.failures))
