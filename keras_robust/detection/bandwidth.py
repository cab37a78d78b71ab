"""The bandwidth of a kernel density, by cross-validation."""

from __future__ import annotations

import numpy as np

_AT_MOST = 500  # codes of a class
_CLASSES = 10
_FOLDS = 3
_SHARES = 2.0 ** np.arange(-4, 3.5, 0.5)  # of Scott's rule


def likeliest_bandwidth(codes: np.ndarray, classes: np.ndarray, seed: int = 0) -> float:
    """The bandwidth, one for all classes, under which left-out codes are likeliest in their own class.

    At most 500 random codes of each of at most ten random classes are looked at, at bandwidths around
    Scott's rule.

    Args:
        codes: `(N, D)`.
        classes: `(N,)` integers.
        seed: of the draws.

    Source: Stone 1984 (cross-validation by likelihood); Scott 1992 (the rule).
    """
    rng = np.random.default_rng(seed)
    groups = [rng.permutation(codes[classes == one])[:_AT_MOST] for one in np.unique(classes)]
    groups = [group for group in groups if len(group) >= _FOLDS]
    if not groups:
        return _scott(codes)
    groups = [groups[index] for index in rng.permutation(len(groups))[:_CLASSES]]
    candidates = np.median([_scott(group) for group in groups]) * _SHARES
    return float(max(candidates, key=lambda bandwidth: _likelihood(groups, bandwidth)))


def _likelihood(groups: list[np.ndarray], bandwidth: float) -> float:
    from sklearn.model_selection import cross_val_score
    from sklearn.neighbors import KernelDensity

    density = KernelDensity(bandwidth=bandwidth)
    return sum(cross_val_score(density, group, cv=_FOLDS).sum() for group in groups)


def _scott(codes: np.ndarray) -> float:
    count, features = codes.shape
    return float(max(codes.std(axis=0).mean(), 1e-6) * count ** (-1.0 / (features + 4)))
