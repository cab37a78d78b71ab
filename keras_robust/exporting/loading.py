"""Running an exported classifier."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_robust.errors import InputError, require
from keras_robust.quiet import quiet
from keras_robust.validation import check_images

Classifier = Callable[[Any], np.ndarray]


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
    >>> from keras_robust.exporting import export
    >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    >>> classify = load_exported(export(model, "digits.tflite"))
    >>> classify(np.zeros((3, 8, 8, 1), np.float32)).shape
    (3, 10)
    """
    path = Path(path)
    require(path.exists(), f"There is no export at {path}; valid: a .tflite file or a SavedModel directory.")
    return _load_saved_model(path) if path.is_dir() else _load_tflite(path)


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


def interpreter_class() -> Any:
    """What runs a .tflite file.

    Raises:
        InputError: the LiteRT runtime is not installed.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise InputError(
            'Running a .tflite file needs the LiteRT runtime: pip install "keras-robust[litert]"'
        ) from error
    return Interpreter


def _load_tflite(path: Path) -> Classifier:
    runtime = interpreter_class()
    try:
        interpreter = runtime(model_path=str(path))
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{path} is not a valid TFLite file: {error}") from error
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    _require_one_input_and_output(path, inputs, outputs)
    (source,), (sink,) = inputs, outputs

    def classify(images: Any) -> np.ndarray:
        batch = check_images(images, source["shape"][1:].tolist())
        try:
            with quiet():
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
