"""Files and directories that are whole or absent."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import yaml

from keras_robust.errors import InputError

if TYPE_CHECKING:
    import keras

_HDF5 = 1 << 20  # bytes, at most, that a file of weights has beside them


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Plain data only, by the C parser where there is one; `on`, `off`, `yes` and `no` are words.

    A key that stands twice, of which YAML's loaders keep the last, is an error.
    """

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if first in "tTfF" or not tag.endswith(":bool")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise yaml.constructor.ConstructorError(
                None, None, f"{', '.join(twice)} stands twice in one mapping", node.start_mark
            )
        return super().construct_mapping(node, deep)


def user_path(text: str | os.PathLike[str]) -> Path:
    """A path of the user's, in which a leading `~` is their home, and `~nobody` a plain name.

    >>> user_path("~nobody-by-this-name/zoo").as_posix()
    '~nobody-by-this-name/zoo'
    """
    return Path(os.path.expanduser(text))


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A draft beside `path`, of the same name, that takes its place only if the block succeeds.

    Raises:
        InputError: the place cannot be written, or the disk is full.

    >>> with replacing("note.txt") as draft:
    ...     _ = draft.write_text("whole")
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as room:
            draft = Path(room, path.name)
            yield draft
            if path.is_dir() and draft.is_dir():  # a file never takes the place of a directory
                os.replace(path, Path(room, "previous"))
            os.replace(draft, path)
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error.strerror or error}.") from error


def check_directory(path: Path) -> None:
    """Refuse a directory that cannot be made or written, before the work whose results it is to take.

    Raises:
        InputError: it is a file, below one, or not writable.
    """
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        why = "cannot be written" if there.is_dir() else "is a file"
        raise InputError(f"Cannot write {path}: {there} {why}.")


def write_text(path: Path | str, text: str) -> None:
    """Write a text file whole or not at all."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def save_weights(model: keras.Model, path: Path | str) -> None:
    """`write_weights`, whole or not at all."""
    with replacing(path) as draft:
        write_weights(model, draft)


def write_weights(model: keras.Model, draft: Path) -> None:
    """`model.save_weights(draft)`, with those of its optimizers, if the disk has room for them.

    Raises:
        InputError: it has not; HDF5 itself may crash then.
    """
    needed, free = _bytes_of(model) + _HDF5, shutil.disk_usage(draft.parent).free
    if needed > free:
        raise InputError(
            f"Cannot write {draft.name}: it takes up to {needed} bytes, the disk has {free} left."
        )
    model.save_weights(draft, overwrite=True)


def _bytes_of(model: keras.Model) -> int:
    """What its variables and those of its optimizers take, none being wider than float32 but for counters."""
    optimizers = [getattr(model, "optimizer", None), *getattr(model, "player_optimizers", {}).values()]
    variables = [variable for one in (model, *filter(None, optimizers)) for variable in one.variables]
    return 4 * sum(prod(variable.shape) for variable in variables)


def parse_yaml(text: str) -> Any:
    """What YAML text says, as plain data; `yaml.YAMLError` or `ValueError` where it is none."""
    return yaml.load(text, Loader=_Loader)


def read_yaml(path: Path | str) -> Any:
    """What a YAML file says, as plain data.

    Raises:
        InputError: it cannot be read, or is not YAML.
    """
    try:
        return parse_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Cannot read {path}: {error}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date
        raise InputError(f"{path}: not valid YAML: {error}") from error
