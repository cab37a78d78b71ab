"""Attacks by short names: pgd-40, square-5000, multi-targeted-20, adaptive-100x5."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any

import keras
import numpy as np

from keras_robust import attacks
from keras_robust.attacks.objective import Custom, get_objective
from keras_robust.errors import InputError, require, unknown_name
from keras_robust.evaluation.report import CLEAN


def attack_named(name: str, threat: Mapping[str, Any], model: Any = None) -> attacks.Attack | None:
    """The attack that a short name stands for; None for "clean".

    Args:
        name: a registered attack's name with dashes, then its variant if it has any, and "-N" for its
            budget: steps of a gradient attack, queries of a search; "-NxR" for R random starts of it.
        threat: `{"norm": ..., "eps": ..., "step_size": ...}`; without a step size gradient attacks take
            steps of 2.5 eps / N. A minimum-norm attack looks for the nearest image whatever its distance,
            in a norm of its own if it knows no other.
        model: what it is to be made on, for an attack that takes options from the model.

    >>> attack_named("pgd-40", {"norm": "linf", "eps": 0.3, "step_size": 0.01}).steps
    40
    >>> attack_named("autoattack-fast", {"norm": "linf", "eps": 0.3}).version
    'fast'
    """
    if name == CLEAN:
        return None
    cls, stated = _parse(name)
    known = cls.__dataclass_fields__
    options = {"norm": threat["norm"]}
    if not cls.minimal:
        options["eps"] = threat["eps"]
    elif threat["norm"] not in cls.norms:
        options["norm"] = cls.norms[0]
    if cls.budget == "steps" and "step_size" in known and threat.get("step_size") is not None:
        options["step_size"] = threat["step_size"]
    return cls(**{**options, **cls.options_for(model), **stated})


def usual_attacks(model: Any) -> tuple[str, ...]:
    """What is tried where nothing is asked for: one attack by gradients, and one that sees only answers."""
    is_of_images = len(model.input_shape) == 4  # which squares can be drawn in
    return "pgd-40", "square-1000" if is_of_images else "rays-1000"


def _parse(name: str) -> tuple[type[attacks.Attack], dict[str, Any]]:
    """The class that a short name begins with, and the options that the rest of it states."""
    for key in sorted(attacks.attacks, key=len, reverse=True):
        if match := re.fullmatch(key.replace("_", "-") + _OPTIONS, name):
            break
    else:
        raise unknown_name("attack", name, [CLEAN, *(_example(known) for known in attacks.attacks)])
    cls, plain = attacks.attacks[key], key.replace("_", "-")
    stated: dict[str, Any] = {}
    if match["variant"]:
        if cls.variant is None:
            raise InputError(f"{name}: {key} has no variants. Write {plain}.")
        stated[cls.variant] = match["variant"]
    if match["budget"]:
        if cls.budget is None:
            raise InputError(f"{name}: {key} takes no number. Write {plain}.")
        stated[cls.budget] = int(match["budget"])
    if match["restarts"]:
        if _RESTARTS not in cls.__dataclass_fields__:
            raise InputError(f"{name}: {key} knows no restarts. Write {name.rpartition('x')[0]}.")
        stated[_RESTARTS] = int(match["restarts"])
    return cls, stated


_OPTIONS = r"(-(?P<variant>[a-z]+))?(-(?P<budget>\d+)(x(?P<restarts>\d+))?)?"
_RESTARTS = "restarts"


def named_attacks(
    wanted: Any, threat: Mapping[str, Any], model: Any = None
) -> dict[str, attacks.Attack | None]:
    """Resolve a list of short names and attack objects, or a mapping from names to attacks."""
    named: dict[str, attacks.Attack | None] = {CLEAN: None}
    for name, item in _items(wanted):
        attack = attack_named(item, threat, model) if isinstance(item, str) else item
        require(
            isinstance(attack, attacks.Attack) or (name == CLEAN and attack is None),
            f"An attack is a short name or an Attack. Received: {item!r}.",
        )
        _check_untargeted(name, attack)
        require(
            named.setdefault(name, attack) == attack,
            f"Two attacks are called {name}. Give them names of their own in a mapping.",
        )
    return named


def _check_untargeted(name: str, attack: attacks.Attack | None) -> None:
    """Refuse what would be measured as something else than it is."""
    require(
        not getattr(attack, "targeted", False),
        f"{name}: an evaluation has no targets. Take an attack with its own, such as multi-targeted-20.",
    )
    bounds = getattr(attack, "bounds", _BOUNDS)
    require(
        bounds == _BOUNDS, f"{name}: images are evaluated in bounds {_BOUNDS}. Received: bounds={bounds}."
    )


_BOUNDS = (0.0, 1.0)


def _items(wanted: Any) -> Iterable[tuple[str, Any]]:
    """Attacks with their names."""
    if isinstance(wanted, Mapping):
        return wanted.items()
    if isinstance(wanted, (str, attacks.Attack)) or not isinstance(wanted, Iterable):
        wanted = [wanted]
    return [(short_name(item) if isinstance(item, attacks.Attack) else item, item) for item in wanted]


def short_name(attack: attacks.Attack) -> str:
    """The short name of an attack object, for example "pgd-40"."""
    parts = [attacks.attacks.name_of(type(attack)).replace("_", "-")]
    for option in (attack.variant, attack.budget):
        if option and (option == attack.budget or getattr(attack, option) != _default(attack, option)):
            parts.append(str(getattr(attack, option)))
    restarts = getattr(attack, _RESTARTS, 1) if attack.budget else 1
    return "-".join(parts) + (f"x{restarts}" if restarts > 1 else "")


def _default(attack: attacks.Attack, option: str) -> Any:
    return attack.__dataclass_fields__[option].default


def settings(attack: attacks.Attack) -> dict[str, Any]:
    """The settings a report states: what is not an attack's default, its budget, and the step size."""
    stated: dict[str, Any] = {}
    for field in fields(attack):
        value = getattr(attack, field.name)
        if isinstance(value, attacks.Attack):
            stated |= settings(value)
        elif field.name not in _UNSAID and (value != field.default or _is_said(field.name, value, attack)):
            stated[field.name] = _plain(value)
    if hasattr(attack, "step"):
        stated["step_size"] = float(attack.step())
    return stated


