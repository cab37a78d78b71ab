"""Measures that look inside a model; each leaves its picture and the numbers behind it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

import keras_robust as kr
from keras_robust.data import Arrays
from keras_robust.errors import require, require_choice
from keras_robust.studies.measures import Subject, attack_on, attacked_images, measures


@measures.register("surface")
def surface(
    subject: Subject,
    attack: str | dict[str, Any],
    around: str = "clean",
    space: str = "input",
    second: str = "orthogonal",
    eps: float | None = None,
) -> float:
    """Share of a plane around an example in which it is classified rightly, in percent.

    Args:
        subject: what is measured.
        attack: as in `accuracy`.
        around: a "clean", "successful" or "failed" example; NaN where there is none.
        space: "input" or "latent".
        second: the second axis, as in `analysis.loss_surface`.
        eps: half the width of the plane; None: the attack's.
    """
    require_choice("example", around, ("clean", "successful", "failed"))
    made = attack_on(subject.model, subject.threat, attack)
    options = {"spaces": [space], "second": second, "eps": eps, "seed": subject.seed}
    found = kr.analysis.loss_surface(subject.model, _examples(subject), made, **options)
    shown = [at for at in found.surfaces if at.kind == around]
    if not shown:
        return math.nan
    replace(found, surfaces=shown).to_png(subject.directory / "surface.png")
    return 100.0 * float((shown[0].prediction == shown[0].label).mean())


@measures.register("latent_map")
def latent_map(subject: Subject, attack: str | dict[str, Any], show: str = "all") -> float:
    """How well the classes lie apart in the t-SNE of the latents: silhouette of the clean points, in [-1, 1].

    Args:
        subject: what is measured.
        attack: as in `accuracy`.
        show: "all", "successful" or "failed" adversarial examples.
    """
    from sklearn.metrics import silhouette_score

    perplexity = min(30.0, subject.examples / 4)
    options = {"show": show, "perplexity": perplexity, "seed": subject.seed}
    found = kr.analysis.latent_map(
        subject.model, _examples(subject), attack_on(subject.model, subject.threat, attack), **options
    )
    found.to_png(subject.directory / "latent.png")
    clean = found.kind == "clean"
    return float(silhouette_score(found.points[clean], found.label[clean]))


@measures.register("entropy")
def entropy(subject: Subject, attack: str | dict[str, Any], against: str = "all") -> float:
    """How well the entropy of the prediction tells adversarial from clean examples: ROC-AUC, in [0, 1].

    Args:
        subject: what is measured.
        attack: as in `accuracy`.
        against: "all", "successful" or "failed" adversarial examples; NaN where there is none.
    """
    from keras_robust.analysis.latent_map import SHOW

    require_choice("choice of adversarial examples", against, SHOW)
    made = attack_on(subject.model, subject.threat, attack)
    found = kr.analysis.prediction_entropy(subject.model, _examples(subject), made, seed=subject.seed)
    found.to_png(subject.directory / "entropy.png")
    return found.roc_auc_of("adversarial" if against == "all" else against)


@measures.register("plane")
def plane(
    subject: Subject,
    source: Subject | None = None,
    attack: str | dict[str, Any] = "clean",
    variant: str | None = None,
) -> float:
    """Share of points in the plane that are classified rightly after they were moved, in percent.

    Args:
        subject: what is measured.
        source: the classifier whose decisions are drawn and judge the points; by default the subject.
        attack: what moves the points, on the subject, as in `accuracy`.
        variant: of the subject, one that transforms its input: the attacked points are moved further by it.
    """
    points, labels = _examples(subject)
    moved = attacked_images(subject, subject.model, attack, subject.threat)
    if variant:
        shown = subject.variant(variant)
        require(hasattr(shown, "transform"), f"The variant {variant} does not transform its input.")
        points, moved = moved, np.asarray(shown.transform(moved))
    judge = (source or subject).model
    found = kr.analysis.decision_map(judge, (points, labels), moved, seed=subject.seed)
    found.to_png(subject.directory / "plane.png")
    return found.accuracy


@measures.register("match_rate")
def match_rate(subject: Subject, attack: str | dict[str, Any] | None = None) -> float:
    """Share of examples that are predicted as the class that dominates their cluster, in percent.

    Args:
        subject: what is measured.
        attack: of adversarial examples, as in `accuracy`; None: of clean ones.
    """
    examples = _examples(subject)
    made = attack_on(subject.model, subject.threat, attack) if attack else examples.images
    found = kr.analysis.clusters(subject.model, examples, made, seed=subject.seed)
    found.to_png(subject.directory / "clusters.png")
    return found.attacked_match if attack else found.clean_match


@measures.register("cosine")
def cosine(subject: Subject, attack: str | dict[str, Any] | None = None, statistic: str = "mean") -> float:
    """Cosine between the features and the centre of the class predicted: its "mean" or "std".

    Args:
        subject: what is measured.
        attack: of adversarial examples, as in `accuracy`; None: of clean ones.
        statistic: "mean" or "std", over the examples.
    """
    require_choice("statistic", statistic, ("mean", "std"))
    examples = _examples(subject)
    made = attack_on(subject.model, subject.threat, attack) if attack else examples.images
    found = kr.analysis.cosine_table(subject.model, examples, made, seed=subject.seed)
    found.to_png(subject.directory / "cosine.png")
    _, mean, deviation = found.summary()[1 if attack else 0]
    return {"mean": mean, "std": deviation}[statistic]


def _examples(subject: Subject) -> Arrays:
    return kr.data.load(subject.dataset, "test", subject.examples, subject.seed)
