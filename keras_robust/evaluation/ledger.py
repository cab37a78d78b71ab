"""What is found, kept on disk by stage and block, so that a killed evaluation goes on where it was."""

from __future__ import annotations

import json
import os
from pathlib import Path
from threading import Lock
from typing import Any

from keras_robust.errors import InputError, require
from keras_robust.evaluation.blocks import Found
from keras_robust.files import write_text

LEDGER = "evaluation.jsonl"


class Ledger:
    """Found blocks by attack and number; with a directory also lines of a file that only grows.

    The first line says what is evaluated; a line that was being written at a kill is dropped.

    Args:
        terms: plain data that determine every result; a ledger of other terms is not gone on with.
        directory: where the file lies, or None to keep nothing.
        resume: go on with the file in `directory` if there is one.

    Raises:
        InputError: there is a file already and `resume` is False, it is of other terms, or it cannot be
            read or written.
    """

    def __init__(self, terms: dict[str, Any], directory: Path | str | None, resume: bool = False) -> None:
        self._found: dict[tuple[str, int], Found] = {}
        self._lock = Lock()
        self._path = None if directory is None else Path(directory) / LEDGER
        if self._path is None:
            return
        if not self._path.exists():
            write_text(self._path, _line(terms))
            return
        require(resume, f"{self._path.parent} holds an evaluation. Resume it, or choose another directory.")
        self._read(json.loads(_line(terms)))

    def get(self, attack: str, block: int) -> Found:
        """What was found by an attack in a block, or by the first of its stages, or by none yet."""
        return self._found.get((attack, block)) or Found({})

    def add(self, attack: str, block: int, found: Found) -> None:
        """Keep what was found in place of what was before; it is on the disk when this returns."""
        self._found[attack, block] = found
        if self._path is not None:
            try:
                with self._lock, self._path.open("a", encoding="utf-8") as file:
                    file.write(_line({"attack": attack, "block": block, **found.to_dict()}))
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise InputError(f"Cannot write {self._path}: {error.strerror or error}.") from error

    def _read(self, terms: dict[str, Any]) -> None:
        assert self._path is not None
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
            whole = [line for line in lines if line.endswith("\n")]
            begun, *entries = map(json.loads, whole)
            for entry in entries:
                self._found[entry["attack"], entry["block"]] = Found.from_dict(entry)
            differing = sorted(key for key in {*begun, *terms} if begun.get(key) != terms.get(key))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{self._path} is not an evaluation that can be resumed: {error!r}.") from error
        changes = "; ".join(f"{key}: {begun.get(key)!r}, now {terms.get(key)!r}" for key in differing)
        where = self._path.parent
        require(not differing, f"The evaluation in {where} was begun with other terms: {changes}.")
        if len(whole) < len(lines):
            write_text(self._path, "".join(whole))


def _line(values: dict[str, Any]) -> str:
    return json.dumps(values) + "\n"
