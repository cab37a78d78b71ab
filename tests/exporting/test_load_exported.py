from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from small_nets import functional, random_images, spectrum

from keras_robust.errors import InputError
from keras_robust.exporting import load_exported


def test_integer_input_and_output_are_converted(tmp_path, model, digits):
    images = digits[0][:50]
    model.export(
        tmp_path / "m.tflite",
        format="litert",
        verbose=False,
        optimizations=[tf.lite.Optimize.DEFAULT],
        representative_dataset=lambda: ([image[None]] for image in images),
        inference_input_type=tf.int8,
        inference_output_type=tf.uint8,
        target_spec={"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]},
    )
    logits = load_exported(tmp_path / "m.tflite")(images)
    expected = np.asarray(model(images))
    assert logits.dtype == np.float32
    assert np.abs(logits - expected).max() < 0.1 * np.ptp(expected)


def test_a_file_with_flex_ops_from_elsewhere_does_not_run(tmp_path):
    model = functional(spectrum)
    model.export(tmp_path / "m.tflite", format="litert", verbose=False)
    with pytest.raises(InputError, match="does not run"):
        load_exported(tmp_path / "m.tflite")(random_images(model))


def test_a_broken_file_is_refused(untrained, tmp_path):
    content = untrained["float32"].read_bytes()
    for broken in (b"", b"<html>" * 50, content[: len(content) // 2]):
        Path(tmp_path, "m.tflite").write_bytes(broken)
        with pytest.raises(InputError, match="not a valid TFLite file"):
            load_exported(tmp_path / "m.tflite")


def test_a_missing_or_broken_saved_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="no export"):
        load_exported(tmp_path / "nothing")
    with pytest.raises(InputError, match="not a SavedModel"):
        load_exported(tmp_path)
    Path(tmp_path, "saved_model.pb").write_text("<html>")
    with pytest.raises(InputError, match="not a SavedModel"):
        load_exported(tmp_path)


@pytest.mark.parametrize("precision", ["saved_model", "float32"])
def test_images_of_another_shape_are_refused_before_they_run(untrained, precision):
    with pytest.raises(InputError, match=r"\(N, 8, 8, 1\)"):
        load_exported(untrained[precision])(np.zeros((2, 9, 8, 1), np.float32))


def test_without_the_runtime_the_message_says_what_to_install(untrained, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(InputError, match=r'pip install "keras-robust\[litert\]"'):
        load_exported(untrained["float32"])
