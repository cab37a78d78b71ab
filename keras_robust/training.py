"""A training run in a directory: logged, checkpointed, and resumed where it stopped."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from keras_robust.errors import InputError, require
from keras_robust.files import save_weights, write_text
from keras_robust.recipes import SAID, Recipe, read
from keras_robust.workers import Workers
from keras_robust.workers import strategy as strategy_of
from keras_robust.zoo.cards import CARD

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from keras_robust.defenses.callbacks import Score

RECIPE = "recipe.yaml"
CHECKPOINT = "checkpoint.weights.h5"
BEST = "best.weights.h5"
HISTORY = "history.csv"


def train(
    recipe: Recipe,
    directory: Path | str,
    resume: bool = False,
    strategy: str | tf.distribute.Strategy = "single",
    verbose: Any = "auto",
) -> keras.Model:
    """Train `recipe` in `directory` and return the float32 classifier that its guard kept.

    The directory receives `recipe.yaml`, `history.csv`, `best.weights.h5` (the classifier kept by the
    guard), `checkpoint.weights.h5` (everything needed to go on), and at the end `card.yaml` and
    `model.weights.h5`, so that it opens like an entry of the zoo. A run that was killed goes on from
    its last epoch, one that was interrupted (Ctrl-C) inside an epoch from its last step, and ends with
    the same weights as an uninterrupted run on one device.

    Several workers call this alike, with a directory that they share. The chief writes; a worker that is
    lost stops the others, and all of them together resume.

    Args:
        recipe: what to train.
        directory: of a new run, or with `resume` of one begun with the same recipe.
        resume: go on with the run in `directory` if there is one.
        strategy: to train under, or its name in `keras_robust.workers.strategy`. "multiworker" and "tpu"
            must be made before anything else uses TensorFlow, so hand over what `strategy` returned.
        verbose: as in `keras.Model.fit`; "auto" is a bar on a terminal, and a line an epoch in a file.

    Raises:
        InputError: the directory holds a run already, another recipe's run, or cannot be written; workers
            that differ in recipe or directory.
        WorkerLost: another worker has ended.

    >>> import keras_robust as kr, tempfile
    >>> recipe = kr.recipes.load("at_digits", profile="smoke")
    >>> classifier = train(recipe, tempfile.mkdtemp(), verbose=0)
    """
    directory = Path(directory)
    chosen = strategy_of(strategy) if isinstance(strategy, str) else strategy
    workers = Workers(chosen)
    workers.on_chief(lambda: _claim(recipe, directory, resume))
    workers.share(directory)
    workers.together(lambda: _claim(recipe, directory, resume=True))
    try:
        with chosen.scope():
            defense = recipe.build()
        recipe.steps_per_epoch  # noqa: B018 (loads the data)
    except Exception:
        if workers.is_chief:
            _disclaim(directory)
        raise
    _fit(defense, recipe, directory, workers, _shown(verbose))
    classifier = _kept(defense, recipe, directory)
    workers.on_chief(lambda: _write_entry(classifier, recipe, directory))
    return classifier


def _fit(defense: Any, recipe: Recipe, directory: Path, workers: Workers, verbose: Any) -> None:
    """Train from the checkpoint, if there is one, to the end."""
    steps = recipe.steps_per_epoch
    epoch = _restore(defense, directory, workers) // steps
    callbacks = workers.on_chief(
        lambda: recipe.callbacks(directory, best=_rewind(directory / HISTORY, epoch)), otherwise=[]
    )
    # Restored each time, because the end of `fit` puts averages in the place of the weights.
    while (step := _restore(defense, directory, workers)) < recipe.epochs * steps:
        epoch, offset = divmod(step, steps)
        try:
            with workers.watched():
                defense.fit(
                    recipe.data(initial_step=step)[0],
                    initial_epoch=epoch,
                    epochs=epoch + 1 if offset else recipe.epochs,  # first what is left of an epoch
                    callbacks=callbacks,
                    shuffle=False,  # the pipeline does it
                    verbose=verbose if workers.is_chief else 0,
                )
        except KeyboardInterrupt:
            # An epoch is not over before it is scored.
            if workers.is_chief and int(defense.step.numpy()) % steps:
                save_weights(defense, directory / CHECKPOINT)
            raise
        workers.wait()  # the chief may still write


def _shown(verbose: Any) -> Any:
    if verbose == "auto":
        return 1 if sys.stdout.isatty() else 2
    return verbose


def _restore(defense: Any, directory: Path, workers: Workers) -> int:
    """Load the checkpoint if there is one, the same on all workers; the number of steps taken."""
    step = workers.together(lambda: _load(defense, directory / CHECKPOINT))
    workers.agree("step", step)
    return step


def _load(defense: Any, checkpoint: Path) -> int:
    if checkpoint.exists():
        _read_weights(defense, checkpoint)
    return int(defense.step.numpy())


def _read_weights(model: keras.Model, path: Path) -> None:
    try:
        model.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"Cannot go on from {path}: {error}") from error


def _kept(defense: Any, recipe: Recipe, directory: Path) -> keras.Model:
    """The classifier that the guard kept, with what the defense declares of it."""
    from keras_robust.defenses.callbacks import beside
    from keras_robust.zoo.loading import DECLARED

    classifier = recipe.classifier()
    _read_weights(classifier, directory / BEST)
    for kind, companion in defense.companions().items():
        _read_weights(companion, beside(directory / BEST, kind))
    for name in DECLARED:
        object.__setattr__(classifier, name, getattr(defense.classifier, name))
    return classifier


def _write_entry(classifier: keras.Model, recipe: Recipe, directory: Path) -> None:
    """Make the directory one that opens like an entry of the zoo."""
    import keras_robust as kr

    seconds = sum(row["seconds"] for row in history(directory))
    card = kr.zoo.describe(classifier, recipe.name, recipe, seconds=round(seconds))
    kr.zoo.write(directory, classifier, card)


def history(directory: Path | str) -> list[dict[str, float]]:
    """The logged epochs of a run, one mapping each; none of a run that has not logged any.

    Args:
        directory: of the run.

    Raises:
        InputError: the log cannot be read.

    >>> history("no_run_yet")
    []
    """
    path = Path(directory) / HISTORY
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [{key: float(value) for key, value in row.items() if value != "NA"} for row in rows]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} is not the log of a run: {error}") from error


def score(row: dict[str, float]) -> Score:
    """What the guard compares, of a logged epoch; below all others where none was taken."""
    from keras_robust.defenses.callbacks import HELD_OUT, Score

    found = {key: value for key, value in row.items() if key.startswith(HELD_OUT)}
    return Score.of({key.removeprefix(HELD_OUT): value for key, value in found.items()}) if found else Score()


def _claim(recipe: Recipe, directory: Path, resume: bool) -> None:
    path, text = directory / RECIPE, yaml.safe_dump(recipe.to_dict(), sort_keys=False)
    if not path.exists():
        require(
            not (directory / CARD).exists(),
            f"{directory} holds a model that no run left. Choose another directory.",
        )
        write_text(path, text)
        return
    require(resume, f"{directory} holds a run already. Resume it (--resume) or choose another directory.")
    begun, wanted = read(path), yaml.safe_load(text)
    differing = sorted(key for key in wanted if key not in SAID and begun.get(key) != wanted[key])
    changes = "; ".join(f"{key}: {begun.get(key)!r}, now {wanted[key]!r}" for key in differing)
    require(not differing, f"The run in {directory} was begun with another recipe: {changes}.")


def _disclaim(directory: Path) -> None:
    """Leave the directory to another recipe if nothing was trained in it."""
    if not (directory / CHECKPOINT).exists() and not (directory / HISTORY).exists():
        (directory / RECIPE).unlink(missing_ok=True)


def _rewind(path: Path, epoch: int) -> Score:
    """Drop logged epochs that will be run again; the guard's best score of those that remain."""
    rows = [row for row in history(path.parent) if row["epoch"] < epoch]
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_text(path, "".join(lines[: len(rows) + 1]) if rows else "")
    return max(map(score, rows), default=score({}))
