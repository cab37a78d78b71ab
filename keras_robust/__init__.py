"""Adversarially robust image classifiers on Keras 3: model zoo, training kit and evaluation kit.

Public names are loaded at their first use (PEP 562), so that importing the package is cheap and does not
import TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_MODULES = (
    "analysis",
    "attacks",
    "data",
    "defenses",
    "detection",
    "evaluation",
    "exporting",
    "layers",
    "losses",
    "models",
    "recipes",
    "studies",
    "training",
    "workers",
    "zoo",
)
_NAMES = {
    "InputError": "keras_robust.errors",
    "ThreatModel": "keras_robust.threat",
    "check_export": "keras_robust.exporting",
    "evaluate": "keras_robust.evaluation",
    "export": "keras_robust.exporting",
    "load_exported": "keras_robust.exporting",
}

__all__ = ["__version__", *_MODULES, *_NAMES]  # noqa: PLE0604 (they are strings)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"keras_robust.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'keras_robust' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
