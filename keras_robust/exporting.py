"""Exporting: a classifier as a SavedModel or a TFLite file, and the check that it is still the same one."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from keras_robust.errors import InputError, require, unknown_name
from keras_robust.files import replacing
from keras_robust.models.precision import in_float32
from keras_robust.validation import check_images, check_labels, check_logits

QUANTIZATIONS = ("float16", "dynamic", "int8")
MIN_AGREEMENT = {"saved_model": 99.5, "float32": 99.5, "float16": 99.5, "dynamic": 98.0, "int8": 98.0}
MAX_ROBUST_GAP = 2.0

Classifier = Callable[[Any], np.ndarray]


def export(
    model: keras.Model, path: str | Path, quantize: str | None = None, calibration: Any = None
) -> Path:
    """Write a classifier as a TFLite file or a SavedModel directory, or leave everything as it was.

    A model with reduced-precision layers is exported as its float32 copy. Only built-in TFLite operations
    are allowed: operations that would need TensorFlow beside the TFLite runtime ("flex ops") are refused.

    Args:
        model: functional or Sequential model, images `(B, H, W, C)` float32 in [0, 1] to logits `(B, K)`,
            or for a SavedModel to several outputs by name, one of them "logits".
        path: a name that ends in `.tflite`, or a directory for a SavedModel. An earlier export there is
            replaced. The batch size of the export is free.
        quantize: for TFLite only. `None` keeps float32, `"float16"` stores float16 weights, `"dynamic"`
            stores int8 weights, `"int8"` also computes in int8, with ranges taken from `calibration`.
            The input and output of every file are float32, so that images in [0, 1] go in and logits come
            out: an int8 file rounds its input to 1/255 and its logits to 255 levels inside. Operations
            without an int8 kernel stay float32.
        calibration: images `(N, H, W, C)` float32 in [0, 1] like those of the task, for `"int8"` only; 100
            to 500 training images are enough.

    Returns:
        The path.

    Raises:
        InputError: a path of another kind, an unknown quantization, missing or bad calibration images, a
            model that returns probabilities or needs other operations, or a place that cannot be written.

    Source: Jacob et al. 2018 (arXiv 1712.05877) for integer inference.

    >>> import keras
    >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    >>> export(model, "/tmp/digits.tflite", quantize="float16").name
    'digits.tflite'
    """
    path = Path(path)
    shape = _image_shape(model)
    _check_target(path)
    if path.suffix == ".tflite":
        _check_layers(model)
    _check_quantization(path, quantize, calibration)
    images = _random_images(shape) if calibration is None else check_images(calibration, shape)
    model = in_float32(model)
    outputs = model.predict(images, verbose=0)
    check_logits(outputs["logits"] if isinstance(outputs, dict) else outputs)
    try:
        with replacing(path) as draft, _quiet():
            if path.suffix == ".tflite":
                _convert(model, draft, quantize, images)
            else:
                model.export(draft, format="tf_saved_model", verbose=False)
    except tf.errors.OpError as error:  # what TensorFlow's own writing raises
        raise InputError(f"Cannot write {path}: {error.message}") from error
    return path


def load_exported(path: str | Path) -> Classifier:
    """An exported classifier as a function of images.

    Args:
        path: a `.tflite` file, run by LiteRT, or a SavedModel directory. Load only what you trust: a
            SavedModel is a program.

    Returns:
        `images (N, H, W, C) float32 in [0, 1] -> logits (N, K) float32`, for any N. A file with integer
        input or output is quantized and dequantized on the way.

    Raises:
        InputError: nothing there, not a valid file, or the LiteRT runtime is not installed.

    >>> import keras
    >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    >>> classify = load_exported(export(model, "/tmp/digits.tflite"))
    >>> classify(np.zeros((3, 8, 8, 1), np.float32)).shape
    (3, 10)
    """
    path = Path(path)
    require(path.exists(), f"There is no export at {path}; valid: a .tflite file or a SavedModel directory.")
    return _load_saved_model(path) if path.is_dir() else _load_tflite(path)


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
        table = Table(title=f"{self.path} ({self.precision}, {self.examples} examples)")
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
    >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    >>> path = export(model, "/tmp/digits.tflite")
    >>> x, y = np.random.default_rng(0).random((20, 8, 8, 1), np.float32), np.zeros(20, int)
    >>> check_export(path, model, x, y, attack=lambda model, x, y: 1 - x).agreement
    100.0
    """
    path, shape = Path(path), _image_shape(model)
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


def _image_shape(model: keras.Model) -> tuple[int, ...]:
    shape = getattr(model, "input_shape", None)
    if isinstance(model, keras.Model) and isinstance(shape, tuple) and None not in shape[1:]:
        return shape[1:]
    raise InputError(
        "Only a functional or Sequential Keras model with one input of fixed size (H, W, C) exports, "
        f"received {type(model).__name__} with input shape {shape}."
    )


def _check_target(path: Path) -> None:
    is_file_ending = path.suffix[1:2].isalpha()  # "run-0.3" is a fine name of a directory
    require(
        path.suffix == ".tflite" or not is_file_ending,
        f"Cannot export to {path}: the ending {path.suffix!r} is not one of an export. Valid: a name that "
        "ends in '.tflite', or a directory without an ending for a SavedModel.",
    )
    if path.suffix == ".tflite":
        require(
            not path.is_dir(), f"Cannot export to {path}: it is a directory. Valid: a new file or an old one."
        )
    elif path.exists():
        replaceable = path.is_dir() and (Path(path, "saved_model.pb").exists() or not any(path.iterdir()))
        require(
            replaceable,
            f"Cannot export to {path}: it exists and is not a SavedModel. Valid: a new, an empty or a "
            "SavedModel directory.",
        )


