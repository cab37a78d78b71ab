from __future__ import annotations

import json

import numpy as np
import pytest
from small_nets import convolutional, push_down

from keras_robust.attacks import FGSM, PGD
from keras_robust.errors import InputError
from keras_robust.exporting import QUANTIZATIONS, ExportCheck, ExportCheckError, check_export, load_exported
from keras_robust.exporting.checking import MIN_AGREEMENT


@pytest.mark.parametrize("precision", MIN_AGREEMENT)
def test_a_trained_classifier_passes_the_check(exports, model, digits, precision):
    check = check_export(exports[precision], model, digits[0][:600], digits[1][:600], attack=push_down)
    assert check.passed and not check.failures
    assert check.precision == precision and check.examples == 600
    assert check.clean_accuracy > 95
    assert check.robust_accuracy < check.clean_accuracy - 10  # else the replay shows nothing


def test_the_default_attack_is_pgd(exports, model, digits):
    given = exports["float32"], model, digits[0][:100], digits[1][:100]
    check = check_export(*given, eps=0.2)
    assert check.robust_accuracy < check.clean_accuracy - 10
    assert check == check_export(*given, attack=PGD(eps=0.2, steps=20))
    assert check != check_export(*given, attack=FGSM(eps=0.2))


def test_the_numbers_are_those_of_the_definition(exports, model, digits):
    x, y = digits[0][:200], digits[1][:200]
    check = check_export(exports["int8"], model, x, y, attack=push_down, strict=False)
    classify, attacked = load_exported(exports["int8"]), push_down(model, x, y)
    ours, theirs = np.argmax(model(x), -1), classify(x).argmax(-1)
    assert check.agreement == pytest.approx(100 * np.mean(ours == theirs))
    assert check.clean_accuracy == pytest.approx(100 * np.mean(ours == y))
    assert check.exported_clean_accuracy == pytest.approx(100 * np.mean(theirs == y))
    assert check.robust_accuracy == pytest.approx(100 * np.mean(np.argmax(model(attacked), -1) == y))
    assert check.exported_robust_accuracy == pytest.approx(100 * np.mean(classify(attacked).argmax(-1) == y))


def test_quantization_shrinks_the_file(exports):
    size = {precision: path.stat().st_size for precision, path in exports.items()}
    assert size["int8"] < size["float16"] < size["float32"] and size["int8"] < 0.5 * size["float32"]
    assert size["dynamic"] < 0.5 * size["float32"]


@pytest.mark.parametrize("precision", ["saved_model", "int8"])
def test_an_export_of_another_model_fails_the_check(exports, digits, precision):
    other, x, y = convolutional(), digits[0][:100], digits[1][:100]
    check = check_export(exports[precision], other, x, y, attack=push_down, strict=False)
    assert not check.passed and "label agreement" in check.failures[0]
    with pytest.raises(ExportCheckError, match="does not match its model") as error:
        check_export(exports[precision], other, x, y, attack=push_down)
    assert error.value.check == check
    assert f"{check.agreement:.2f}" in str(error.value) and f"{check.robust_accuracy:.2f}" in str(error.value)


def numbers(**changes):
    same = {"agreement": 100.0, "clean_accuracy": 98.0, "exported_clean_accuracy": 98.0}
    robust = {"robust_accuracy": 58.0, "exported_robust_accuracy": 58.0}
    return ExportCheck(**{"path": "m", "precision": "float32", "examples": 1000, **same, **robust, **changes})


@pytest.mark.parametrize(
    ("changes", "passed"),
    [
        ({"agreement": 99.5}, True),
        ({"agreement": 99.4}, False),
        ({"agreement": 99.4, "precision": "float16"}, False),
        ({"agreement": 99.4, "precision": "saved_model"}, False),
        ({"agreement": 98.0, "precision": "int8"}, True),
        ({"agreement": 97.9, "precision": "int8"}, False),
        ({"agreement": 97.9, "precision": "dynamic"}, False),
        ({"exported_robust_accuracy": 56.0}, True),
        ({"robust_accuracy": 57.1, "exported_robust_accuracy": 55.1}, True),
        ({"exported_robust_accuracy": 55.9}, False),
        ({"exported_robust_accuracy": 60.1}, False),
    ],
)
def test_the_limits_of_the_check(changes, passed):
    check = numbers(**changes)
    assert check.passed is passed and bool(check.failures) is not passed
    told = json.loads(check.to_json())
    assert told["passed"] is passed and told["agreement"] == check.agreement
    assert f"{check.exported_robust_accuracy:.2f}" in str(check)


def test_the_check_needs_an_attack_and_valid_data(exports, model, digits):
    path, (x, y) = exports["float32"], digits
    with pytest.raises(InputError, match="eps"):
        check_export(path, model, x[:5], y[:5])
    with pytest.raises(InputError, match="5 labels for 6 images"):
        check_export(path, model, x[:6], y[:5], attack=push_down)
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        check_export(path, model, x[:5], y[:5], attack=lambda model, x, y: x + 1)


def test_every_quantization_has_a_limit():
    assert set(MIN_AGREEMENT) == {"saved_model", "float32", *QUANTIZATIONS}
