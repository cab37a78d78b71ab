"""Images that are as far from clean ones as adversarial images are, in a random direction."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_robust.errors import require
from keras_robust.validation import check_images

_HALVINGS = 25
_LARGEST = 8.0  # deviation; with it nearly every pixel is at a bound


def matched_noise(clean: Any, adversarial: Any, seed: int = 0) -> np.ndarray:
    """Clean images plus Gaussian noise, clipped to [0, 1], at the mean L2 distance of adversarial ones.

    Args:
        clean: images `(N, ...)` float in [0, 1].
        adversarial: images made of them.
        seed: of the noise.

    Returns:
        float32 array `(N, ...)`. Its mean distance is that of the adversarial images after the clipping, or
        the largest that noise reaches.

    Raises:
        InputError: arrays of different shapes, or not images.

    Source: Feinman et al. 2017, section 5.1; Ma et al. 2018, section 5.1.

    >>> clean = np.full((50, 8, 8, 1), 0.5)
    >>> distance = np.linalg.norm(matched_noise(clean, clean + 0.1) - clean, axis=(1, 2)).mean()
    >>> round(float(distance), 2)
    0.8
    """
    clean, adversarial = (
        check_images(clean, np.shape(clean)[1:]),
        check_images(adversarial, np.shape(clean)[1:]),
    )
    require(
        clean.shape == adversarial.shape,
        f"Adversarial images are as many as clean ones. Received: {len(adversarial)} for {len(clean)}.",
    )
    noise = np.random.default_rng(seed).standard_normal(clean.shape).astype("float32")
    wanted = _distance(adversarial, clean)
    low, high = 0.0, _LARGEST
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        if _distance(_clipped(clean, middle * noise), clean) < wanted:
            low = middle
        else:
            high = middle
    return _clipped(clean, (low + high) / 2.0 * noise)


def _clipped(clean: np.ndarray, noise: np.ndarray) -> np.ndarray:
    return np.clip(clean + noise, 0.0, 1.0, dtype="float32")


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm((one - other).reshape(len(one), -1), axis=1).mean())