def _check_layers(model: keras.Model) -> None:
    """Refuse layers that say of themselves why TFLite cannot run them."""
    for layer in model._flatten_layers():
        reason = getattr(layer, "why_not_tflite", None)
        require(
            reason is None,
            f"The model cannot be converted to TFLite: the layer {layer.name!r} has no place there, because "
            f"{reason}. Export a SavedModel, or the classifier without that layer.",
        )


def _check_quantization(path: Path, quantize: str | None, calibration: Any) -> None:
    if quantize is not None and quantize not in QUANTIZATIONS:
        raise unknown_name("quantization", quantize, QUANTIZATIONS)
    require(
        quantize is None or path.suffix == ".tflite",
        f"Only a .tflite file can be quantized, received {path} and quantize={quantize!r}.",
    )
    require(
        quantize != "int8" or calibration is not None,
        "quantize='int8' needs calibration images: pass calibration=x, float32 (N, H, W, C) in [0, 1].",
    )
    require(
        quantize == "int8" or calibration is None,
        f"Calibration images are used by quantize='int8' only, received quantize={quantize!r}.",
    )


def _random_images(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).random((8, *shape), np.float32)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide standard error: the converter writes to the descriptor, past Python and past log levels."""
    saved = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _convert(model: keras.Model, path: Path, quantize: str | None, calibration: np.ndarray) -> None:
    from tensorflow.lite.python.convert import ConverterError

    try:
        model.export(path, format="litert", verbose=False, **_converter_options(quantize, calibration))
    except (ConverterError, RuntimeError) as error:
        raise InputError(_conversion_message(str(error))) from error


def _converter_options(quantize: str | None, calibration: np.ndarray) -> dict[str, Any]:
    """Attributes of `tf.lite.TFLiteConverter`; naming the op set is what keeps flex ops out."""
    ops = tf.lite.OpsSet.TFLITE_BUILTINS_INT8 if quantize == "int8" else tf.lite.OpsSet.TFLITE_BUILTINS
    options: dict[str, Any] = {"target_spec": {"supported_ops": [ops]}}
    if quantize is not None:
        options["optimizations"] = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        options["target_spec"]["supported_types"] = [tf.float16]
    if quantize == "int8":
        options["representative_dataset"] = lambda: ([image[None]] for image in calibration)
    return options


def _conversion_message(error: str) -> str:
    refused = sorted(set(re.findall(r"'tf\.(\w+)' op is neither a custom op nor a flex op", error)))
    if not refused:
        return f"The model cannot be converted to TFLite: {error.partition(chr(10))[0]}"
    return (
        f"The model cannot be converted to TFLite, which has no built-in operation for {', '.join(refused)}. "
        "As flex ops they would need TensorFlow beside the TFLite runtime. Replace the layers that use "
        "them, or export a SavedModel."
    )


def _load_saved_model(path: Path) -> Classifier:
    try:
        module = tf.saved_model.load(str(path))
        serve = module.signatures["serving_default"]
    except (OSError, KeyError, tf.errors.OpError) as error:
        raise InputError(f"{path} is not a SavedModel that can be served: {error}") from error
    inputs, outputs = serve.structured_input_signature[1], serve.structured_outputs
    outputs = {"logits": outputs["logits"]} if "logits" in outputs else outputs  # one of a detector's outputs
    _require_one_input_and_output(path, inputs, outputs)
    (name,), (output,) = inputs, outputs
    shape = inputs[name].shape[1:].as_list()

    def classify(images: Any) -> np.ndarray:
        batch = tf.constant(check_images(images, shape))
        serving = module.signatures["serving_default"]  # through `module`, which keeps the variables alive
        return np.asarray(serving(**{name: batch})[output], np.float32)

    return classify


def _load_tflite(path: Path) -> Classifier:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise InputError(
            'Running a .tflite file needs the LiteRT runtime: pip install "keras-robust[litert]"'
        ) from error
    try:
        interpreter = Interpreter(model_path=str(path))
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{path} is not a valid TFLite file: {error}") from error
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    _require_one_input_and_output(path, inputs, outputs)
    (source,), (sink,) = inputs, outputs

    def classify(images: Any) -> np.ndarray:
        batch = check_images(images, source["shape"][1:].tolist())
        try:
            with _quiet():
                interpreter.resize_tensor_input(source["index"], batch.shape)
                interpreter.allocate_tensors()
            interpreter.set_tensor(source["index"], _quantized(batch, source))
            interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise InputError(f"{path} does not run on images of shape {batch.shape}: {error}") from error
        return _dequantized(interpreter.get_tensor(sink["index"]), sink)

    return classify


def _require_one_input_and_output(path: Path, inputs: Any, outputs: Any) -> None:
    require(
        len(inputs) == len(outputs) == 1,
        f"{path} is not an exported classifier: received {len(inputs)} inputs and {len(outputs)} outputs, "
        "valid: one of each.",
    )


def _quantized(values: np.ndarray, tensor: dict[str, Any]) -> np.ndarray:
    if not np.issubdtype(tensor["dtype"], np.integer):
        return values.astype(tensor["dtype"])
    scale, zero_point = tensor["quantization"]
    limits = np.iinfo(tensor["dtype"])
    return np.clip(np.round(values / scale) + zero_point, limits.min, limits.max).astype(tensor["dtype"])


def _dequantized(values: np.ndarray, tensor: dict[str, Any]) -> np.ndarray:
    if not np.issubdtype(tensor["dtype"], np.integer):
        return values.astype(np.float32)
    scale, zero_point = tensor["quantization"]
    return ((values.astype(np.float32) - zero_point) * scale).astype(np.float32)


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
