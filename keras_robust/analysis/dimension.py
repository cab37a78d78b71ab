"""How many dimensions the data itself has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from keras_robust import data
from keras_robust.analysis.finding import Finding, columns
from keras_robust.errors import require, require_count


@dataclass(frozen=True)
class IntrinsicDimension(Finding):
    """The maximum likelihood estimate by the number of neighbours.

    Attributes:
        neighbours: `(R,)` the numbers of neighbours.
        means: `(R,)` mean of the estimates at each point: Levina & Bickel.
        inverse_means: `(R,)` inverse of the mean of the estimates' inverses: MacKay & Ghahramani.
        points: how many points there were.
    """

    neighbours: np.ndarray
    means: np.ndarray
    inverse_means: np.ndarray
    points: int

    @property
    def levina_bickel(self) -> float:
        """Mean over points and neighbours."""
        return float(self.means.mean())

    @property
    def mackay_ghahramani(self) -> float:
        """Mean over neighbours, of inverses averaged over the points."""
        return float(self.inverse_means.mean())

    @property
    def hub_toolbox(self) -> float:
        """The inverses averaged with the factor k - 2, as by code that papers use: it is too low."""
        return float(self._biased.mean())

    @property
    def _biased(self) -> np.ndarray:
        return self.inverse_means * (self.neighbours - 2) / (self.neighbours - 1)

    def rows(self) -> Iterator[Sequence[Any]]:
        yield "neighbours", "Levina-Bickel", "MacKay-Ghahramani", "Hub Toolbox"
        yield from zip(self.neighbours, self.means, self.inverse_means, self._biased, strict=True)
        yield "mean", self.levina_bickel, self.mackay_ghahramani, self.hub_toolbox

    def table(self) -> Table:
        header, *lines = self.rows()
        table = columns(*header, title=f"intrinsic dimension of {self.points} points")
        for name, *values in lines:
            table.add_row(str(name), *[f"{value:.2f}" for value in values])
        return table

    def draw(self, figure: Any) -> None:
        axes = figure.subplots()
        axes.plot(self.neighbours, self.means, marker="o", label="Levina-Bickel")
        axes.plot(self.neighbours, self.inverse_means, marker="s", label="MacKay-Ghahramani")
        axes.plot(self.neighbours, self._biased, marker="^", label="Hub Toolbox")
        axes.set(xlabel="neighbours", ylabel="intrinsic dimension")
        axes.grid(alpha=0.3)
        axes.legend()


def intrinsic_dimension(
    source: Any, *, examples: int = 1000, nearest: tuple[int, int] = (6, 12), seed: int = 0
) -> IntrinsicDimension:
    """Maximum likelihood estimate of the intrinsic dimension.

    Args:
        source: the name of a dataset, whose training set is taken, or points `(N, ...)`, finite numbers.
        examples: at most so many points, drawn at random; equal ones count once.
        nearest: the least and the largest number of neighbours, k1 and k2, with 3 <= k1 <= k2.
        seed: of the draw.

    At a point whose k-th neighbour is at distance T_k let S = Σ_{j<k} log(T_k / T_j). Levina & Bickel
    average (k - 2) / S over the points; MacKay & Ghahramani average S / (k - 1) and invert the mean. Each
    factor makes its average unbiased where the density is constant. Both are averaged over k, and differ
    by a few dimensions on images. The OFAI Hub Toolbox inverts the mean of S / (k - 2).

    Raises:
        InputError: an unknown dataset, points that are not numbers, or too few.

    Source: Levina & Bickel 2004, equation 8 with the unbiased factor; MacKay & Ghahramani 2005, "Comments on
    'Maximum likelihood estimation of intrinsic dimension'".

    >>> line = np.linspace(0, 1, 200)[:, None] * [1.0, 2.0, 3.0]
    >>> round(intrinsic_dimension(line).mackay_ghahramani)
    1
    """
    low, high = nearest
    require(
        isinstance(low, int) and isinstance(high, int) and 3 <= low <= high,
        f"nearest must be two integers (k1, k2) with 3 <= k1 <= k2. Received: {nearest!r}.",
    )
    require_count(examples=examples)
    points = _points(source, examples, seed)
    require(
        len(points) > high,
        f"More than {high} different points are needed, one and its neighbours. Received: {len(points)}.",
    )
    logs = np.log(_distances(points, high))
    neighbours = np.arange(low, high + 1)
    sums = np.cumsum(logs, axis=1)[:, low - 1 :]
    spread = neighbours * logs[:, low - 1 :] - sums
    require(
        bool((spread > 0).all()),
        f"All {low} nearest neighbours of a point are equally far; valid: points in general position.",
    )
    means = ((neighbours - 2) / spread).mean(axis=0)
    return IntrinsicDimension(neighbours, means, (neighbours - 1) / spread.mean(axis=0), len(points))


def _points(source: Any, examples: int, seed: int) -> np.ndarray:
    """Different points as rows `(N, D)` float64."""
    array = data.load(source, "train", raw=True).images if isinstance(source, str) else np.asarray(source)
    require(
        array.ndim >= 2 and array.dtype.kind in "fiu",
        "Give the name of a dataset, or numbers (N, ...). "
        f"Received: shape {array.shape}, dtype {array.dtype}.",
    )
    chosen = data.subset(len(array), min(examples, len(array)), seed)
    points = array[chosen].reshape(len(chosen), -1).astype(np.float64)
    require(bool(np.isfinite(points).all()), "The points contain NaN or infinity; valid: finite numbers.")
    return np.unique(points, axis=0)


def _distances(points: np.ndarray, count: int) -> np.ndarray:
    """Distances of each point to its nearest others, rising, `(N, count)`."""
    from sklearn.neighbors import NearestNeighbors

    distances, _ = NearestNeighbors(n_neighbors=count).fit(points).kneighbors()
    return distances
