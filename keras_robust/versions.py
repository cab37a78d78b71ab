"""Versions of what determines a number."""

from __future__ import annotations


def versions() -> dict[str, str]:
    """Version by package, for reports and cards."""
    import keras
    import numpy
    import tensorflow

    import keras_robust

    packages = (keras_robust, keras, tensorflow, numpy)
    return {package.__name__: package.__version__ for package in packages}