_SAID = ("norm", "eps", "loss")
_UNSAID = ("jit_compile", "targeted", "bounds")


def _is_said(option: str, value: Any, attack: attacks.Attack) -> bool:
    """Whether a report states an option also where it is the default."""
    return option in (*_SAID, attack.budget) and value not in (None, math.inf)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return get_objective(value).stated()


def check_stated(named: Mapping[str, attacks.Attack | None]) -> None:
    """Refuse to keep what attacks on functions find, which their settings do not tell from others."""
    for name, attack in named.items():
        labels = [get_objective(function).label for function in _functions(attack)]
        require(
            not labels,
            f"{name} climbs {', '.join(labels)}, which has no name that tells it from other functions: "
            "make it an Objective and register it, or keep nothing (directory=None).",
        )


def _functions(value: Any) -> Iterator[Any]:
    """The functions without a name in an attack or objective."""
    if isinstance(value, (tuple, list)):
        inner: Iterable[Any] = value
    elif isinstance(value, (attacks.Attack, attacks.Objective)) and not isinstance(value, Custom):
        inner = [getattr(value, field.name) for field in fields(value)]
    else:
        inner = []
        if callable(value) and not isinstance(value, keras.Model):
            yield value
    for part in inner:
        yield from _functions(part)


def _example(key: str) -> str:
    budget = {"steps": "-40", "queries": "-5000"}.get(attacks.attacks[key].budget or "", "")
    return key.replace("_", "-") + budget
