"""krobust detect: tell adversarial inputs of a classifier from others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from keras_robust.cli import options
from keras_robust.cli.output import MODEL_HELP, console, open_model
from keras_robust.errors import InputError, require, require_choice, unknown_name
from keras_robust.files import check_directory

DEFAULT_DETECTORS = ("er1", "er2", "kernel-density", "lid")
FROM_FILE = "file"


@click.command(epilog=MODEL_HELP)
@click.argument("model")
@options.dataset
@options.attacks("pgd-40, fgsm, cw-l2-100")
@click.option(
    "--detector",
    "names",
    multiple=True,
    default=DEFAULT_DETECTORS,
    show_default=True,
    help="er1, er2, kernel-density, lid or entropy; repeat it for several.",
)
@click.option(
    "--fitted",
    help="Judge a detector that is kept with MODEL, or in this file, in the place of those of --detector.",
)
@click.option("--bandwidth", type=float, help="Of the densities.  [default: by cross-validation]")
@click.option(
    "--adaptive", help="Also attack classifier and detector together: a short name such as pgd-100."
)
@click.option("--familiar", is_flag=True, help="Judge a detector on the attack only that it was fit on.")
@options.eps
@options.norm
@options.at_most(1000)
@click.option(
    "--training",
    default=10000,
    show_default=True,
    type=click.IntRange(min=1),
    help="At most so many random training images make the densities.",
)
@options.seed
@options.out("Directory for detection.png and detection.csv.")
@click.option(
    "--save", is_flag=True, help="Keep the fitted detectors, in --out or next to MODEL if it is a directory."
)
@click.option(
    "--serve",
    type=click.Path(path_type=Path),
    help="Write the classifier with rejection by the first detector as a SavedModel directory.",
)
def detect(
    model: str,
    dataset: str | None,
    attacks: tuple[str, ...],
    names: tuple[str, ...],
    fitted: str | None,
    bandwidth: float | None,
    adaptive: str | None,
    familiar: bool,
    eps: float | None,
    norm: str | None,
    examples: int,
    training: int,
    seed: int,
    out: Path | None,
    save: bool,
    serve: Path | None,
) -> None:
    """Fit detectors of adversarial images of MODEL on a fifth of the examples, and judge them on the rest.

    ACC-ADV: adversarial inputs that are detected. ACC-NADV: natural and noisy ones that are let through.
    ACC-CLA: adversarial inputs that are classified rightly, of those let through. ACC-COM: adversarial
    inputs that are detected or classified rightly.

    \b
    Examples:
      krobust detect at_mnist --attack pgd-40 --attack fgsm --out detectors --save
      krobust detect at_mnist --detector er1 --adaptive pgd-100 --examples 500
      krobust detect at_mnist --fitted detectors/er1-pgd-40.npz --attack apgd-50
      krobust detect at_mnist --detector er1 --serve served/at_mnist
    """
    network, card = open_model(model)
    import keras_robust as kr

    place = _place(model, out) if save else None
    guards = _kept(model, card, fitted) if fitted else _detectors(names, bandwidth)
    if serve:
        _check_serve(next(iter(guards.values())), serve)
    made = {name: options.attack_on(network, name, eps, norm) for name in attacks}
    source = options.source(model, card, dataset)
    found = kr.analysis.detection(
        network,
        options.taken(network, source, examples, seed),
        made,
        guards,
        training=options.training_images(source, training, seed),
        adaptive=options.attack_on(network, adaptive, eps, norm) if adaptive else None,
        cross=not familiar,
        seed=seed,
    )
    console().print(found.table())
    for note in found.notes:
        console().print(f"[yellow]note[/yellow]: {escape(note)}")
    if out:
        click.echo(f"Wrote {found.to_png(out / 'detection.png')} and detection.csv")
    if place:
        for (name, attack), guard in found.fitted.items():
            click.echo(f"Wrote {kr.detection.save(guard, place / f'{name}-{attack}.npz')}")
    if serve:
        first: Any = next(iter(found.fitted.values()))
        click.echo(f"Wrote {kr.export(first.guarded(network), serve)}")


def _kept(model: str, card: Any, name: str) -> dict[str, Any]:
    """A detector that the card names, else one in a file."""
    import keras_robust as kr

    if card and name in card.detectors:
        return {name: kr.zoo.detector(model, name)}
    if card and card.detectors and not name.endswith(".npz"):
        raise unknown_name(f"detector of {card.name}", name, card.detectors)
    return {FROM_FILE: kr.detection.load(name)}


def _detectors(names: tuple[str, ...], bandwidth: float | None) -> dict[str, Any]:
    from keras_robust.detection import detectors

    known = {name.replace("_", "-"): name for name in detectors}
    for name in names:
        require_choice("detector", name, known)
    wanted = {name: detectors[known[name]] for name in names}
    return {
        name: cls() if bandwidth is None or "bandwidth" not in cls.shapes else cls(bandwidth=bandwidth)  # type: ignore[call-arg]
        for name, cls in wanted.items()
    }


def _place(model: str, out: Path | None) -> Path:
    """Where detectors are kept; refused if they cannot be."""
    if out is None and not Path(model).is_dir():
        raise InputError(
            "--save keeps detectors in --out, or next to a MODEL that is a directory: give --out."
        )
    place = out or Path(model)
    check_directory(place)
    return place


def _check_serve(guard: Any, path: Path) -> None:
    """Refuse what could not be served, before anything is fit."""
    from keras_robust.exporting.writing import check_target

    require(
        hasattr(guard, "guarded"),
        f"--serve takes a detector by density, such as er1. Received: {type(guard).__name__}.",
    )
    require(path.suffix != ".tflite", f"--serve writes a SavedModel directory. Received: {path}.")
    check_target(path)
