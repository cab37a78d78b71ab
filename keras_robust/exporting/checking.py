"""Whether an exported classifier still does what its model does."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from keras_robust.errors import InputError
from keras_robust.exporting.loading import Classifier, load_exported
from keras_robust.exporting.writing import image_shape
from keras_robust.models.precision import in_float32
from keras_robust.validation import check_images, check_labels, check_logits

MIN_AGREEMENT = {"saved_model": 99.5, "float32": 99.5, "float16": 99.5, "dynamic": 98.0, "int8": 98.0}
MAX_ROBUST_GAP = 2.0


@dataclass(frozen=True)
class ExportCheck:
    """How an exported classifier compares with the Keras model it came from; shares are in percent.

    Args:
        path: what was checked.
        precision: "saved_model", "float32", "float16", "dynamic" or "int8", as found in the file.
        examples: number of examples compared.
        agreement: share of clean images that get the same label from both.
        clean_accuracy, exported_clean_accuracy: on the clean images.
        robust_accuracy, exported_robust_accuracy: on images that were attacked on the Keras model.
    """

    path: str
    precision: str
    examples: int
    agreement: float
    clean_accuracy: float
    exported_clean_accuracy: float
    robust_accuracy: float
    exported_robust_accuracy: float

    @property
    def min_agreement(self) -> float:
        """The least label agreement that passes at this precision."""
        return MIN_AGREEMENT[self.precision]

    @property
    def robust_gap(self) -> float:
        """Distance of the two robust accuracies in points."""
        return round(abs(self.robust_accuracy - self.exported_robust_accuracy), 6)

    @property
    def failures(self) -> list[str]:
        """What is wrong, in words; empty if the check passed."""
        found = []
        if self.agreement < self.min_agreement:
            found.append(
                f"label agreement {self.agreement:.2f} % is below {self.min_agreement:g} % ({self.precision})"
            )
        if self.robust_gap > MAX_ROBUST_GAP:
            found.append(
                f"robust accuracies are {self.robust_gap:.2f} points apart, more than {MAX_ROBUST_GAP:g}"
            )
        return found

    @property
    def passed(self) -> bool:
        """Whether the export is as good as the model."""
        return not self.failures

    def table(self) -> Table:
        """The numbers as a table for `rich.print`."""
        table = Table(title=escape(f"{self.path} ({self.precision}, {self.examples} examples)"))
        for name in ("%", "Keras", "exported", "must be"):
            table.add_column(name, justify="left" if name == "%" else "right")
        table.add_row("label agreement", "", f"{self.agreement:.2f}", f">= {self.min_agreement:g}")
        table.add_row(
            "clean accuracy", f"{self.clean_accuracy:.2f}", f"{self.exported_clean_accuracy:.2f}", ""
        )
        table.add_row(
            "robust accuracy",
            f"{self.robust_accuracy:.2f}",
            f"{self.exported_robust_accuracy:.2f}",
            f"within {MAX_ROBUST_GAP:g}",
        )
        return table

    def to_json(self) -> str:
        """All numbers, limits and failures as JSON text."""
        limits = {"min_agreement": self.min_agreement, "max_robust_gap": MAX_ROBUST_GAP}
        return json.dumps(
            {**asdict(self), **limits, "passed": self.passed, "failures": self.failures}, indent=2
        )

    def __str__(self) -> str:
        text = io.StringIO()
        Console(file=text, width=100).print(self.table())
        return text.getvalue()


class ExportCheckError(RuntimeError):
    """An exported classifier does not match its model; `.check` holds the numbers."""

    def __init__(self, check: ExportCheck) -> None:
        super().__init__(f"{check.path} does not match its model: {'; '.join(check.failures)}.\n{check}")
        self.check = check


def check_export(
    path: str | Path,
    model: keras.Model,
    x: Any,
    y: Any,
    *,
    eps: float | None = None,
    attack: Callable[[keras.Model, np.ndarray, np.ndarray], Any] | None = None,
    strict: bool = True,
) -> ExportCheck:
    """Compare an exported classifier with its Keras model on clean and on adversarial images.

    The adversarial images are made on the float32 Keras model and replayed on the export. It passes if both
    give the same label on at least 99.5 % of the clean images (98 % with int8 weights) and their accuracies
    on the adversarial images are within 2 points.

    Args:
        path: what `export` wrote.
        model: the model it was made from.
        x: images `(N, H, W, C)` float32 in [0, 1]; some hundreds, so that one example is a small share.
        y: labels `(N,)` integers.
        eps: radius of the Linf ball, in units of the images, for the default attack: PGD with 20 steps.
        attack: another attack, called as `attack(model, x, y)`, gives images like `x`.
        strict: raise if the check fails; otherwise only return it.

    Returns:
        The numbers; `.passed` and `.failures` judge them.

    Raises:
        ExportCheckError: the check failed and `strict` is true.
        InputError: bad images or labels, an export that is missing or does not run, or neither `eps` nor
            `attack`.

    >>> import keras
    >>> from keras_robust.exporting import export
    >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    >>> path = export(model, "digits.tflite")
    >>> x, y = np.random.default_rng(0).random((20, 8, 8, 1), np.float32), np.zeros(20, int)
    >>> check_export(path, model, x, y, attack=lambda model, x, y: 1 - x).agreement
    100.0
    """
    path, shape = Path(path), image_shape(model)
    x = check_images(x, shape)
    y = check_labels(y, model.output_shape[-1], len(x))
    attack = _default_attack(eps) if attack is None else attack
    classify = load_exported(path)
    model = in_float32(model)
    clean = check_logits(model.predict(x, verbose=0)).argmax(-1)
    x_adv = check_images(attack(model, x, y), shape)
    robust = model.predict(x_adv, verbose=0).argmax(-1)
    exported_clean, exported_robust = _labels(classify, x), _labels(classify, x_adv)
    check = ExportCheck(
        path=str(path),
        precision=_precision(path),
        examples=len(x),
        agreement=_share(clean == exported_clean),
        clean_accuracy=_share(clean == y),
        exported_clean_accuracy=_share(exported_clean == y),
        robust_accuracy=_share(robust == y),
        exported_robust_accuracy=_share(exported_robust == y),
    )
    if strict and not check.passed:
        raise ExportCheckError(check)
    return check


def _precision(path: Path) -> str:
    """The precision of an export, read from the types of its weights and activations."""
    if path.is_dir():
        return "saved_model"
    from tensorflow.lite.python.schema_py_generated import TensorType
    from tensorflow.lite.tools.flatbuffer_utils import read_model

    file = read_model(str(path))
    tensors = [tensor for graph in file.subgraphs for tensor in graph.tensors]
    weights = {tensor.type for tensor in tensors if file.buffers[tensor.buffer].data is not None}
    activations = {tensor.type for tensor in tensors if file.buffers[tensor.buffer].data is None}
    if TensorType.INT8 in activations:
        return "int8"
    if TensorType.INT8 in weights:
        return "dynamic"
    return "float16" if TensorType.FLOAT16 in weights else "float32"


def _default_attack(eps: float | None) -> Callable[[keras.Model, np.ndarray, np.ndarray], Any]:
    from keras_robust.attacks import PGD

    if eps is None:
        raise InputError("check_export needs eps, the radius of its default attack PGD, or another attack.")
    return PGD(eps=eps, steps=20)


def _labels(classify: Classifier, images: np.ndarray, batch_size: int = 256) -> np.ndarray:
    batches = (images[first : first + batch_size] for first in range(0, len(images), batch_size))
    return np.concatenate([classify(batch).argmax(-1) for batch in batches])


def _share(hits: np.ndarray) -> float:
    return 100 * int(hits.sum()) / len(hits)
