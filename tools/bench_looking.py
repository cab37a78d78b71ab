"""The section of the benchmarks on what looks at many examples: pictures and detectors, in seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from measuring import Row, Setting, Target, section, trained_or_random

SHOWN = 1000  # examples of a picture
JUDGED = 10_000  # examples that a detector is fit and scored on
LEAST = 200  # what a detector of every class can be fit on
LIMIT = Target("<=", 60.0)


@section
def looking(setting: Setting) -> Iterator[Row]:
    """Seconds of t-SNE and loss surfaces of 1000 examples, and of detectors fit and scored on 10,000."""
    from keras_robust import analysis, attacks, detection

    wanted = max(setting.examples or JUDGED, LEAST)
    name, model, images, labels, (eps, _) = trained_or_random(setting, wanted)
    adversarial = attacks.FGSM(eps=eps)(model, images, labels)
    few, attacked = (images[:SHOWN], labels[:SHOWN]), adversarial[:SHOWN]
    pictures: dict[str, Callable[[], Any]] = {
        "t-SNE": lambda: analysis.latent_map(model, few, attacked),
        "loss surfaces": lambda: analysis.loss_surface(model, few, attacked, eps=eps),
    }
    for what, run in pictures.items():
        yield Row("looking", name, f"{what} of {len(attacked)} examples, s", seconds(run), LIMIT)
    noisy = detection.matched_noise(images, adversarial, 0)

    def fit_and_score(what: str) -> None:
        guard = detection.detectors[what]()
        guard.fit(model, images, adversarial, noisy, labels).score(model, images)

    for what in ("er1", "er2", "kernel_density", "lid"):
        measure = f"{what} fit and scored on {len(images)} images, s"
        yield Row("looking", name, measure, seconds(partial(fit_and_score, what)), LIMIT)


def seconds(run: Callable[[], Any]) -> float:
    """How long one call takes."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin
