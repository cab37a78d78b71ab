"""Checks options that came as data against the signature of what they are meant for."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml

from keras_robust.errors import InputError, require_choice


def check_options(
    where: str, options: Mapping[str, Any], target: Callable, supplied: Iterable[str] = ()
) -> None:
    """Refuse options that `target` does not take, lacks, or would take in another type.

    Args:
        where: what to call them in an error, for example "recipes/at_mnist.yaml: defense".
        options: the options by name.
        target: class or function; a parameter without annotation takes what its default is.
        supplied: names of parameters that the program fills in itself.

    Raises:
        InputError: names `where`, the option, its value and what is allowed.
    """
    if not isinstance(options, Mapping):
        raise InputError(f"{where} must be a mapping. Received: {options!r}.")
    parameters = {name: kind for name, kind in _parameters(target).items() if name not in set(supplied)}
    hints = _hints(target)
    for name, value in options.items():
        require_choice(f"option of {where}", name, parameters)
        annotation = hints.get(name, _kind_of(parameters[name].default))
        if not _fits(value, annotation):
            raise InputError(_mismatch(where, name, value, annotation))
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty and name not in options
    ]
    if missing:
        raise InputError(f"{where} lacks {', '.join(missing)}. Received: {dict(options)}.")


@lru_cache(maxsize=512)  # a study checks the same targets for each of its cells
def _parameters(target: Callable) -> dict[str, inspect.Parameter]:
    """Named parameters, with those that a class hands on to its bases through **options."""
    if not inspect.isclass(target):
        return _named(target)
    found: dict[str, inspect.Parameter] = {}
    for initialiser in (vars(cls)["__init__"] for cls in target.__mro__ if "__init__" in vars(cls)):
        found = {**_named(initialiser), **found}
        if not _hands_on(initialiser):
            break
    return found


def _named(function: Callable) -> dict[str, inspect.Parameter]:
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self" and parameter.kind not in variadic
    }


def _hands_on(function: Callable) -> bool:
    kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
    return inspect.Parameter.VAR_KEYWORD in kinds


@lru_cache(maxsize=512)
def _hints(target: Callable) -> dict[str, Any]:
    functions = [vars(cls).get("__init__") for cls in target.__mro__] if inspect.isclass(target) else [target]
    hints: dict[str, Any] = {}
    for function in functions:
        if inspect.isfunction(function):
            hints = {**get_type_hints(function), **hints}
    return hints


def _kind_of(default: Any) -> Any:
    """What a parameter without annotation takes."""
    if isinstance(default, (bool, str)):
        return type(default)
    return float if isinstance(default, (int, float)) else Any


def _fits(value: Any, annotation: Any) -> bool:
    if annotation is Any:
        return not (isinstance(value, str) and _is_number(value))  # a number that YAML reads as text
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin in _LISTS:
        items = [argument for argument in arguments if argument is not Ellipsis]
        return isinstance(value, (list, tuple)) and all(
            any(_fits(item, argument) for argument in items) for item in value
        )
    if annotation in (int, float):
        number = int if annotation is int else (int, float)
        return isinstance(value, number) and not isinstance(value, bool)
    expected = origin or annotation
    return isinstance(value, expected) if inspect.isclass(expected) else True


def _mismatch(where: str, name: str, value: Any, annotation: Any) -> str:
    hint = ""
    if isinstance(value, str) and _is_number(value):
        number = float(value)
        plain = number if _fits(number, annotation) or not number.is_integer() else int(number)
        hint = f" YAML reads {value} as text; write {yaml.safe_dump(plain).split()[0]}."
    return (
        f"{where}: {name} must be {_wording(annotation)}. "
        f"Received: {value!r} of type {type(value).__name__}.{hint}"
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _wording(annotation: Any) -> str:
    origin, arguments = get_origin(annotation) or annotation, get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(map(_wording, arguments))
    if origin in _LISTS:
        items = [_wording(argument) for argument in arguments if argument not in (Any, Ellipsis)]
        return f"a list ({' or '.join(items)} each)" if items else "a list"
    return _WORDS.get(origin, str(annotation))


_LISTS = (list, tuple, Sequence, Iterable)
_WORDS = {
    int: "an integer",
    float: "a number",
    str: "text",
    bool: "true or false",
    dict: "a mapping",
    Mapping: "a mapping",
    type(None): "null",
    Any: "a number",  # only text that is a number does not fit
}
