"""Options as plain data, which files and comparisons take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """Tuples, and what Keras tracks, as lists and dicts; NumPy's scalars as Python's.

    >>> plain({"widths": (8, np.int64(16))})
    {'widths': [8, 16]}
    """
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    return [plain(item) for item in value] if isinstance(value, (tuple, list)) else value
