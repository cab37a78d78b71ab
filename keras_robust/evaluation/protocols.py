"""By which protocols a classifier that changes its input is attacked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import keras

from keras_robust.attacks import Attack
from keras_robust.attacks.made_on import EndToEnd, MadeOn
from keras_robust.errors import require
from keras_robust.evaluation.report import CLEAN
from keras_robust.models.ways import STATIC, ways_of

GREY_BOX = "grey_box"


def by_protocol(named: Mapping[str, Attack | None], model: keras.Model) -> dict[str, Attack | None]:
    """Each white-box attack on a classifier that changes its input, end to end and in the grey box.

    Under its own name an attack is made on the classifier itself, in all `ways_of` it; under its name and
    "grey_box" on the static classifier, by an attacker who does not know of the change. What looks only at
    outputs, or for the nearest image, is made on the classifier as on any.
    """
    ways = ways_of(model)
    if not ways:
        return dict(named)
    others = [way for way in ways if way != STATIC]
    found: dict[str, Attack | None] = {}
    for name, attack in named.items():
        require(
            not _comes_with_another(name),
            f"On a classifier that changes its input {name!r} is what comes with {name.split()[0]!r}. Give "
            "the attack another name.",
        )
        if attack is None or attack.black_box or attack.minimal or isinstance(attack, MadeOn | EndToEnd):
            found[name] = attack
        else:
            found[name] = EndToEnd.of(attack, others)
            found[in_grey_box(name)] = MadeOn.of(attack, STATIC)
    return found


def in_grey_box(name: str) -> str:
    """What an attack is called in the grey box."""
    return f"{name} {GREY_BOX}"


def asked_for(outcomes: Iterable[str]) -> list[str]:
    """The attacks that gave outcomes of these names, without what comes of itself."""
    return [name for name in outcomes if name != CLEAN and not _comes_with_another(name)]


def _comes_with_another(name: str) -> bool:
    return name.endswith(in_grey_box(""))
