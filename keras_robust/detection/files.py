"""Detectors in files: arrays and plain data, of which nothing is imported, evaluated or unpickled."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from keras_robust.detection.base import Detector, detectors
from keras_robust.errors import InputError, require
from keras_robust.files import replacing
from keras_robust.schema import check_options

_CONFIG = "config"


def save(detector: Detector, path: Path | str) -> Path:
    """Write a fitted detector, whole or not at all.

    The file is an npz archive: the arrays that `fit` learnt, and the name and options as JSON. It does not
    hold the classifier: keep it next to its model.

    Args:
        detector: after `fit`.
        path: ends in ".npz".

    Raises:
        InputError: not fit yet, another ending, or a place that cannot be written.

    >>> import keras_robust as kr
    >>> images, _ = kr.data.load("digits", "test", examples=100, seed=0)
    >>> detector = kr.detection.EntropyDetector().fit(kr.zoo.load("at_digits"), images)
    >>> load(save(detector, "entropy.npz")).threshold == detector.threshold
    True
    """
    path = _named(path)
    require(detector.threshold is not None, f"{type(detector).__name__} is not fit yet: fit it first.")
    config = json.dumps({"name": detectors.name_of(type(detector)), **detector.get_config()})
    arrays = {_CONFIG: np.frombuffer(config.encode(), np.uint8), **detector.get_arrays()}
    with replacing(path) as draft:
        np.savez_compressed(draft, allow_pickle=False, **arrays)
    return path


def load(path: Path | str) -> Detector:
    """The detector that `save` wrote; see its example.

    Args:
        path: ends in ".npz".

    Raises:
        InputError: nothing there, not such a file, an unknown detector or option, or arrays that are missing,
            too many, of another kind, or do not fit together.
    """
    path = _named(path)
    arrays = _arrays(path)
    config = _config(path, arrays.pop(_CONFIG, None))
    name = config.pop("name", "")
    detector = detectors[name]
    check_options(f"{path}: detector {name!r}", config, detector)
    _check(path, arrays, detector)
    fitted = detector(**config)
    try:
        fitted.set_arrays(arrays)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return fitted


def _named(path: Path | str) -> Path:
    path = Path(path)
    require(path.suffix == ".npz", f"The name of a detector's file ends in .npz. Received: {path}.")
    return path


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        raise InputError(f"{path} is not a detector's file: {error}") from error


def _config(path: Path, text: np.ndarray | None) -> dict[str, Any]:
    try:
        config = json.loads(text.tobytes()) if text is not None and text.dtype == np.uint8 else None
    except ValueError as error:
        raise InputError(f"{path}: its config is not JSON: {error}") from error
    require(isinstance(config, dict), f"{path} is not a detector's file: it has no config.")
    return config  # type: ignore[return-value]


def _check(path: Path, arrays: dict[str, np.ndarray], detector: type[Detector]) -> None:
    require(
        arrays.keys() == detector.shapes.keys(),
        f"{path}: the arrays are {sorted(arrays)}, valid: {sorted(detector.shapes)}.",
    )
    for name, axes in detector.shapes.items():
        array = arrays[name]
        fits = array.ndim > 1 if axes is None else array.ndim == axes
        require(
            fits and array.dtype.kind in "fiu" and bool(np.isfinite(array).all()),
            f"{path}: {name} must be finite numbers with {'2 or more' if axes is None else axes} axes. "
            f"Received: {array.dtype} of shape {array.shape}.",
        )
