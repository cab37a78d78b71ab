"""Where the data that travels with the package lies."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def packaged(kind: str) -> Path:
    """Directory of the packaged "recipes" or "zoo": in an installed wheel, else in the checkout."""
    installed = _PACKAGE / "_data" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / kind
