"""The command within the process of a test."""

from click.testing import CliRunner

from keras_robust.cli import main


def krobust(*arguments, exit_code=0):
    """What a command prints; the test fails if it ends otherwise than expected."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == exit_code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    return result.output
