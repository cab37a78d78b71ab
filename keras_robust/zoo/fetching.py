"""Getting at an entry's weights: beside its card, or fetched once into a cache."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs

from keras_robust.errors import InputError, require
from keras_robust.files import replacing
from keras_robust.zoo import lookup
from keras_robust.zoo.cards import Card
from keras_robust.zoo.weights import WEIGHTS, check_file

TIMEOUT = 30  # seconds without an answer

Progress = Callable[[int, int], Any]

_CHUNK = 1 << 18


def verify(name: str) -> Path:
    """Check an entry's weights file against its card without loading or fetching it.

    Args:
        name: an entry's name.

    Returns:
        Path of the file, whose size and sha256 are those of the card.

    Raises:
        InputError: unknown name, weights that were not fetched yet, or what differs.

    >>> verify("at_digits").name
    'model.weights.h5'
    """
    directory, card = lookup.directory(name), lookup.card(name)
    path = local(directory, card)
    require(
        card.url is None or path.exists(),
        f"The weights of {name} were not fetched yet: krobust zoo pull {name}.",
    )
    check_file(path, card)
    return path


def pull(name: str, progress: Progress | None = None) -> Path:
    """Fetch an entry's weights if its card names a URL; what is there already is only checked.

    Args:
        name: an entry's name.
        progress: called with the bytes received so far and in total.

    Returns:
        Path of the file, whose size and sha256 are those of the card.

    Raises:
        InputError: unknown name, a URL that does not answer, or a file that is not the one on the card;
            nothing of it is kept.

    >>> pull("at_digits").name
    'model.weights.h5'
    """
    return fetched(lookup.directory(name), lookup.card(name), progress)


def fetched(directory: Path, card: Card, progress: Progress | None = None) -> Path:
    """Path of the checked weights of the entry in `directory`, fetched if they have to be."""
    path = local(directory, card)
    if card.url is None:
        check_file(path, card)
    elif not _is_sound(path, card):
        with replacing(path) as draft:
            _download(card.url, draft, card.size, progress)
            check_file(draft, card, source=card.url)
    return path


def local(directory: Path, card: Card) -> Path:
    """Where the weights of an entry lie on this machine, or will once they are fetched."""
    beside = directory / WEIGHTS
    if card.url is None or beside.exists():
        return beside
    return cache_directory() / f"{card.sha256}.weights.h5"


def cache_directory() -> Path:
    """Where fetched weights lie: KERAS_ROBUST_CACHE, else among the user's caches."""
    chosen = os.environ.get("KERAS_ROBUST_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("keras_robust") / "zoo"


def _is_sound(path: Path, card: Card) -> bool:
    try:
        check_file(path, card)
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
