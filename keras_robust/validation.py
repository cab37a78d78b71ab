"""What images, labels and logits must look like at the public boundary.

Each function takes NumPy arrays or tensors, checks them in one pass and returns a NumPy array of the
one dtype that the rest of the package works with.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_robust.errors import InputError, require

IMAGE_SHAPE = (None, None, None)
PROBABILITIES = "The model outputs probabilities where logits are expected."
PROBABILITY_TOLERANCE = 1e-2  # the rounding of a softmax in bfloat16


def check_images(images: Any, shape: Sequence[int | None] | None = None) -> np.ndarray:
    """Images as float32, or an error that says what is wrong with them.

    Args:
        images: array or tensor `(N, H, W, C)` of a floating dtype, finite, values in [0, 1], N >= 1.
        shape: shape of one image, usually `model.input_shape[1:]`; `None` entries are free. Default:
            any `(H, W, C)`.

    Returns:
        float32 array `(N, *shape)`; the caller's own array if it is float32 already.

    Raises:
        InputError: wrong rank, size, channel count or dtype, no images, values not finite or not in [0, 1].

    >>> check_images([[[[0.25], [0.75]]]]).shape
    (1, 1, 2, 1)
    """
    array = _as_array(images, "images")
    one = IMAGE_SHAPE if shape is None else tuple(shape)
    fits = array.ndim == len(one) + 1 and all(
        want is None or want == size for want, size in zip(one, array.shape[1:], strict=True)
    )
    require(
        fits,
        f"Images have the wrong shape: received {array.shape}, valid: {_batch_of(one)}.{_layout_hint(one)}",
    )
    require(len(array) > 0, f"There are no images: received shape {array.shape}, valid: at least one image.")
    require(
        _is_floating(array),
        f"Images must be floating point in [0, 1], received {array.dtype}."
        + (" Divide by 255 first." if array.dtype == np.uint8 else ""),
    )
    _check_unit_range(array)
    return np.asarray(array, np.float32)


def check_labels(labels: Any, num_classes: int, length: int | None = None) -> np.ndarray:
    """Integer class labels as int32, or an error that says what is wrong with them.

    Args:
        labels: array or tensor `(N,)` of an integer dtype, values 0 .. `num_classes - 1`.
        num_classes: number of classes K.
        length: how many labels there must be, usually `len(images)`; `None` for any number.

    Returns:
        int32 array `(N,)`.

    Raises:
        InputError: one-hot or otherwise not of rank 1, not integers, out of range, or the wrong number.

    >>> check_labels([2, 0], num_classes=3)
    array([2, 0], dtype=int32)
    """
    array = _as_array(labels, "labels")
    require(
        array.ndim == 1,
        f"Labels must have shape (N,), received {array.shape}.{_label_hint(array.shape, num_classes)}",
    )
    require(
        array.dtype.kind in "iu",
        f"Labels must be integers 0 to {num_classes - 1}, received dtype {array.dtype}.",
    )
    require(
        length is None or len(array) == length,
        f"There must be one label for each image: received {len(array)} labels for {length} images.",
    )
    if array.size:
        low, high = int(array.min()), int(array.max())
        require(
            low >= 0 and high < num_classes,
            f"Labels must be integers 0 to {num_classes - 1}, received values from {low} to {high}.",
        )
    return array.astype(np.int32, copy=False)


def check_logits(outputs: Any) -> np.ndarray:
    """A model's outputs as float32 logits, or an error if they are probabilities or not a score per class.

    Outputs that all lie in [0, 1] and sum to 1 in each row are what a softmax returns; cross-entropy and
    margin losses of them have vanishing gradients, so that attacks fail without the model being robust.

    Args:
        outputs: array or tensor `(N, K)`, K >= 2, what the model returns for a batch of images.

    Returns:
        float32 array `(N, K)`.

    Raises:
        InputError: not of shape (N, K), not finite, or probabilities.

    >>> check_logits([[2.0, -1.0]]).dtype
    dtype('float32')
    """
    logits = _as_array(outputs, "outputs")
    require(
        logits.ndim == 2 and logits.shape[-1] >= 2,
        f"A classifier must return logits (N, K) with K >= 2 classes, received shape {logits.shape}.",
    )
    logits = logits.astype(np.float32, copy=False)
    require(bool(np.isfinite(logits).all()), "The model returns NaN or infinity; valid: finite logits.")
    within = bool((logits >= 0).all() and (logits <= 1).all())
    sums_to_one = np.allclose(logits.sum(axis=-1), 1, rtol=0, atol=PROBABILITY_TOLERANCE)
    require(
        not (within and sums_to_one),
        f"{PROBABILITIES} All outputs are in [0, 1] and sum to 1: remove the last softmax.",
    )
    return logits


def check_seed(seed: Any) -> int:
    """A seed as a plain integer, which a report can state.

    Raises:
        InputError: not an integer >= 0.

    >>> check_seed(np.int64(3))
    3
    """
    try:
        number = operator.index(seed)
    except TypeError:
        number = -1
    require(number >= 0, f"seed must be an integer >= 0. Received: {seed!r}.")
    return number


def _as_array(values: Any, what: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InputError(
            f"The {what} cannot be read as one array: received {type(values).__name__} ({error}); "
            "valid: a NumPy array or a tensor with values."
        ) from error


def _is_floating(array: np.ndarray) -> bool:
    return (
        array.dtype.kind == "f" or array.dtype.name == "bfloat16"
    )  # NumPy does not count bfloat16 as floating


def _check_unit_range(images: np.ndarray) -> None:
    with np.errstate(invalid="ignore"):  # NaN in bfloat16 warns
        low, high = float(images.min()), float(images.max())
    require(
        bool(np.isfinite(low) and np.isfinite(high)),
        "Images contain NaN or infinity; valid: values in [0, 1].",
    )
    require(
        low >= 0 and high <= 1,
        f"Images must be in [0, 1], received values from {low:g} to {high:g}.{_range_hint(low, high)}",
    )


def _range_hint(low: float, high: float) -> str:
    if low >= 0 and 2 < high <= 255:
        return " Divide by 255 first."
    if low >= -1 and high <= 1:
        return " Values in [-1, 1] become valid by (x + 1) / 2."
    return ""


def _batch_of(shape: Sequence[int | None]) -> str:
    return f"({', '.join(['N', *('any' if size is None else str(size) for size in shape)])})"


def _layout_hint(shape: Sequence[int | None]) -> str:
    return " The layout is (N, height, width, channels)." if len(shape) == 3 else ""


def _label_hint(shape: tuple[int, ...], num_classes: int) -> str:
    if len(shape) == 2 and shape[1] == 1:
        return " Flatten them with labels.reshape(-1)."
    if len(shape) == 2 and shape[1] == num_classes:
        return " One-hot labels become integers by labels.argmax(-1)."
    return ""
