"""Writing a classifier as a SavedModel or a TFLite file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_robust.errors import InputError, require, unknown_name
from keras_robust.files import check_directory, replacing
from keras_robust.models.precision import in_float32
from keras_robust.quiet import quiet
from keras_robust.validation import check_images, check_logits

QUANTIZATIONS = ("float16", "dynamic", "int8")


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
    >>> export(model, "digits.tflite", quantize="float16").name
    'digits.tflite'
    """
    path = Path(path)
    shape = image_shape(model)
    check_target(path)
    if path.suffix == ".tflite":
        _check_layers(model)
    _check_quantization(path, quantize, calibration)
    images = _random_images(shape) if calibration is None else check_images(calibration, shape)
    model = in_float32(model)
    check_logits(_logits(path, model.predict(images, verbose=0)))
    try:
        with replacing(path) as draft, quiet():
            if path.suffix == ".tflite":
                _convert(model, draft, quantize, images)
            else:
                model.export(draft, format="tf_saved_model", verbose=False)
    except tf.errors.OpError as error:  # what TensorFlow's own writing raises
        raise InputError(f"Cannot write {path}: {error.message}") from error
    return path


def image_shape(model: keras.Model) -> tuple[int, ...]:
    """The size `(H, W, C)` of what a model takes, or an error if it cannot be exported."""
    shape = getattr(model, "input_shape", None)
    if isinstance(model, keras.Model) and isinstance(shape, tuple) and None not in shape[1:]:
        return shape[1:]
    raise InputError(
        "Only a functional or Sequential Keras model with one input of fixed size (H, W, C) exports, "
        f"received {type(model).__name__} with input shape {shape}."
    )


def check_target(path: Path) -> None:
    """Refuse a place where no export can be written."""
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
    check_directory(path.absolute().parent)


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


def _logits(path: Path, outputs: Any) -> Any:
    """What a model returns as its logits, or an error if the export could not give them."""
    if not isinstance(outputs, (dict, list, tuple)):
        return outputs
    named = outputs if isinstance(outputs, dict) else {}
    received = sorted(named) or f"{len(outputs)} without names"
    require(
        path.suffix != ".tflite",
        f"A .tflite file gives logits only; the outputs of the model are {received}. Export a SavedModel.",
    )
    require(
        "logits" in named,
        f'One output of a model of several is to be named "logits"; its outputs are {received}.',
    )
    return named["logits"]


def _random_images(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).random((8, *shape), np.float32)


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
