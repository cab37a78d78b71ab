"""Weights of pairs of examples: together within a class, apart between classes."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_robust.errors import is_finite, require


def check_alpha(alpha: float) -> None:
    """Refuse an alpha outside of (0, 1]."""
    require(is_finite(alpha) and 0 < alpha <= 1, f"alpha must be in (0, 1]. Received: alpha={alpha!r}.")


def pair_weights(labels: Any, alpha: float) -> Any:
    """1 for pairs of one class, (alpha - 1) / alpha for the others: `(B, B)` float32.

    Source: ADR, Bui et al. 2020, global compactness.
    """
    check_alpha(alpha)
    labels = ops.reshape(labels, (-1, 1))
    return ops.where(labels == ops.transpose(labels), 1.0, (alpha - 1.0) / alpha)
