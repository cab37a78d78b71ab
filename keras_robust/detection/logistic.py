"""Logistic regression of adversarial against other inputs."""

from __future__ import annotations

import numpy as np

_FOLDS = 5
_STRENGTHS = np.logspace(-4, 4, 10)


def log_odds(other: np.ndarray, adversarial: np.ndarray, *, tuned: bool = False) -> tuple[np.ndarray, float]:
    """Weights `(D,)` and offset of the log-odds of "adversarial" as a linear function of the features.

    Args:
        other: features of natural and noisy inputs `(N, D)`.
        adversarial: features `(M, D)`.
        tuned: choose the strength of the regularisation by cross-validation.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.preprocessing import StandardScaler

    features = np.concatenate([other, adversarial])
    truth = np.repeat([0, 1], [len(other), len(adversarial)])
    scaler = StandardScaler().fit(features)
    model = LogisticRegression(max_iter=1000)
    if tuned:
        folds = min(_FOLDS, len(other), len(adversarial))
        search = GridSearchCV(model, {"C": _STRENGTHS}, cv=folds).fit(scaler.transform(features), truth)
        model = search.best_estimator_
    else:
        model.fit(scaler.transform(features), truth)
    weights = model.coef_[0] / scaler.scale_
    return weights, float(model.intercept_[0] - weights @ scaler.mean_)
