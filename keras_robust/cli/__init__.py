"""The `krobust` command: one module a command, imported with TensorFlow only when it runs."""

from __future__ import annotations

from typing import Any

import click

from keras_robust import __version__
from keras_robust.cli import (
    analyze,
    demo,
    detect,
    evaluate,
    export,
    merge,
    recipes,
    reproduce,
    train,
    transfer,
    zoo,
)
from keras_robust.errors import InputError


class BadInput(click.ClickException):
    """The user's input is wrong."""

    exit_code = 2


class Commands(click.Group):
    """A group that tells of bad input in one message and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            raise BadInput(str(error)) from error
        except OSError as error:
            if error.filename is None:  # no file of the user's, and for click to see to
                raise
            raise BadInput(f"{error.filename}: {error.strerror}") from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="krobust")
def main() -> None:
    """Train, attack, evaluate and export adversarially robust image classifiers.

    \b
    Examples:
      krobust zoo list
      krobust train at_digits --out runs/digits
      krobust evaluate at_mnist --attack pgd-40 --examples 1000
      krobust evaluate at_mnist --attack autoattack --examples 1000 --out report --resume
      krobust analyze surface at_mnist --out looks
      krobust detect at_mnist --attack pgd-40 --out detectors
      krobust reproduce adr/table1 --profile smoke
      krobust export at_mnist at_mnist.tflite --quantize int8 --check
    """


for command in (
    zoo.zoo,
    recipes.recipes,
    train.train,
    evaluate.evaluate,
    merge.merge,
    transfer.transfer,
    analyze.analyze,
    detect.detect,
    reproduce.reproduce,
    export.export,
    demo.demo,
):
    main.add_command(command)
