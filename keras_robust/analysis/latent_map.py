"""A map of the latent: t-SNE of clean and adversarial examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from rich.table import Table

from keras_robust import losses
from keras_robust.analysis.finding import Finding, columns
from keras_robust.analysis.pairs import Pairs, pairs
from keras_robust.errors import is_finite, require, require_choice
from keras_robust.models.latent import require_latent

SHOW = ("all", "successful", "failed")

_COMPONENTS = 50  # of the PCA before t-SNE, as its authors advise
_WRONG_BEFORE = "wrong before"
_KINDS = {"clean": "o", _WRONG_BEFORE: "s", "successful": "v", "failed": "^"}


@dataclass(frozen=True)
class LatentMap(Finding):
    """A point in the plane for each image, the clean ones first.

    Attributes:
        points: `(M, 2)` float32, without units.
        kind: `(M,)` str: "clean"; "successful" or "failed" for what became of the attack; "wrong before"
            where the image is misclassified without it.
        index: `(M,)` which of the examples it is.
        label: `(M,)` its true class.
        prediction: `(M,)` the class predicted.
        entropy: `(M,)` of the prediction, in nats.
    """

    points: np.ndarray
    kind: np.ndarray
    index: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    entropy: np.ndarray
    notes: Sequence[str] = ()

    @property
    def size(self) -> tuple[float, float]:
        return 12, 5.5

    def rows(self) -> Iterator[Sequence[Any]]:
        yield "x", "y", "kind", "index", "label", "prediction", "entropy"
        each = (self.kind, self.index, self.label, self.prediction, self.entropy)
        yield from zip(*self.points.T, *each, strict=True)

    def table(self) -> Table:
        table = columns("examples", "number", "rightly predicted %", "mean entropy")
        for kind, rows in self._by_kind():
            right = 100 * (self.prediction == self.label)[rows].mean()
            table.add_row(kind, str(rows.sum()), f"{right:.2f}", f"{self.entropy[rows].mean():.4f}")
        return table

    def draw(self, figure: Any) -> None:
        """Clean examples in the colour of their class, adversarial ones black; on the right with entropy."""
        flat = figure.add_subplot(1, 2, 1)
        high = figure.add_subplot(1, 2, 2, projection="3d")
        last = max(9, int(self.label.max()))
        colours = {"cmap": "tab10" if last < 10 else "turbo", "vmin": 0, "vmax": last}
        for kind, rows in self._by_kind():
            clean = kind == "clean"
            ink = {"c": self.label[rows], "s": 18, **colours} if clean else {"c": "black", "s": 7}
            style = {"marker": _KINDS[kind], "linewidths": 0, "alpha": 0.7, "label": kind, **ink}
            shown = flat.scatter(*self.points[rows].T, **style)
            high.scatter(*self.points[rows].T, self.entropy[rows], **style)
            if clean:
                figure.colorbar(shown, ax=flat, label="class of the clean examples")
        flat.legend(fontsize=8)
        flat.set(xticks=[], yticks=[])
        high.set(xticks=[], yticks=[], title="height: entropy of the prediction (nats)")

    def _by_kind(self) -> list[tuple[str, np.ndarray]]:
        found = [(kind, self.kind == kind) for kind in _KINDS]
        return [(kind, rows) for kind, rows in found if rows.any()]


def latent_map(
    model: keras.Model,
    examples: tuple[Any, Any],
    attack: Any,
    *,
    show: str = "all",
    perplexity: float = 30.0,
    seed: int = 0,
) -> LatentMap:
    """t-SNE of the latents of clean and adversarial examples together, with the entropy of the predictions.

    Args:
        model: a `LatentClassifier`.
        examples: images `(N, ...)` float in [0, 1] and labels `(N,)`.
        attack: an `Attack`, or adversarial images shaped like the images.
        show: which adversarial examples: "all", or those of rightly classified images at which the attack
            was "successful" or "failed".
        perplexity: about how many neighbours t-SNE looks at, > 0 and less than the number of points.
        seed: of the attack and of t-SNE.

    Latents of more than 50 features are reduced to their first 50 principal components before.

    Returns:
        LatentMap

    Raises:
        InputError: no latent, or a perplexity that does not suit the number of points.

    Source: van der Maaten & Hinton 2008; Bui et al., ECCV 2020, Figures 4 and 5.

    >>> import keras_robust as kr
    >>> digits = kr.data.load("digits", "test", examples=20, seed=0)
    >>> found = latent_map(kr.zoo.load("at_digits"), digits, kr.attacks.FGSM(eps=0.15), perplexity=5)
    >>> found.points.shape
    (40, 2)
    """
    require_latent("This map", model)
    require_choice("choice of adversarial examples", show, SHOW)
    seen = pairs(model, examples, attack, seed)
    kinds = np.where(seen.successful, "successful", np.where(seen.failed, "failed", _WRONG_BEFORE))
    shown = np.flatnonzero((kinds == show) | (show == "all"))
    notes = [] if len(shown) else [f"There is no {show} adversarial example among {len(seen.labels)}."]
    index = np.concatenate([np.arange(len(seen.labels)), shown])
    logits = _joined(seen, "logits", shown)
    return LatentMap(
        _plane(_joined(seen, "latent", shown), perplexity, seed),
        np.concatenate([np.full(len(seen.labels), "clean"), kinds[shown]]),
        index,
        seen.labels[index],
        logits.argmax(axis=-1),
        np.asarray(losses.entropy(logits)),
        notes,
    )


def _joined(seen: Pairs, what: str, shown: np.ndarray) -> np.ndarray:
    return np.concatenate([getattr(seen.clean, what), getattr(seen.attacked, what)[shown]])


def _plane(latents: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    require(
        is_finite(perplexity) and 0 < perplexity < len(latents),
        f"perplexity must be > 0 and below the number of points, {len(latents)}. Received: {perplexity!r}.",
    )
    components = min(_COMPONENTS, len(latents))
    if latents.shape[1] > components:
        latents = PCA(components, random_state=seed).fit_transform(latents)
    start = "pca" if min(latents.shape) >= 2 else "random"
    # Threads would add up in any order, and t-SNE carries the rounding on; on busy cores they are slower too.
    with threadpool_limits(1):
        return TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(latents)
