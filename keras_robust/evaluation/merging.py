"""One report from the reports of all shards."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from keras_robust.errors import require
from keras_robust.evaluation.checks import Evidence, warnings
from keras_robust.evaluation.report import Outcome, Report, Stage
from keras_robust.evaluation.shards import Shard

_SHARED = ("model", "dataset", "threat", "seed", "batch_size", "total", "versions", "digests")


def merge(reports: Iterable[Report]) -> Report:
    """The report that one process would have written; it warns if the shards were probed.

    Args:
        reports: of every shard of one evaluation that has any examples, in any order.

    Raises:
        InputError: a shard is missing or there twice, or the reports are not of one evaluation.

    >>> import keras_robust as kr
    >>> model = kr.zoo.load("at_digits")
    >>> options = {"examples": 40, "batch_size": 10, "checks": False, "progress": False}
    >>> parts = [kr.evaluate(model, "digits", ["fgsm"], shard=f"{k}/2", **options) for k in (1, 2)]
    >>> len(merge(parts).indices)
    40
    """
    given = list(reports)
    require(bool(given), "There is no report to merge.")
    first = given[0]
    for report in given:
        _check_same(first, report)
    parts = _by_shard(given)
    rows = [shard.rows(first.total, first.batch_size) for shard in parts]

    def joined(values: Iterable[np.ndarray]) -> np.ndarray:
        inverse = np.argsort(np.concatenate(rows))
        return np.concatenate(list(values))[inverse]

    outcomes = {
        name: _outcome([report.outcomes[name] for report in parts.values()], joined)
        for name in first.outcomes
    }
    return replace(
        first,
        outcomes=outcomes,
        indices=joined(report.indices for report in parts.values()),
        flags=warnings(Evidence(outcomes, first.probes, first.total)) if first.probes else [],
        shard="",
    )


def _check_same(first: Report, report: Report) -> None:
    for name in _SHARED:
        ours, theirs = getattr(first, name), getattr(report, name)
        require(
            ours == theirs,
            f"The reports are not of one evaluation. {name}: {ours!r} in shard {first.shard}, {theirs!r} in "
            f"shard {report.shard}.",
        )
    ours, theirs = ({name: o.options for name, o in r.outcomes.items()} for r in (first, report))
    require(ours == theirs, f"The reports are not of the same attacks: {ours} and {theirs}.")


def _by_shard(given: list[Report]) -> dict[Shard, Report]:
    parts = {Shard.parse(report.shard or None): report for report in given}
    expected = set(Shard.of(next(iter(parts)).count, given[0].total, given[0].batch_size))
    missing = ", ".join(map(str, sorted(expected - set(parts))))
    require(
        set(parts) == expected and len(parts) == len(given),
        f"Give the report of each of the {len(expected)} shards once. "
        f"Received: {', '.join(report.shard or 'all' for report in given)}. Missing: {missing or 'none'}.",
    )
    return parts


def _outcome(parts: list[Outcome], joined: Callable[[Iterable[np.ndarray]], np.ndarray]) -> Outcome:
    first = parts[0]
    return replace(
        first,
        correct=joined(part.correct for part in parts),
        seconds=sum(part.seconds for part in parts),
        stages={
            name: Stage(joined(part.stages[name].standing for part in parts), black_box)
            for name, (_, black_box) in first.stages.items()
        },
        distances={name: joined(part.distances[name] for part in parts) for name in first.distances},
    )
