"""Weights files: data that is checked before it is read."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_robust.errors import InputError, require
from keras_robust.zoo.cards import Pin

if TYPE_CHECKING:
    import keras

_SIGNATURES = {".h5": (b"\x89HDF\r\n\x1a\n", "HDF5"), ".npz": (b"PK", "npz")}
_SHOWN = 3


def check_file(path: Path, pin: Pin, source: str | None = None) -> None:
    """Compare a file of weights, or of a detector, with its card, cheapest first, without loading it.

    Args:
        path: the file.
        pin: what its card says of it.
        source: what to call the file in an error; default: its path.

    Raises:
        InputError: absent, larger or smaller than the card says, of another kind, or another sha256.
    """
    source = source or str(path)
    signature, kind = _SIGNATURES[Path(pin.file).suffix]
    try:
        size = path.stat().st_size
        require(
            size <= pin.size,
            f"{source} is larger than its card says: {size} bytes, valid: {pin.size}. It was not read.",
        )
        with path.open("rb") as file:
            start = file.read(64)
            require(start.startswith(signature), f"{source} is not an {kind} file: {_kind(start)}")
            require(size == pin.size, f"{source} is truncated: {size} bytes, valid: {pin.size}.")
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"Cannot read {source}: {error.strerror or error}.") from error
    require(
        digest == pin.sha256,
        f"{source} was altered: its sha256 is {digest}, the card of {pin.card} says {pin.sha256}.",
    )


def sha256_and_size(path: Path) -> dict[str, Any]:
    """The fields of a card that pin a weights file."""
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "size": os.path.getsize(path)}


def load_into(model: keras.Model, path: Path) -> None:
    """`model.load_weights(path)`, if the file holds exactly the model's arrays, be it in half precision.

    Keras itself ignores arrays that the model does not ask for.

    Raises:
        InputError: names or shapes that differ, or a file that HDF5 cannot read.
    """
    with tempfile.TemporaryDirectory() as room:
        model.save_weights(own := Path(room, "own.weights.h5"))
        expected = _arrays(own)
    _compare(path, _arrays(path), expected)
    try:
        model.load_weights(path)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise InputError(f"The weights in {path} cannot be loaded: {error}") from error


def _arrays(path: Path) -> dict[str, str]:
    """Type and shape of every array in an HDF5 file. Links are not followed, so they count as missing."""
    import h5py

    found = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            require(
                not (item.is_virtual or item.external),
                f"{path}: the values of {name} are in another file; valid: in this one.",
            )
            found[name] = f"{item.dtype} {item.shape}"

    try:
        with h5py.File(path, "r") as file:
            file.visititems(note)
    except (OSError, RuntimeError, KeyError) as error:
        raise InputError(f"{path} is not a whole HDF5 file: {error}") from error
    return found


def _compare(path: Path, found: dict[str, str], expected: dict[str, str]) -> None:
    differing = [
        name
        for name in found.keys() & expected.keys()
        if found[name] not in (expected[name], expected[name].replace("float32", "float16"))
    ]
    differences = {
        "lacks": expected.keys() - found.keys(),
        "has besides": found.keys() - expected.keys(),
        "differs in": {f"{name} ({found[name]}, valid: {expected[name]})" for name in differing},
    }
    said = [f"it {verb} {_some(sorted(items))}" for verb, items in differences.items() if items]
    require(not said, f"{path} does not fit the architecture on its card: {'; '.join(said)}.")


def _some(items: list[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


def _kind(start: bytes) -> str:
    if not start:
        return "it is empty."
    if start.lstrip().startswith(b"<"):
        return f"it is a web page or XML that begins with {start[:20]!r}."
    return f"it begins with {start[:20]!r}."
