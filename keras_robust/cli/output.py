"""What the commands share: the console, quiet imports, and opening MODEL."""

from __future__ import annotations

import json
import os
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from keras_robust.quiet import quiet

MODEL_HELP = "MODEL is a zoo name, the directory of a run or of a saved entry, or a .keras file."


def console() -> Console:
    """Standard output; wide enough for a table where it is a file."""
    return Console() if Console().is_terminal else Console(width=140)


def print_report(report: Any) -> None:
    """An evaluation's table and warnings."""
    console().print(report.table())
    for flag in report.flags:
        console().print(f"[yellow]warning[/yellow]: {escape(flag)}")


def print_json(values: Any) -> None:
    """Data on standard output, for other programs."""
    click.echo(json.dumps(values, indent=1))


def import_tensorflow(search_devices: bool = True) -> None:
    """Import TensorFlow without its start-up notices, which it writes past its own log levels.

    The device search has notices of its own; after it no workers can be joined.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet():
        import tensorflow as tf

        if search_devices:
            tf.config.list_logical_devices()


def open_model(reference: str) -> Any:
    """The model that MODEL refers to, with its card if it has one."""
    import_tensorflow()
    from keras_robust import zoo

    return zoo.open_model(reference)
