"""Whether the clusters of the latent are the classes that a classifier predicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from rich.table import Table

from keras_robust.analysis.finding import Finding, columns
from keras_robust.analysis.pairs import pairs
from keras_robust.errors import require
from keras_robust.models.latent import require_latent


@dataclass(frozen=True)
class ClusterMatch(Finding):
    """How many examples of each cluster are predicted as each class.

    Attributes:
        clean: `(clusters, K)` int, of the clean examples.
        attacked: `(clusters, K)` int, of the adversarial examples in the clusters of the clean ones.
    """

    clean: np.ndarray
    attacked: np.ndarray

    @property
    def dominant(self) -> np.ndarray:
        """The class that most clean examples of each cluster are predicted as, `(clusters,)`."""
        return self.clean.argmax(axis=1)

    @property
    def clean_match(self) -> float:
        """Share of clean examples that are predicted as the dominant class of their cluster, in percent."""
        return self._match(self.clean)

    @property
    def attacked_match(self) -> float:
        """The same of the adversarial examples."""
        return self._match(self.attacked)

    def _match(self, counts: np.ndarray) -> float:
        return 100.0 * float(counts[np.arange(len(counts)), self.dominant].sum() / counts.sum())

    @property
    def size(self) -> tuple[float, float]:
        return 9, 4

    def rows(self) -> Iterator[Sequence[Any]]:
        classes = range(self.clean.shape[1])
        yield "examples", "cluster", "dominant", *(f"predicted {label}" for label in classes)
        for kind, counts in self._kinds():
            for cluster, (label, line) in enumerate(zip(self.dominant, counts, strict=True)):
                yield kind, cluster, label, *line

    def table(self) -> Table:
        table = columns("examples", "number", "match rate %")
        for (kind, counts), match in zip(self._kinds(), (self.clean_match, self.attacked_match), strict=True):
            table.add_row(kind, str(counts.sum()), f"{match:.2f}")
        return table

    def draw(self, figure: Any) -> None:
        order = np.argsort(self.dominant, kind="stable")
        for axes, (kind, counts) in zip(figure.subplots(1, 2), self._kinds(), strict=True):
            cells = axes.imshow(counts[order], cmap="viridis", aspect="auto")
            axes.set(title=f"{kind}, {self._match(counts):.1f}%", xlabel="predicted class", ylabel="cluster")
            axes.set_yticks(range(len(order)), order)
            figure.colorbar(cells, ax=axes)

    def _kinds(self) -> tuple[tuple[str, np.ndarray], ...]:
        return ("clean", self.clean), ("attacked", self.attacked)


def clusters(
    model: keras.Model,
    examples: tuple[Any, Any],
    attack: Any,
    *,
    count: int | None = None,
    seed: int = 0,
) -> ClusterMatch:
    """Match rate: how often the predicted class is the dominant prediction of the cluster of the latent.

    Args:
        model: a `LatentClassifier`.
        examples: images `(N, ...)` float in [0, 1] and labels `(N,)`; Ward linkage takes memory for N² / 2
            distances.
        attack: an `Attack`, or adversarial images shaped like the images.
        count: number of clusters, 1..N; None: that of the classes.
        seed: of the attack.

    Ward linkage clusters the clean latents. Every example, clean or adversarial, belongs to the cluster whose
    centroid is nearest, and the dominant class of a cluster is the one most clean examples in it are
    *predicted* as.

    Raises:
        InputError: no latent, or fewer examples than clusters.

    Source: MAT, ICLR 2021 submission, Table 1, which names neither the clustering nor the distance.

    >>> import keras_robust as kr
    >>> digits = kr.data.load("digits", "test", examples=100, seed=0)
    >>> found = clusters(kr.zoo.load("at_digits"), digits, kr.attacks.FGSM(eps=0.15))
    >>> found.clean_match > found.attacked_match > 50
    True
    """
    from sklearn.cluster import AgglomerativeClustering

    require_latent("Clustering", model)
    classes = model.output_shape[-1]
    count = classes if count is None else count
    length = len(examples[1])
    require(
        isinstance(count, int) and 1 <= count <= length,
        f"The number of clusters must be in 1..{length}, the number of examples. Received: {count!r}.",
    )
    seen = pairs(model, examples, attack, seed)
    joined = AgglomerativeClustering(count, linkage="ward").fit_predict(seen.clean.latent)
    centroids = np.stack([seen.clean.latent[joined == cluster].mean(axis=0) for cluster in range(count)])
    counts = []
    for side in (seen.clean, seen.attacked):
        table = np.zeros((count, classes), int)
        np.add.at(table, (_nearest(side.latent, centroids), side.classes), 1)
        counts.append(table)
    return ClusterMatch(*counts)


def _nearest(latents: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    from sklearn.metrics import pairwise_distances_argmin

    return pairwise_distances_argmin(latents, centroids)
