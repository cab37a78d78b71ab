"""Attacks that look for the nearest misclassified image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from keras_robust.attacks.base import Attack


@dataclass(frozen=True, kw_only=True)
class MinimumNorm(Attack):
    """Base of attacks whose result is the nearest misclassified image, or the image itself if none is found.

    Args:
        eps: radius inside which a misclassified image counts, and at which the search for nearer ones
            ends; `math.inf`: there is no limit, and the search goes on to its end.
    """

    eps: float = math.inf

    minimal: ClassVar[bool] = True
