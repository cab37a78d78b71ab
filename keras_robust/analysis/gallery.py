"""Clean images beside their adversarial versions, with what each model makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_robust.analysis.finding import png, write_csv
from keras_robust.attacks import Attack, classify
from keras_robust.files import replacing


def gallery(
    models: Mapping[str, keras.Model], examples: tuple[Any, Any], attack: Attack, path: Path | str
) -> Path:
    """Draw every image clean and as attacked on each model, with predictions; write them as CSV too.

    Args:
        models: by the name of their row.
        examples: some ten images `(N, H, W, C)` float32 in [0, 1] and their labels `(N,)`.
        attack: run on each model.
        path: PNG file; the predictions go beside it as CSV.

    >>> import keras_robust as kr
    >>> digits = kr.data.load("digits", "test", examples=3, seed=0)
    >>> models = {"cnn": kr.models.build("small_cnn")}
    >>> gallery(models, digits, kr.attacks.FGSM(eps=0.1), "gallery.png").name
    'gallery.png'
    """
    from matplotlib.figure import Figure

    path = png(path)
    images, labels = (np.asarray(part) for part in examples)
    rows = [("clean", model, name, images) for name, model in models.items()]
    rows += [("attacked", model, name, attack(model, images, labels)) for name, model in models.items()]
    figure = Figure(figsize=(1.1 * len(labels) + 1, 1.5 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), len(labels), squeeze=False)
    table: list[tuple[Any, ...]] = [("image", "label", "model", "shown", "prediction")]
    for (kind, model, name, shown), line in zip(rows, axes, strict=True):
        line[0].set_ylabel(f"{name}\n{kind}", fontsize=8)
        for index, (predicted, axis) in enumerate(zip(classify(model, shown), line, strict=True)):
            axis.imshow(shown[index].squeeze(), cmap="gray", vmin=0, vmax=1)
            axis.set_title(f"{predicted}", fontsize=9, color="black" if predicted == labels[index] else "red")
            axis.set(xticks=[], yticks=[])
            table.append((index, labels[index], name, kind, predicted))
    with replacing(path) as draft:
        figure.savefig(draft, dpi=120)
    write_csv(path.with_suffix(".csv"), table)
    return path
