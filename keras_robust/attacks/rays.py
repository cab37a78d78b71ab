"""RayS: walks along rays of ±1 to the decision boundary; it sees only labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np

from keras_robust.attacks.base import attacks
from keras_robust.attacks.minimal import MinimumNorm
from keras_robust.attacks.predictions import predict_classes
from keras_robust.errors import require, require_above_zero, require_count
from keras_robust.models.valid import check_model
from keras_robust.noise import Noise, reseeded
from keras_robust.validation import check_images, check_labels

Labeller = Callable[[np.ndarray], Any]


class Boundary(NamedTuple):
    """What RayS found from each image.

    Attributes:
        images: `(N, H, W, C)` float32, the nearest misclassified image, or the image itself if none was
            found inside eps.
        distance: `(N,)` Linf distance of the nearest misclassified image that was found, inside eps or
            not; inf where there was none.
        queries: `(N,)` integers, how many labels were asked for.
    """

    images: np.ndarray
    distance: np.ndarray
    queries: np.ndarray

    @property
    def adbd(self) -> float:
        """Average decision boundary distance; of a search without eps, which else ends inside it."""
        return float(self.distance.mean())


@keras.saving.register_keras_serializable("keras_robust")
@attacks.register("rays")
@dataclass(frozen=True, kw_only=True)
class RayS(MinimumNorm):
    """Search for the ray of ±1 on which the decision boundary is nearest, by labels alone.

    Args:
        eps: an image leaves the search as soon as a misclassified one is found inside eps; without it,
            the search spends all its queries.
        queries: labels asked for each image, >= 1, the first of them of the image itself.
        tolerance: length > 0 at which the bisection of a ray ends, in the Euclidean norm as in the
            source: `tolerance / sqrt(H W C)` a pixel.

    The signs of the best ray are flipped in blocks: all, halves, quarters and so on of the image,
    flattened one channel after the other. A ray that is not misclassified where the best one ends costs
    one query; others are bisected. Nothing is random.

    The model is a `keras.Model`, or any function from float32 images `(n, H, W, C)`, n being any number,
    to integer labels `(n,)`: `lambda images: logits_of(images).argmax(-1)` makes one of an exported file
    that `keras_robust.load_exported` has loaded.

    Raises:
        InputError: an option that is not as described.

    Source: Chen & Gu 2020, "RayS: a ray searching method for hard-label adversarial attack",
    algorithms 2 and 3.

    >>> images = np.full((1, 2, 2, 1), 0.5, "float32")
    >>> def bright(images):
    ...     return (images.mean((1, 2, 3)) > 0.7).astype(int)
    >>> found = RayS(queries=50).search(bright, images, [0])
    >>> bool(bright(found.images)[0]), round(found.adbd, 2), found.queries
    (True, 0.2, array([50]))
    """

    queries: int = 10_000
    tolerance: float = 1e-3

    black_box: ClassVar[bool] = True
    norms: ClassVar[tuple[str, ...]] = ("linf",)
    budget: ClassVar[str | None] = "queries"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count(queries=self.queries)
        require_above_zero(tolerance=self.tolerance)

    def __call__(
        self,
        model: keras.Model | Labeller,
        images: Any,
        labels: Any,
        targets: Any = None,
        *,
        seed: int = 0,
        batch_size: int = 128,
    ) -> np.ndarray:
        """The images of `search`; `seed` is of no consequence."""
        self._check_targets(targets)
        return self.search(model, images, labels, batch_size=batch_size).images

    def search(
        self, model: keras.Model | Labeller, images: Any, labels: Any, *, batch_size: int = 128
    ) -> Boundary:
        """The nearest misclassified images with their distances and the queries they took.

        Args:
            model: maps images to logits `(B, K)`, or is a function from images to integer labels `(B,)`.
            images: `(N, H, W, C)` float in [0, 1].
            labels: `(N,)` integers, the true classes.
            batch_size: images attacked at once.

        Raises:
            InputError: images or labels of a wrong kind, shape or range, given or returned by `model`.
        """
        require_count(batch_size=batch_size)
        image_shape, num_classes = _interface(model, self.search_dtype)
        images = self._within_bounds(check_images(images, image_shape))
        labels = check_labels(labels, num_classes, len(images))
        searched = self._searched(model)
        labeller = self._labeller(searched)
        with reseeded(searched, Noise((0, 0))):
            parts = [
                self._nearest(
                    labeller, images[first : first + batch_size], labels[first : first + batch_size]
                )
                for first in range(0, len(images), batch_size)
            ]
        return Boundary(*map(np.concatenate, zip(*parts, strict=True)))

    def _run(
        self, model: keras.Model, images: np.ndarray, labels: np.ndarray, targets: Any, key: tuple[int, int]
    ) -> np.ndarray:
        return self._nearest(self._labeller(model), images, labels).images

    def _labeller(self, model: keras.Model | Labeller) -> Labeller:
        if isinstance(model, keras.Model):
            return lambda images: np.asarray(predict_classes(model, images, self.jit_compile))
        return lambda images: _integers(model(images), len(images))

    def _nearest(self, labeller: Labeller, images: np.ndarray, labels: np.ndarray) -> Boundary:
        """Search from each image of one batch; every one still in play is asked about in each turn."""
        found = Boundary(images.copy(), np.full(len(images), np.inf), np.zeros(len(images), "int64"))
        goal = self.eps if math.isfinite(self.eps) else 0.0
        blocks = _Blocks(images.shape[1:], self.queries)
        shortest = self.tolerance / math.sqrt(images[0].size)
        active, rays = np.arange(len(images)), _start(images)
        for _ in range(self.queries):
            points = rays.points(self.bounds)
            fooled = labeller(points.reshape(-1, *images.shape[1:])) != labels[active]
            nearer = rays.learn(points, fooled)
            rays.turn(blocks, shortest, self.bounds)
            found.images[active[nearer]] = points[nearer].reshape(-1, *images.shape[1:])
            found.distance[active] = rays.distance
            found.queries[active] += 1
            far = rays.distance > goal
            if not far.any():
                break
            if not far.all():
                active, rays = active[far], _Rays(*(values[far] for values in rays))
        outside = found.distance > self.eps
        found.images[outside] = images[outside]
        return found


class _Rays(NamedTuple):
    """For each image in play `(B, n)` the best ray so far, and the one along which the search goes.

    `ray` and `best` are signs `(B, n)`; `distance` `(B,)` is where a point of the best ray was
    misclassified; `low` and `high` `(B,)` enclose the boundary on `ray`, whose point at `asked` `(B,)`
    is to be looked at; `number` `(B,)` counts the rays.
    """

    images: np.ndarray
    best: np.ndarray
    distance: np.ndarray
    ray: np.ndarray
    low: np.ndarray
    high: np.ndarray
    asked: np.ndarray
    number: np.ndarray

    def points(self, bounds: tuple[float, float]) -> np.ndarray:
        """Where to look, `(B, n)` float32."""
        return np.clip(self.images + self.ray * self.asked.astype("float32")[:, None], *bounds)

    def learn(self, points: np.ndarray, fooled: np.ndarray) -> np.ndarray:
        """Take in which points were misclassified; the rows where that is a nearer one than before."""
        distance = np.abs(points - self.images).max(axis=1)
        nearer = fooled & (distance < self.distance)
        self.distance[nearer] = distance[nearer]
        self.best[nearer] = self.ray[nearer]
        self.high[fooled] = self.asked[fooled]
        self.low[~fooled] = self.asked[~fooled]
        return nearer

    def turn(self, blocks: _Blocks, shortest: float, bounds: tuple[float, float]) -> None:
        """Bisect each ray further, or turn to the next one where it is done."""
        self.asked[:] = (self.low + self.high) / 2
        done = self.high - self.low <= shortest
        self.ray[done] = np.where(blocks.masks(self.number[done]), -self.best[done], self.best[done])
        self.low[done] = 0.0
        self.high[done] = np.minimum(self.distance[done], bounds[1] - bounds[0])
        self.asked[done] = self.high[done]
        self.number[done] += 1


def _start(images: np.ndarray) -> _Rays:
    """Rays of length zero: the first point to look at is the image itself."""
    flat = images.reshape(len(images), -1)
    zeros = np.zeros(len(images))
    return _Rays(
        images=flat,
        best=np.ones_like(flat),
        distance=zeros + np.inf,
        ray=np.ones_like(flat),
        low=zeros.copy(),
        high=zeros.copy(),
        asked=zeros.copy(),
        number=zeros.astype("int64"),
    )


class _Blocks:
    """Which pixels the ray of each number flips: all, each half, each quarter and so on."""

    def __init__(self, shape: tuple[int, ...], rays: int) -> None:
        size = math.prod(shape)
        self.edges = np.array(list(islice(_halvings(size), rays)))
        channels_first = np.arange(size).reshape(shape[-1], *shape[:-1])
        self.place = np.moveaxis(channels_first, 0, -1).ravel()

    def masks(self, numbers: np.ndarray) -> np.ndarray:
        """`(B, n)` bool."""
        first, last = self.edges[numbers].T[:, :, None]
        return (first <= self.place) & (self.place < last)


def _halvings(size: int) -> Iterator[tuple[int, int]]:
    """Where the blocks of each level begin and end; in the end single pixels, again and again."""
    for level in count():
        length = math.ceil(size / 2**level)
        yield from ((first, min(first + length, size)) for first in range(0, size, length))


def _interface(model: keras.Model | Labeller, search_dtype: str) -> tuple[tuple[int | None, ...], int]:
    """Shape of an image and number of classes, as far as they are known."""
    if isinstance(model, keras.Model):
        check_model(model)
        return model.input_shape[1:], model.output_shape[-1]
    require(
        callable(model),
        "RayS takes a keras.Model or a function from images to integer labels. "
        f"Received: {type(model).__name__}.",
    )
    require(
        search_dtype == "float32",
        f"A function is searched as it is. Received: search_dtype={search_dtype!r}; valid: 'float32'.",
    )
    return (None, None, None), np.iinfo("int32").max


def _integers(answer: Any, length: int) -> np.ndarray:
    labels = np.asarray(answer)
    require(
        labels.shape == (length,) and labels.dtype.kind in "iu",
        f"The function must return integer labels, one for each image. Received for {length} images: "
        f"{labels.dtype} of shape {labels.shape}. Logits become labels by .argmax(-1).",
    )
    return labels
