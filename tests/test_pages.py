"""The pages that are made of data are up to date."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import pages  # noqa: E402


def test_zoo_page():
    assert (ROOT / "zoo" / "README.md").read_text() == pages.zoo_page(), "run python tools/pages.py"


def test_recipes_page():
    assert (ROOT / "recipes" / "README.md").read_text() == pages.recipes_page(), "run python tools/pages.py"


def test_studies_page():
    page = ROOT / "recipes" / "studies" / "README.md"
    assert page.read_text() == pages.studies_page(), "run python tools/pages.py"
