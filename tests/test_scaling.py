"""The commands and the arithmetic of the page on scaling run as written."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "tools" / "scaling.md").read_text()
PATIENCE = 300  # seconds


def block(language):
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return text


@pytest.mark.slow
def test_the_commands_run(tmp_path):
    command = tmp_path / "bin" / "krobust"
    command.parent.mkdir()
    run = "from keras_robust.cli import main; main()"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{run}" "$@"\n')
    command.chmod(0o755)
    paths = {"PATH": [command.parent, os.environ["PATH"]], "PYTHONPATH": [ROOT]}
    environment = {name: os.pathsep.join(map(str, parts)) for name, parts in paths.items()}
    process = subprocess.Popen(
        ["bash", "-ec", block("bash")],
        cwd=tmp_path,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=PATIENCE)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, output
    assert output.count("Trained. Evaluate it with: krobust evaluate runs/two") == 2


def test_the_arithmetic_gives_the_table(capsys):
    exec(compile(block("python"), "scaling.md", "exec"), {})
    assert capsys.readouterr().out == block("text")
