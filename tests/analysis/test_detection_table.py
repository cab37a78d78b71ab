"""The table of detectors: its protocol, against the same steps by hand."""

import csv

import numpy as np
import pytest

from keras_robust.analysis import detection
from keras_robust.attacks import FGSM, PGD, classify
from keras_robust.detection import ERDetector, LIDDetector, detection_metrics, matched_noise, roc_auc
from keras_robust.errors import InputError
from keras_robust.models import split

ATTACKS = {"fgsm": FGSM(eps=0.15), "pgd": PGD(eps=0.1, steps=5)}


@pytest.fixture(scope="module")
def guarded(digits_classifier, digits):
    images, labels = digits[0][:400], digits[1][:400]
    return split(digits_classifier, at=digits_classifier.layers[0]), images, labels


def test_rows_are_those_made_by_hand(guarded):
    model, images, labels = guarded
    found = detection(model, (images, labels), {"fgsm": ATTACKS["fgsm"]}, {"er1": ERDetector()}, seed=3)
    right = classify(model, images) == labels
    images, labels = images[right], labels[right]
    assert found.examples == len(images)
    adversarial = ATTACKS["fgsm"](model, images, labels, seed=3)
    noisy = matched_noise(images, adversarial, 3)
    order = np.random.default_rng(3).permutation(len(images))
    first, second = order[: round(len(order) / 5)], order[round(len(order) / 5) :]
    guard = ERDetector().fit(model, *(one[first] for one in (images, adversarial, noisy, labels)))
    other, attacked = (
        guard.score(model, np.concatenate([images[second], noisy[second]])),
        guard.score(model, adversarial[second]),
    )
    metrics = detection_metrics(
        attacked > 0, other > 0, classify(model, adversarial[second]) == labels[second]
    )
    (row,) = found.found
    assert (row.detector, row.fit_on, row.judged_on) == ("er1", "fgsm", "fgsm")
    assert row.metrics == metrics
    assert row.roc_auc == pytest.approx(roc_auc(other, attacked))


def test_detectors_are_judged_on_other_attacks_and_on_one_of_their_own(guarded, tmp_path):
    model, images, labels = guarded
    prototypes = {"er1": ERDetector(bandwidth=0.5), "lid": LIDDetector(neighbors=5)}
    known = {"training": (images[:300], labels[:300]), "adaptive": PGD(eps=0.1, steps=3)}
    found = detection(model, (images, labels), ATTACKS, prototypes, **known)
    pairs = [(row.detector, row.fit_on, row.judged_on) for row in found.found]
    assert pairs == [
        ("er1", "fgsm", "fgsm"),
        ("er1", "fgsm", "pgd"),
        ("er1", "fgsm", "evading"),
        ("er1", "pgd", "fgsm"),
        ("er1", "pgd", "pgd"),
        ("er1", "pgd", "evading"),
        ("lid", "fgsm", "fgsm"),
        ("lid", "fgsm", "pgd"),
        ("lid", "pgd", "fgsm"),
        ("lid", "pgd", "pgd"),
    ]
    assert set(found.fitted) == {(name, attack) for name in prototypes for attack in ATTACKS}
    assert all(detector.threshold is None for detector in prototypes.values()), "copies were fit"
    assert len(found.notes) == 1 and "lid has no gradient" in found.notes[0]
    plain = next(row for row in found.found if row.judged_on == "pgd")
    evading = next(row for row in found.found if row.judged_on == "evading")
    assert evading.metrics.acc_com <= plain.metrics.acc_com
    found.to_png(tmp_path / "detection.png")
    header, *rows = csv.reader((tmp_path / "detection.csv").open())
    assert header[:3] == ["detector", "fit_on", "judged_on"] and len(rows) == 10


def test_what_to_fit_on_can_be_chosen(guarded):
    model, images, labels = guarded
    guards = {"er1": ERDetector(bandwidth=0.5)}
    whole, part = (
        detection(model, (images, labels), ATTACKS, guards, fit_on=names).found for names in (None, ["pgd"])
    )
    assert part == [row for row in whole if row.fit_on == "pgd"] and len(part) == 2


def test_a_fitted_detector_is_judged_as_it_is(guarded):
    model, images, labels = guarded
    first = detection(model, (images, labels), ATTACKS, {"er1": ERDetector()}, cross=False)
    assert [row.judged_on for row in first.found] == ["fgsm", "pgd"]
    guard = first.fitted["er1", "pgd"]
    again = detection(model, (images, labels), {"pgd": ATTACKS["pgd"]}, {"mine": guard})
    (row,) = again.found
    assert (row.detector, row.fit_on, row.metrics) == ("mine", "given", first.found[1].metrics)


def test_bad_input_is_told(guarded):
    model, images, labels = guarded
    er1 = {"er1": ERDetector()}
    for arguments, options, message in [
        (({}, er1), {}, "at least one attack and one detector"),
        ((ATTACKS, {}), {}, "at least one attack and one detector"),
        ((ATTACKS, er1), {"share": 1.0}, r"share must be in \(0, 1\)"),
        ((ATTACKS, er1), {"fit_on": ["pdg"]}, "Unknown attack to fit on: 'pdg'. Did you mean 'pgd'"),
        ((ATTACKS, er1), {"share": 0.001}, "Too few examples"),
        ((ATTACKS, {"lid": LIDDetector()}), {"share": 0.05}, "lid, fit on fgsm: .*clean images"),
    ]:
        with pytest.raises(InputError, match=message):
            detection(model, (images, labels), *arguments, **options)
