"""Attacks by short names: pgd-40, square-5000, multi-targeted-20."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from keras_robust import attacks
from keras_robust.errors import InputError, require, unknown_name

CLEAN = "clean"


def attack_named(name: str, threat: Mapping[str, Any]) -> attacks.Attack | None:
    """The attack that a short name stands for; None for "clean".

    Args:
        name: a registered attack's name with dashes, and "-N" for its budget: steps of a gradient
            attack, queries of a search.
        threat: `{"norm": ..., "eps": ..., "step_size": ...}`; without a step size gradient attacks take
            steps of 2.5 eps / N.

    >>> attack_named("pgd-40", {"norm": "linf", "eps": 0.3, "step_size": 0.01}).steps
    40
    """
    if name == CLEAN:
        return None
    match = re.fullmatch(r"(?P<attack>[a-z][a-z_-]*?)(-(?P<budget>\d+))?", name)
    key = match["attack"].replace("-", "_") if match else name
    if match is None or key not in attacks.attacks:
        raise unknown_name("attack", name, [CLEAN, *(_example(known) for known in attacks.attacks)])
    cls = attacks.attacks[key]
    options = {"eps": threat["eps"], "norm": threat["norm"]}
    if match["budget"]:
        if cls.budget is None:
            raise InputError(f"{name}: {key} takes no number. Write {key.replace('_', '-')}.")
        options[cls.budget] = int(match["budget"])
    has_step_size = cls.budget == "steps" and "step_size" in cls.__dataclass_fields__
    if has_step_size and threat.get("step_size") is not None:
        options["step_size"] = threat["step_size"]
    return cls(**options)


def named_attacks(wanted: Any, threat: Mapping[str, Any]) -> dict[str, attacks.Attack | None]:
    """Resolve a list of short names and attack objects, or a mapping from names to attacks."""
    named: dict[str, attacks.Attack | None] = {CLEAN: None}
    for name, item in _items(wanted):
        attack = attack_named(item, threat) if isinstance(item, str) else item
        require(
            isinstance(attack, attacks.Attack) or (name == CLEAN and attack is None),
            f"An attack is a short name or an Attack. Received: {item!r}.",
        )
        require(
            named.setdefault(name, attack) == attack,
            f"Two attacks are called {name}. Give them names of their own in a mapping.",
        )
    return named


def _items(wanted: Any) -> Iterable[tuple[str, Any]]:
    """Attacks with their names."""
    if isinstance(wanted, Mapping):
        return wanted.items()
    if isinstance(wanted, (str, attacks.Attack)) or not isinstance(wanted, Iterable):
        wanted = [wanted]
    return [(short_name(item) if isinstance(item, attacks.Attack) else item, item) for item in wanted]


def short_name(attack: attacks.Attack) -> str:
    """The short name of an attack object, for example "pgd-40"."""
    name = attacks.attacks.name_of(type(attack)).replace("_", "-")
    return f"{name}-{getattr(attack, attack.budget)}" if attack.budget else name


def settings(attack: attacks.Attack) -> dict[str, Any]:
    """The settings a report states: the attack's plain options, and the step size in use."""
    config = attack.get_config()
    plain = {
        key: value
        for key, value in config.items()
        if isinstance(value, (int, float, str)) and key not in _UNSAID
    }
    if hasattr(attack, "step"):
        plain["step_size"] = attack.step()
    return plain


_UNSAID = ("jit_compile", "targeted")


def _example(key: str) -> str:
    budget = {"steps": "-40", "queries": "-5000"}.get(attacks.attacks[key].budget or "", "")
    return key.replace("_", "-") + budget
