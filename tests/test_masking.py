"""The table of what the checks see has a row for each of them."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import masking  # noqa: E402

from keras_robust.evaluation import checks  # noqa: E402
from keras_robust.evaluation.masked import masked  # noqa: E402


def test_every_check_and_every_masked_classifier_is_in_the_table():
    assert set(masking.SEEN) == set(checks)
    text = masking.PAGE.read_text()
    for name in (*(f"| `{check}` |" for check in checks), *masking.SHOWN, *masked):
        assert name in text, "run python tools/masking.py"
