"""krobust detect: what it prints, keeps and serves, and what it refuses."""

import os

import matplotlib.image
import numpy as np
import pytest
import tensorflow as tf
from invoked import krobust
from small_runs import finished_run

from keras_robust import data, detection, zoo

QUICK = ("--examples", 300, "--attack", "fgsm", "--eps", 0.3)


def test_it_prints_a_table_keeps_detectors_and_serves_the_first(tmp_path):
    out, served = tmp_path / "out", tmp_path / "served"
    names = ("--detector", "er1", "--detector", "kernel-density", "--detector", "entropy")
    text = krobust("detect", finished_run(), *QUICK, *names, "--out", out, "--save", "--serve", served)
    assert "ACC-NADV" in text and "kernel-density" in text
    files = {"detection.png", "detection.csv", *(f"{name}-fgsm.npz" for name in names[1::2])}
    assert set(os.listdir(out)) == files
    assert matplotlib.image.imread(out / "detection.png").std() > 0
    model, _ = zoo.open_model(finished_run())
    images, _ = data.load("digits", "test", examples=20, seed=0)
    guard = detection.load(out / "er1-fgsm.npz")
    module = tf.saved_model.load(served)
    found = module.serve(tf.constant(images))
    np.testing.assert_allclose(found["score"], guard.score(model, images), rtol=1e-3, atol=1e-2)
    again = krobust("detect", finished_run(), *QUICK, "--fitted", out / "er1-fgsm.npz")
    assert "given" in again and "file" in again


def test_it_attacks_the_detector_too():
    asked = ("--detector", "er1", "--detector", "lid", "--bandwidth", 0.5, "--adaptive", "pgd-3")
    text = krobust("detect", "at_digits", *QUICK, *asked, "--familiar")
    assert "evading" in text and "note: lid has no gradient" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("mne", "'mne'"),
        ("{run} --detector er3", "Unknown detector: 'er3'. Did you mean"),
        ("{run} --attack pdg-40", "Unknown attack: 'pdg-40'"),
        ("{run} --attack clean", "clean is no attack"),
        ("{run} --bandwidth 0", "bandwidth must be a finite number > 0"),
        ("{run} --fitted {file}", "ends in .npz"),
        ("{run} --fitted none.npz", "Cannot read none.npz"),
        ("at_digits --save", "give --out"),
        ("{run} --save --out {file}", "Cannot write {file}"),
        ("{run} --detector er1 --attack fgsm --serve {file}/served", "Cannot write {file}"),
        ("at_digits --detector lid --attack fgsm --examples 60", "more than 40 clean images"),
        ("{run} --detector entropy --attack fgsm --serve {file}.d", "takes a detector by density"),
        (
            "{run} --detector er1 --attack fgsm --adaptive square-5",
            "is PGD or a relative of it. Received: Square",
        ),
        ("{run} --detector er1 --attack fgsm --serve {file}.tflite", "writes a SavedModel directory"),
    ],
)
def test_bad_input_is_told_without_a_traceback(tmp_path, arguments, words):
    (tmp_path / "file").write_text("")
    places = {"file": tmp_path / "file", "run": finished_run()}
    text = krobust("detect", *(part.format(**places) for part in arguments.split()), exit_code=2)
    assert words.format(**places) in " ".join(text.split()) and "Traceback" not in text
