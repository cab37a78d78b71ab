"""The one exception that bad input raises, and the words it is told in."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable
from numbers import Real
from typing import Any


class InputError(ValueError):
    """The caller's input is wrong; the message says what was received and what is valid.

    The command line prints the message without a traceback and exits with code 2.
    """


def unknown_name(kind: str, name: object, valid: Iterable[str]) -> InputError:
    """The error for a name that is not in a list of valid ones, with close matches.

    >>> print(unknown_name("attack", "pdg", ["pgd", "fgsm"]))
    Unknown attack: 'pdg'. Did you mean 'pgd'? Valid: fgsm, pgd.
    """
    names = sorted(valid)
    close = difflib.get_close_matches(str(name), names, n=3)
    hint = f" Did you mean {' or '.join(repr(match) for match in close)}?" if close else ""
    return InputError(f"Unknown {kind}: {name!r}.{hint} Valid: {', '.join(names) or 'none'}.")


def require(condition: bool, message: str) -> None:
    """Raise `InputError(message)` unless `condition` holds."""
    if not condition:
        raise InputError(message)


def require_choice(kind: str, name: object, valid: Collection[str]) -> None:
    """Refuse a name that is not in a list of valid ones: see `unknown_name`."""
    if name not in valid:
        raise unknown_name(kind, name, valid)


def is_finite(number: Any) -> bool:
    """Whether `number` is a real number, neither infinite nor NaN.

    >>> is_finite(0.5), is_finite("0.5"), is_finite(float("nan"))
    (True, False, False)
    """
    return isinstance(number, Real) and math.isfinite(number)


def require_above_zero(**options: Any) -> None:
    """Refuse options that are not finite numbers > 0."""
    for name, value in options.items():
        require(
            is_finite(value) and value > 0, f"{name} must be a finite number > 0. {_received(name, value)}"
        )


def require_not_negative(**options: Any) -> None:
    """Refuse options that are not finite numbers >= 0."""
    for name, value in options.items():
        require(
            is_finite(value) and value >= 0, f"{name} must be a finite number >= 0. {_received(name, value)}"
        )


def require_count(**options: Any) -> None:
    """Refuse options that are not integers >= 1, or do not fit into 32 bits."""
    for name, value in options.items():
        require(
            isinstance(value, int) and not isinstance(value, bool) and value >= 1,
            f"{name} must be an integer >= 1. {_received(name, value)}",
        )
        require(value < 2**31, f"{name} must be below 2**31. {_received(name, value)}")


def _received(name: str, value: Any) -> str:
    return f"Received: {name}={value!r}."
