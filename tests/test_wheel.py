"""The wheel carries the package and its data, and works where there is no checkout."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_BYTES = 60_000_000

pytest.importorskip("hatchling", reason="building the wheel needs hatchling: pip install keras-robust[dev]")


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=cwd, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    place = tmp_path_factory.mktemp("dist")
    code = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    run(sys.executable, "-c", code, place, cwd=ROOT)
    (built,) = place.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """An environment with the wheel installed, and the dependencies of this one within reach."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=False)
    bin_directory = "Scripts" if os.name == "nt" else "bin"
    interpreter = place / bin_directory / Path(sys.executable).name
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", interpreter)
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=place)
    (packages,) = place.glob("**/site-packages")
    # Read after the packages of the new environment itself.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return interpreter


def data_files(directory: str) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in (ROOT / directory).rglob("*") if path.is_file()}


def is_published_result(name: str) -> bool:
    return Path(name).match("recipes/studies/*/*/*")


def test_it_holds_the_data_and_is_small(wheel):
    assert wheel.stat().st_size < MAX_BYTES
    held = set(zipfile.ZipFile(wheel).namelist())
    for directory in ("recipes", "zoo"):
        prefix = "keras_robust/_data/"
        found = {name.removeprefix(prefix) for name in held if name.startswith(f"{prefix}{directory}/")}
        assert found == {name for name in data_files(directory) if not is_published_result(name)}
    assert "keras_robust/py.typed" in held
    assert not [name for name in held if name.startswith(("tests/", "tools/", "runs/"))]


def test_it_works_elsewhere(python, tmp_path):
    code = """
import json, keras_robust as kr
entries = kr.zoo.list()
changed = [(card, name) for card in entries for name, wrapper in card.variants.items() if wrapper]
loaded = [(entries[0], None), *changed]
classes = [kr.zoo.load(card.name, variant=name).output_shape[1] == card.num_classes for card, name in loaded]
print(json.dumps([kr.__file__, kr.recipes.names(), kr.zoo.names(), classes]))
"""
    output = run(python, "-c", code, cwd=tmp_path, KERAS_ROBUST_ZOO=str(tmp_path / "zoo"), PYTHONPATH="")
    module, recipes, entries, classes = json.loads(output.splitlines()[-1])
    assert Path(module).is_relative_to(python.parents[1]), "the checkout was imported"
    assert recipes == sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
    assert entries == sorted(path.parent.name for path in (ROOT / "zoo").glob("*/card.yaml"))
    assert len(classes) > 1 and all(classes)
