"""Signs that a robust accuracy is not what it seems."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from keras_robust.evaluation.report import Outcome
from keras_robust.registry import Registry

Check = Callable[[Mapping[str, Outcome]], str | None]
checks: Registry[Check] = Registry("check")


@checks.register("black_box_stronger")
def black_box_stronger(outcomes: Mapping[str, Outcome]) -> str | None:
    """A black-box attack that finds more than every white-box one: gradients are masked."""
    attacked = {name: outcome for name, outcome in outcomes.items() if name != "clean"}
    white = {name: o.accuracy for name, o in attacked.items() if not o.black_box}
    black = {name: o.accuracy for name, o in attacked.items() if o.black_box}
    if not white or not black or min(black.values()) >= min(white.values()):
        return None
    best_white, best_black = min(white, key=white.__getitem__), min(black, key=black.__getitem__)
    return (
        f"{best_black} leaves {black[best_black]:.1f}%, less than the best white-box attack {best_white} "
        f"({white[best_white]:.1f}%): gradients may be masked; trust the worst case."
    )


def warnings(outcomes: Mapping[str, Outcome]) -> list[str]:
    """What every registered check has to say."""
    return [message for name in checks if (message := checks[name](outcomes))]
