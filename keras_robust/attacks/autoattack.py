"""AutoAttack: an ensemble without parameters to choose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import keras

from keras_robust.attacks.apgd import APGD, APGDTargeted
from keras_robust.attacks.base import Attack, attacks
from keras_robust.attacks.fab import FAB, FABTargeted
from keras_robust.attacks.sequence import Sequence
from keras_robust.attacks.square import Square
from keras_robust.errors import require, require_choice

_RESTARTS = 5  # of the untargeted attacks in "plus"
_SAMPLES = 20  # gradients averaged in "rand"

Stages = Iterator[tuple[str, Attack]]


def _standard(**common: Any) -> Stages:
    yield "apgd-ce", APGD(**common)
    yield "apgd-t", APGDTargeted(**common)
    yield "fab-t", FABTargeted(**common)
    yield "square", Square(rescale=False, **common)


def _plus(**common: Any) -> Stages:
    yield "apgd-ce", APGD(restarts=_RESTARTS, **common)
    yield "apgd-dlr", APGD(loss="dlr", restarts=_RESTARTS, **common)
    yield "fab", FAB(restarts=_RESTARTS, **common)
    yield "square", Square(rescale=False, **common)
    yield "apgd-t", APGDTargeted(**common)
    yield "fab-t", FABTargeted(**common)


def _rand(**common: Any) -> Stages:
    yield "apgd-ce", APGD(samples=_SAMPLES, **common)
    yield "apgd-dlr", APGD(loss="dlr", samples=_SAMPLES, **common)


def _fast(**common: Any) -> Stages:
    yield "apgd-ce", APGD(**{**common, "search_dtype": "bfloat16"})
    yield "apgd-t", APGDTargeted(**{**common, "search_dtype": "bfloat16"})
    yield "square", Square(rescale=False, **common)


VERSIONS: dict[str, Callable[..., Stages]] = {
    "standard": _standard,
    "plus": _plus,
    "rand": _rand,
    "fast": _fast,
}


@keras.saving.register_keras_serializable("keras_robust")
@attacks.register("autoattack")
@dataclass(frozen=True, kw_only=True)
class AutoAttack(Sequence):
    """AutoAttack, in the settings of its authors.

    Args:
        version: "standard" (APGD on cross-entropy, targeted APGD on DLR, targeted FAB, Square), "plus"
            (also untargeted APGD on DLR and untargeted FAB, with 5 restarts), "rand" (APGD on
            cross-entropy and on DLR with gradients averaged over 20 passes, for classifiers that draw
            random numbers), or "fast".

    "fast" is ours and not AutoAttack: it leaves out FAB and runs both APGDs in bfloat16; what they find
    counts once the float32 model confirms it.

    Source: Croce & Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks", sections 4 and 5.

    >>> list(AutoAttack(eps=0.3).stages)
    ['apgd-ce', 'apgd-t', 'fab-t', 'square']
    """

    version: str = "standard"

    variant: ClassVar[str | None] = "version"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("version of AutoAttack", self.version, VERSIONS)
        require(
            self.search_dtype == "float32",
            'AutoAttack searches in float32. Take version="fast" to search in bfloat16. '
            f"Received: search_dtype={self.search_dtype!r}.",
        )

    @property
    def stages(self) -> dict[str, Attack]:
        return dict(VERSIONS[self.version](**self.shared))
