"""Attack a classifier and report what stands."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_robust.attacks import Attack
from keras_robust.errors import require, require_count
from keras_robust.evaluation import blocks
from keras_robust.evaluation.checks import Evidence, warnings
from keras_robust.evaluation.identity import digest, identity
from keras_robust.evaluation.ledger import LEDGER, Ledger
from keras_robust.evaluation.merging import merge
from keras_robust.evaluation.naming import check_stated, named_attacks, usual_attacks
from keras_robust.evaluation.placement import replicas
from keras_robust.evaluation.plan import Plan
from keras_robust.evaluation.probes import MOST, probe
from keras_robust.evaluation.progress import progress as bars
from keras_robust.evaluation.protocols import by_protocol
from keras_robust.evaluation.report import Outcome, Report
from keras_robust.evaluation.shards import Shard
from keras_robust.evaluation.source import dataset_of, examples_of, threat_of
from keras_robust.models.precision import in_float32
from keras_robust.models.valid import check_model
from keras_robust.noise import Noise, reseeded
from keras_robust.threat import ThreatModel
from keras_robust.validation import check_logits, check_seed
from keras_robust.versions import versions
from keras_robust.workers import Workers


def evaluate(
    model: keras.Model,
    examples_from: Any = None,
    attacks: Sequence[str | Attack] | Mapping[str, Attack | None] | str | None = None,
    *,
    eps: float | None = None,
    norm: str | None = None,
    step_size: float | None = None,
    examples: int | None = None,
    seed: int = 0,
    batch_size: int = 128,
    checks: bool = True,
    directory: Path | str | None = None,
    resume: bool = False,
    shard: str | None = None,
    strategy: Any = None,
    progress: bool = True,
) -> Report:
    """Accuracy of `model` under each attack on one set of examples, and under all of them together.

    Args:
        model: maps images in [0, 1] to logits `(B, K)`; evaluated in float32, left unchanged.
        examples_from: `(images, labels)`, or the name of a dataset, whose test set is taken; None: that of
            the model's card.
        attacks: short names ("pgd-40": 40 steps, "square-5000": 5000 queries, "autoattack"), `Attack`
            objects, or a mapping from names to attacks. "clean" is always reported. On a classifier that
            changes its input, such as one with a manifold transform, white-box attacks are made end to end,
            by every gradient that it offers; "NAME grey_box" is what is left by images made on the static
            classifier behind it. None: PGD with 40 steps, and an attack that sees only answers, with 1000
            queries: Square on images, RayS on points.
        eps, norm, step_size: the threat model; by default that of the model's card, whose step size grows
            in proportion to eps. Gradient attacks without a step size take 2.5 eps / steps.
        examples: evaluate a random subset of this size, drawn with `seed`; None: all.
        seed: of the subset and of the attacks.
        batch_size: examples attacked at once; with `seed` it determines the attacks' random numbers.
        checks: probe the model for signs that its numbers may not hold, in a few seconds.
        directory: keep what is found there, by block and stage of an attack; None: keep nothing.
        resume: go on with what `directory` holds of this very evaluation.
        shard: "i/n": evaluate only every n-th block; `merge` makes one report of all.
        strategy: a `tf.distribute.Strategy` on whose devices the blocks are shared out. With several workers
            each takes the shard of its number and keeps it in a directory of its own, and all return the
            report of the whole; as many resume it.
        progress: show progress and time left on the terminal.

    Returns:
        Report: each attack runs on all examples that are classified rightly without it. It does not
        depend on shards, devices, or on having been resumed.

    Raises:
        InputError: unknown attack or dataset, no eps, images or labels of a wrong kind, a model that
            outputs probabilities, a directory with another evaluation, workers that differ.
        WorkerLost: another worker is gone.

    >>> import keras_robust as kr
    >>> model = kr.models.build("small_cnn")
    >>> report = evaluate(model, "digits", ["fgsm"], eps=0.1, examples=20, progress=False)
    >>> sorted(report.accuracy)
    ['clean', 'fgsm']
    """
    check_model(model)
    seed = check_seed(seed)
    examples_from = dataset_of(model) if examples_from is None else examples_from
    require_count(batch_size=batch_size)
    require(
        strategy is None or isinstance(strategy, tf.distribute.Strategy),
        f"strategy must be a tf.distribute.Strategy. Received: {strategy!r}.",
    )
    workers = Workers(strategy)
    part, directory = _own(workers, shard, directory)

    def planned() -> Plan:
        threat = threat_of(model, eps, norm, step_size)
        named = _attacks_on(model, attacks, threat, stated=directory is not None)
        taken = examples_of(model, examples_from, examples, seed)
        return Plan(threat, named, taken, part.blocks(len(taken.labels), batch_size), seed)

    plan = workers.together(planned)
    called = _called(model)
    model, known = in_float32(model), identity(model)
    with reseeded(model, Noise((seed, 0))):
        check_logits(model(plan.taken.images[:8], training=False))
    digests = {"data": digest(*plan.taken), **known}
    stated: dict[str, Any] = {
        "dataset": examples_from if isinstance(examples_from, str) else "",
        "threat": {key: value for key, value in plan.threat.items() if value is not None},
        "seed": seed,
        "batch_size": batch_size,
        "total": len(plan.taken.labels),
        "versions": versions(),
    }
    terms = {**stated, "attacks": plan.settings, **digests}
    for what, value in terms.items():
        workers.agree(what, value)
    # A name is told, not compared: Keras counts up those that it gives, and `known` says which model it is.
    stated.update(model=called, shard=str(part))
    ledger = workers.together(lambda: Ledger({**terms, "shard": str(part)}, directory, resume))
    places = replicas(model, strategy)
    probes = _probes(model, plan) if checks else {}

    def attacked() -> dict[str, Outcome]:
        with bars(progress and workers.is_chief) as begin:
            return plan.outcomes(ledger, places, begin)

    outcomes = workers.together(attacked)
    flags = warnings(Evidence(outcomes, probes, len(plan.order))) if checks else []
    indices = plan.taken.indices[plan.order]
    report = Report(outcomes, indices=indices, flags=flags, probes=probes, digests=digests, **stated)
    return report if workers.count == 1 else _merged(workers, report)


def _attacks_on(
    model: keras.Model, wanted: Any, threat: dict[str, Any], stated: bool
) -> dict[str, Attack | None]:
    """The attacks by name, after the clean accuracy (None); refused if they do not fit the model.

    With `stated`, attacks whose settings are not plain data, and so cannot be kept, are refused too.
    """
    named = named_attacks(usual_attacks(model) if wanted is None else wanted, threat, model)
    named = by_protocol(named, model)
    for attack in filter(None, named.values()):
        attack.check(model)
    if stated:
        check_stated(named)
    return named


def _called(model: keras.Model) -> str:
    """What a report calls a model."""
    name = getattr(getattr(model, "card", None), "name", "") or model.name
    variant = getattr(model, "variant", "")
    return f"{name}:{variant}" if variant else name


def _own(workers: Workers, shard: str | None, directory: Path | str | None) -> tuple[Shard, Path | None]:
    """The shard of this process, and where it keeps what it finds."""
    where = None if directory is None else Path(directory)
    if workers.count == 1:
        return Shard.parse(shard), where
    require(shard is None, f"Each worker takes a shard of its own. Received: shard={shard!r}.")
    own = Shard(workers.index + 1, workers.count)
    if where is None:
        return own, None
    workers.together(lambda: _check_begun(where, own.count))
    return own, where / f"shard-{own.number}-of-{own.count}"


def _check_begun(where: Path, count: int) -> None:
    """Refuse a directory with an evaluation that was shared out among others."""
    others = {path.name for path in (*where.glob(LEDGER), *where.glob("shard-*"))}
    others -= {f"shard-{number}-of-{count}" for number in range(1, count + 1)}
    require(
        not others,
        f"{where} holds an evaluation that not {count} workers began: {', '.join(sorted(others))}. Choose "
        "another directory, or go on with as many as began it.",
    )


def _merged(workers: Workers, report: Report) -> Report:
    """The report of all workers."""
    said = workers.exchange(json.dumps(report.to_dict()))
    return merge(Report.from_dict(json.loads(text)) for text in said)


def _probes(model: keras.Model, plan: Plan) -> dict[str, float]:
    """What the checks measure for themselves, on the first examples of all that are classified rightly."""
    images, labels = plan.taken.images[: 2 * MOST], plan.taken.labels[: 2 * MOST]
    with reseeded(model, Noise((plan.seed, 0))):
        right = np.flatnonzero(blocks.classified(model, images, labels).standing[""])[:MOST]
        ball = ThreatModel(plan.threat["norm"], plan.threat["eps"])
        return probe(model, images[right], labels[right], ball, seed=plan.seed)
