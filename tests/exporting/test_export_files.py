from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from limits import full_disk
from small_nets import convolutional

from keras_robust.errors import InputError
from keras_robust.exporting import export, load_exported


@pytest.mark.parametrize("ending", [".onnx", ".h5", ".keras", ".pb", ".TFLITE"])
def test_other_endings_are_refused(tmp_path, model, ending):
    with pytest.raises(InputError, match="tflite") as error:
        export(model, tmp_path / f"model{ending}")
    assert ending in str(error.value)


def test_a_number_is_no_ending(tmp_path, model):
    assert export(model, tmp_path / "digits-0.3").is_dir()


@pytest.mark.parametrize("name", ["m.tflite", "saved"])
def test_an_unwritable_place_is_refused(tmp_path, model, name):
    Path(tmp_path, "file").write_text("here")
    with pytest.raises(InputError, match="Cannot write"):
        export(model, tmp_path / "file" / name)


@pytest.mark.parametrize("name", ["m.tflite", "saved"])
def test_a_full_disk_leaves_the_earlier_export_in_place(tmp_path, model, digits, name):
    path = export(model, tmp_path / name)
    before = load_exported(path)(digits[0][:5])
    with full_disk(4096), pytest.raises(InputError, match="Cannot write"):
        export(convolutional(), path)
    np.testing.assert_array_equal(load_exported(path)(digits[0][:5]), before)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["m.tflite", "saved"])
def test_a_new_export_replaces_the_earlier_one(tmp_path, model, digits, name):
    export(convolutional(), tmp_path / name)
    path = export(model, tmp_path / name)
    np.testing.assert_allclose(load_exported(path)(digits[0][:5]), model(digits[0][:5]), atol=1e-4)
    assert list(tmp_path.iterdir()) == [path]


def test_foreign_files_and_directories_are_not_replaced(tmp_path, model):
    Path(tmp_path, "notes").mkdir()
    Path(tmp_path, "notes", "precious").write_text("keep")
    Path(tmp_path, "m.tflite").mkdir()
    for name in ("notes", "notes/precious", "m.tflite"):
        with pytest.raises(InputError, match="Cannot export"):
            export(model, tmp_path / name)
    assert Path(tmp_path, "notes", "precious").read_text() == "keep"
