"""Getting at an entry's weights: beside its card, or fetched once into a cache."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs

from keras_robust.errors import InputError, require
from keras_robust.files import replacing, user_path
from keras_robust.zoo import lookup
from keras_robust.zoo.cards import Pin
from keras_robust.zoo.weights import check_file

TIMEOUT = 30  # seconds without an answer

Progress = Callable[[int, int], Any]

_CHUNK = 1 << 18


def verify(name: str) -> Path:
    """Check an entry's weights files against its card without loading or fetching them.

    Args:
        name: an entry's name.

    Returns:
        Path of the classifier's file, whose size and sha256 are those of the card.

    Raises:
        InputError: unknown name, weights that were not fetched yet, or what differs.

    >>> verify("at_digits").name
    'model.weights.h5'
    """
    directory, pins = lookup.directory(name), lookup.card(name).files
    paths = {kind: local(directory, pin) for kind, pin in pins.items()}
    for kind, pin in pins.items():
        require(
            pin.url is None or paths[kind].exists(),
            f"The weights of {name} were not fetched yet: krobust zoo pull {name}.",
        )
        check_file(paths[kind], pin)
    return paths["model"]


def pull(name: str, progress: Progress | None = None) -> Path:
    """Fetch those of an entry's weights that have a URL; what is there already is only checked.

    Args:
        name: an entry's name.
        progress: called with the bytes received so far and in total.

    Returns:
        Path of the classifier's file, whose size and sha256 are those of the card.

    Raises:
        InputError: unknown name, a URL that does not answer, or a file that is not the one on the card;
            nothing of it is kept.

    >>> pull("at_digits").name
    'model.weights.h5'
    """
    directory, pins = lookup.directory(name), lookup.card(name).files
    return {kind: fetched(directory, pin, progress) for kind, pin in pins.items()}["model"]


def fetched(directory: Path, pin: Pin, progress: Progress | None = None) -> Path:
    """Path of a checked weights file of the entry in `directory`, fetched if it has to be."""
    path = local(directory, pin)
    if pin.url is None:
        check_file(path, pin)
    elif not _is_sound(path, pin):
        with replacing(path) as draft:
            _download(pin.url, draft, pin.size, progress)
            check_file(draft, pin, source=pin.url)
    return path


def local(directory: Path, pin: Pin) -> Path:
    """Where a file of an entry lies on this machine, or will once it is fetched."""
    beside = directory / pin.file
    if pin.url is None or beside.exists():
        return beside
    return cache_directory() / (pin.sha256 + "".join(Path(pin.file).suffixes))


def cache_directory() -> Path:
    """Where fetched weights lie: KERAS_ROBUST_CACHE, else among the user's caches."""
    chosen = os.environ.get("KERAS_ROBUST_CACHE")
    return user_path(chosen) if chosen else platformdirs.user_cache_path("keras_robust") / "zoo"


def _is_sound(path: Path, pin: Pin) -> bool:
    try:
        check_file(path, pin)
    except InputError:
        return False
    return True


def _download(url: str, draft: Path, size: int, progress: Progress | None) -> None:
    """Copy at most one byte more than `size` from `url`, so that a file without end is refused."""
    from http.client import HTTPException
    from urllib.request import Request, urlopen

    try:
        request = Request(url, headers={"User-Agent": "keras-robust"})
        with urlopen(request, timeout=TIMEOUT) as response, draft.open("wb") as file:
            received = 0
            while received <= size and (chunk := response.read(min(_CHUNK, size + 1 - received))):
                file.write(chunk)
                received += len(chunk)
                if progress is not None:
                    progress(received, size)
    except (OSError, HTTPException, ValueError) as error:
        raise InputError(f"Cannot fetch {url}: {error}") from error
