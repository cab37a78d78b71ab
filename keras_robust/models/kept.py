"""What is made of a model once and lives as long as it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Made = TypeVar("Made")


class _Drawer:
    """Keras looks for what to save in models, lists and dicts that it finds on a model, not in here."""

    def __init__(self) -> None:
        self.contents: dict[str, Any] = {}


def kept_on(model: Any, name: str, make: Callable[[], Made]) -> Made:
    """What `make` gave at the first call with this model and name; it is no part of the model's state."""
    drawer = vars(model).setdefault("_keras_robust_kept", _Drawer())
    if name not in drawer.contents:
        drawer.contents[name] = make()
    return drawer.contents[name]
