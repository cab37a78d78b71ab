"""A transfer matrix as a picture."""

from __future__ import annotations

from pathlib import Path

from keras_robust.analysis.finding import png
from keras_robust.evaluation import Transfer
from keras_robust.files import replacing


def heat_map(transfer: Transfer, path: Path | str) -> Path:
    """Draw the accuracies of a transfer matrix, 0% dark to 100% light; the numbers go beside it as CSV.

    Args:
        transfer: what `keras_robust.evaluation.transfer` found.
        path: PNG file.

    >>> import keras_robust as kr
    >>> models = {"cnn": kr.models.build("small_cnn"), "small": kr.models.build("small_cnn", filters=2)}
    >>> found = kr.evaluation.transfer(models, "digits", "fgsm", eps=0.1, examples=20, progress=False)
    >>> heat_map(found, "transfer.png").name
    'transfer.png'
    """
    from matplotlib.figure import Figure

    path = png(path)
    places = range(len(transfer.names))
    figure = Figure(figsize=(3 + 0.8 * len(places), 2 + 0.6 * len(places)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(transfer.matrix, vmin=0, vmax=100, cmap="viridis", aspect="auto")
    for row in places:
        for column in places:
            value = transfer.matrix[row, column]
            ink = "black" if value > 60 else "white"
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=ink)
    axes.set_xticks(places, transfer.names, rotation=30, ha="right")
    axes.set_yticks(places, transfer.names)
    axes.set(xlabel="shown to", ylabel="made on", title=transfer.attack)
    figure.colorbar(image, label="accuracy %")
    with replacing(path) as draft:
        figure.savefig(draft, dpi=150)
    transfer.to_csv(path.with_suffix(".csv"))
    return path
