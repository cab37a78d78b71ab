"""The one `train_step`: perturb, then make an ordered list of moves."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, ClassVar, NamedTuple

import keras
import tensorflow as tf
from keras import ops

from keras_robust.attacks.gradient import value_and_input_gradient
from keras_robust.attacks.view import View, observe
from keras_robust.defenses.dataset_values import told_as_bad_input
from keras_robust.defenses.distributed import DistributedModel, place_in_batch
from keras_robust.defenses.rates import copied, pace
from keras_robust.defenses.requirements import (
    check_adversary,
    check_head,
    check_kinds,
    check_latent,
    checked_data,
)
from keras_robust.errors import require, require_choice
from keras_robust.models.valid import check_model
from keras_robust.noise import Noise, reseed
from keras_robust.plain import plain
from keras_robust.registry import Registry

defenses: Registry[type[Defense]] = Registry("defense")


@dataclass
class Batch:
    """One training batch inside a step, and what the classifier made of it."""

    images: Any
    labels: Any
    sample_weight: Any
    noise: Noise
    training: bool
    adversarial: Any = None
    views: dict[str, View] = field(default_factory=dict)


class Move(NamedTuple):
    """Descend a loss on the variables of some players; not made if every term of it has weight 0.

    loss: maps a `Batch` to unweighted terms by name, each `(B,)` or a scalar.
    players: names of the players that descend, each with its own optimizer.
    repeat: how many steps to take.
    constraint: applied to every variable of the players after each step (a critic's clip).
    """

    loss: Callable[[Batch], dict[str, Any]]
    players: tuple[str, ...] = ("classifier",)
    repeat: int = 1
    constraint: Callable[[Any], Any] | None = None


class Defense(DistributedModel):
    """A way to train a robust classifier: an adversary, weighted loss terms, players and their moves.

    A subclass lists its `terms` with their weights, returns them unweighted from `loss_terms`, and, if it
    has a second player, names it in `players` and orders the `moves`. It is then an ordinary Keras
    model: `compile`, `fit`, `evaluate` and callbacks work, and `classifier` is what to deploy.

    Args:
        classifier: built Keras model from images to logits, usually a `LatentClassifier`.
        adversary: attack that makes the training examples, or None.
        terms: weight of each loss term by name, >= 0; a term of weight 0 is left out.
        weight_decay: >= 0; adds ½ · weight_decay · ‖w‖² of a player's kernels to all that it descends.
        seed: with the saved step it determines all randomness of training.

    Logs hold `loss` (the weighted sum of the terms, without penalties on weights), each term,
    `adversarial_accuracy`, and the compiled metrics, computed in training on the images that the
    classifier was trained on (clean ones where its loss sees them) and in evaluation on clean ones.

    Raises:
        InputError: unbuilt classifier, no adversary where one is needed, a weight that is not >= 0.

    >>> import keras, numpy as np
    >>> from keras_robust import losses
    >>> class Squared(Defense):
    ...     def __init__(self, classifier, weight=1.0):
    ...         super().__init__(classifier, terms={"cross_entropy": 1.0, "squares": weight})
    ...     def loss_terms(self, batch):
    ...         logits = self.view(batch).logits
    ...         squares = keras.ops.mean(logits**2, axis=-1)
    ...         return {"cross_entropy": losses.cross_entropy(batch.labels, logits), "squares": squares}
    >>> model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
    >>> defense = Squared(model, weight=0.1)
    >>> defense.compile(optimizer="adam")
    >>> log = defense.fit(np.zeros((8, 4, 4, 1), "float32"), np.arange(8) % 3, verbose=0)
    >>> sorted(log.history)
    ['cross_entropy', 'loss', 'squares']
    """

    # Whether training looks at adversarial images; a property where it depends on the weights of the terms.
    needs_adversary: ClassVar[bool] = False
    # The layer that the classifier's head must be, or None for any head.
    needs_head: ClassVar[type[keras.layers.Layer] | None] = None
    # The layer that must give the latent of the classifier, or None for any encoder.
    needs_latent: ClassVar[type[keras.layers.Layer] | None] = None
    # Terms of pairs of examples: under a distribution strategy, of the pairs within each replica's part.
    coupled_terms: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        classifier: keras.Model,
        adversary: Any = None,
        *,
        terms: dict[str, float],
        weight_decay: float = 0.0,
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        check_model(classifier)
        for what, weight in {**terms, "weight_decay": weight_decay}.items():
            require(
                isinstance(weight, Real) and math.isfinite(weight) and weight >= 0,
                f"The weight {what!r} must be a finite number >= 0. Received: {weight!r}.",
            )
        require(any(terms.values()), f"At least one of the weights {', '.join(terms)} must be > 0.")
        require(isinstance(seed, int), f"seed must be an integer. Received: {seed!r}.")
        self.terms = dict(terms)
        require(
            hasattr(adversary, "perturb") or (adversary is None and not self.needs_adversary),
            f"{type(self).__name__} needs an adversary that works inside a training step, such as "
            f"PGD(eps=0.3). Received: adversary={adversary!r}.",
        )
        require(
            not getattr(adversary, "has_targets", False),
            f"In training there are no targets: take PGD or another untargeted adversary. "
            f"Received: adversary={adversary!r}.",
        )
        check_adversary(adversary)
        if self.needs_head:
            check_head(type(self).__name__, classifier, self.needs_head)
        if self.needs_latent:
            check_latent(type(self).__name__, classifier, self.needs_latent)
        self.classifier = classifier
        self.adversary = adversary
        self.weight_decay = weight_decay
        self.seed = seed
        self.step = self.add_weight((), "zeros", "int64", trainable=False, name="step")
        self.term_means = [keras.metrics.Mean(name=term) for term in self.active_terms]
        self.adversarial_accuracy = keras.metrics.SparseCategoricalAccuracy("adversarial_accuracy")
        self.player_optimizers: dict[str, keras.optimizers.Optimizer] = {}
        self.built = True

    # What a defense says of itself

    @property
    def active_terms(self) -> list[str]:
        """Names of the loss terms with a weight other than 0."""
        return [term for term, weight in self.terms.items() if weight]

    def players(self) -> dict[str, keras.Model]:
        """The models that learn, by name; the first one's optimizer is `self.optimizer`."""
        return {"classifier": self.classifier}

    def moves(self) -> list[Move]:
        """What is done with a perturbed batch, in order."""
        return [Move(self.loss_terms)]

    def default_optimizer(self, player: str, first: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
        """What a further player gets if `compile` names none for it: a copy of the first player's."""
        return copied(first)

    def adaptive_objectives(self) -> list[dict[str, Any]]:
        """What an attacker who knows the defense would climb: configs of objectives, to be tried in turn.

        The first is the loss that is descended, or stands for it: `Adaptive(version="loss")` climbs it alone.
        From `compile` on they stay with the classifier as `classifier.adaptive`, and so in its card, as do
        `companions` and `variants`.
        """
        return [{"name": "cross_entropy"}]

    def companions(self) -> dict[str, keras.Model]:
        """Models that are kept beside the classifier, by kind: a name in `models.companions`."""
        return {}

    def variants(self) -> dict[str, Any]:
        """Ways to use the classifier by name, the first the default: None as it is, or how it is wrapped.

        `{"wrapper": {"name": a name in models.wrappers, **options}}`, the companions being given to it.
        """
        return {}

    def loss_terms(self, batch: Batch) -> dict[str, Any]:
        """Unweighted loss terms by name, each `(B,)` or a scalar."""
        raise NotImplementedError

    def perturb(self, batch: Batch) -> Any:
        """The adversarial images of a batch, or None.

        An adversary that training does not need serves to report adversarial accuracy in evaluation.
        """
        if self.adversary is None or (batch.training and not self.needs_adversary):
            return None
        return self.adversary.perturb(self.classifier, batch.images, batch.labels, batch.noise)

    def input_gradient(self, objective: Callable[[Any], Any], images: Any) -> Any:
        """Gradient of the sum of `objective(images)` with respect to the images."""
        return value_and_input_gradient(objective, images)[1]

    def view(
        self, batch: Batch, which: str = "clean", *, fixed: bool = False, training: bool | None = None
    ) -> View:
        """The classifier's view of the "clean" or "adversarial" images, remembered for the metrics.

        Args:
            batch: the batch.
            which: "clean" or "adversarial".
            fixed: without gradient.
            training: mode of the classifier; by default that of the batch.
        """
        images = batch.images if which == "clean" else batch.adversarial
        mode = batch.training if training is None else training
        view = observe(self.classifier, images, training=mode)
        batch.views[which] = View(*map(_fixed, view)) if fixed else view
        return batch.views[which]

    # What Keras calls

    def fit(self, x: Any = None, y: Any = None, *arguments: Any, **options: Any) -> keras.callbacks.History:
        held_out = options.get("validation_data")
        if isinstance(held_out, tf.data.Dataset):  # of arrays `evaluate` looks at each
            options["validation_data"], _ = checked_data(self.classifier, held_out)
        with told_as_bad_input():
            return super().fit(*checked_data(self.classifier, x, y), *arguments, **options)

    def evaluate(self, x: Any = None, y: Any = None, *arguments: Any, **options: Any) -> Any:
        with told_as_bad_input():
            return super().evaluate(*checked_data(self.classifier, x, y), *arguments, **options)

    def call(self, images: Any, training: bool | None = None) -> Any:
        return self.classifier(images, training=training)

    def compile(
        self,
        optimizer: Any = "adam",
        loss: None = None,
        *,
        optimizers: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Configure training.

        Args:
            optimizer: of the first player; see `default_optimizer` for the others. A schedule of its
                learning rate counts batches, however often a player moves in each.
            loss: None; the loss is the defense's own.
            optimizers: optimizers of further players by name.
            options: `metrics`, `weighted_metrics`, `jit_compile`, `steps_per_execution`, `run_eagerly`
                as in `keras.Model.compile`.

        Raises:
            InputError: a loss, or an optimizer of an unknown player.
        """
        require(loss is None, f"{type(self).__name__} brings its own loss; compile it without one.")
        _, *others = self.players()
        given = optimizers or {}
        for player in given:
            require_choice("further player", player, others)
        main = keras.optimizers.get(optimizer)
        chosen = {
            player: keras.optimizers.get(given.get(player) or self.default_optimizer(player, main))
            for player in others
        }
        if any(_in_float16(model) for model in self.players().values()):
            main, chosen = _scaled(main), {player: _scaled(value) for player, value in chosen.items()}
        super().compile(optimizer=main, **options)
        declared = {
            "adaptive": plain(self.adaptive_objectives()),
            "companions": self.companions(),
            "variants": plain(self.variants()),
        }
        for name, value in declared.items():
            # Past Keras' attribute tracking, which would count plain data among the state.
            object.__setattr__(self.classifier, name, value)
        self.player_optimizers = chosen
        for player, model in self.players().items():
            steps = sum(move.repeat for move in self.moves() if player in move.players)
            pace(self.optimizer_of(player), steps)
            self.optimizer_of(player).build(model.trainable_variables)
        main.finalize_variable_values = self._finalize_players

    def optimizer_of(self, player: str) -> keras.optimizers.Optimizer:
        """The optimizer of a player."""
        return self.player_optimizers.get(player, self.optimizer)

    def train_step(self, data: Any) -> dict[str, Any]:
        batch = self._batch(data, training=True)
        terms: dict[str, Any] = {}
        for move in self.moves():
            for _ in range(move.repeat):
                terms |= self._descend(move, batch)
        self.step.assign_add(1)
        return self._report(batch, terms)

    def test_step(self, data: Any) -> dict[str, Any]:
        batch = self._batch(data, training=False)
        terms: dict[str, Any] = {}
        for move in self.moves():
            terms |= self._reduced(move, batch)
        for which, images in {"clean": batch.images, "adversarial": batch.adversarial}.items():
            if images is not None and which not in batch.views:
                self.view(batch, which)
        return self._report(batch, terms)

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            "classifier": serialize(self.classifier),
            "adversary": serialize(self.adversary),
            "weight_decay": self.weight_decay,
            "seed": self.seed,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Defense:
        deserialize = keras.saving.deserialize_keras_object
        parts = {key: value for key, value in config.items() if isinstance(value, dict)}
        return cls(**{**config, **{key: deserialize(part, custom_objects) for key, part in parts.items()}})

    def get_compile_config(self) -> dict[str, Any]:
        if not self.compiled:
            return {}
        optimizers = {
            player: keras.optimizers.serialize(value) for player, value in self.player_optimizers.items()
        }
        return {**super().get_compile_config(), "optimizers": optimizers}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it the players carry the exponential moving averages of their weights, if kept."""
        self._swap_averages()
        try:
            yield
        finally:
            self._swap_averages()

    # One step

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """Shape of a batch of images."""
        return self.classifier.input_shape

    def _batch(self, data: Any, training: bool) -> Batch:
        images, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        check_kinds(images, labels)
        noise = Noise((self.seed, self.step), place_in_batch())
        reseed(self, noise.fold(noise.shard[0]))  # a resumed run repeats its draws
        images, labels = ops.cast(images, "float32"), ops.cast(labels, "int32")
        if sample_weight is not None:
            sample_weight = ops.reshape(sample_weight, (-1,))  # Keras takes (B, 1) too
        batch = Batch(images, labels, sample_weight, noise, training)
        batch.adversarial = self.perturb(batch)
        return batch

    def _descend(self, move: Move, batch: Batch) -> dict[str, Any]:
        players = {player: self.players()[player] for player in move.players}
        variables = {player: model.trainable_variables for player, model in players.items()}
        first = self.optimizer_of(move.players[0])
        scale = first.scale_loss(1.0)
        with tf.GradientTape() as tape:
            terms = self._reduced(move, batch)
            total = self._total(terms) + self._penalty(players.values())
            total = scale * total / tf.distribute.get_strategy().num_replicas_in_sync
        if not terms:
            return terms
        for player, gradients in tape.gradient(total, variables).items():
            optimizer = self.optimizer_of(player)
            ratio = optimizer.scale_loss(1.0) / scale  # in float16 each optimizer has a scale of its own
            optimizer.apply([g if g is None else g * ratio for g in gradients], variables[player])
            if move.constraint is not None:
                for variable in variables[player]:
                    variable.assign(move.constraint(variable))
        return terms

    def _reduced(self, move: Move, batch: Batch) -> dict[str, Any]:
        """The active terms of a move, unweighted, reduced to scalars."""
        terms = move.loss(batch)
        return {
            name: _weighted_mean(value, batch.sample_weight)
            for name, value in terms.items()
            if self.terms[name]
        }

    def _total(self, terms: dict[str, Any]) -> Any:
        return sum((self.terms[name] * value for name, value in terms.items()), ops.zeros(()))

    def _penalty(self, models: Collection[keras.Model]) -> Any:
        """Weight decay and the models' own regularization losses."""
        penalty = [ops.sum(loss) for model in models for loss in model.losses]
        if self.weight_decay:
            variables = [variable for model in models for variable in model.trainable_variables]
            squares = [ops.sum(ops.square(variable)) for variable in variables if len(variable.shape) > 1]
            penalty += [0.5 * self.weight_decay * square for square in squares]
        return sum(penalty, ops.zeros(()))

    def _report(self, batch: Batch, terms: dict[str, Any]) -> dict[str, Any]:
        examples = ops.shape(batch.images)[0]
        means = {"loss": self._total(terms), **terms}
        for metric in self.metrics:
            if metric.name in means:
                metric.update_state(means[metric.name], sample_weight=examples)
        if "adversarial" in batch.views:
            adversarial = batch.views["adversarial"].logits
            self.adversarial_accuracy.update_state(batch.labels, adversarial, batch.sample_weight)
        seen = batch.views.get("clean") or next(reversed(batch.views.values()))
        logs = self.compute_metrics(batch.images, batch.labels, seen.logits, batch.sample_weight)
        if "adversarial" not in batch.views:
            logs.pop("adversarial_accuracy")  # never updated, it would read 0
        return logs

    def _finalize_players(self, _: Any) -> None:
        """What ends `fit`: Keras would ask the first player's optimizer to finalize the variables of all."""
        for player, model in self.players().items():
            optimizer = self.optimizer_of(player)
            type(optimizer).finalize_variable_values(optimizer, model.trainable_variables)

    def _swap_averages(self) -> None:
        for player, model in self.players().items():
            optimizer = self.optimizer_of(player)
            optimizer = getattr(optimizer, "inner_optimizer", optimizer)
            if not optimizer.use_ema or not int(optimizer.iterations.numpy()):  # nothing averaged yet
                continue
            averages = optimizer._model_variables_moving_average
            for variable, average in zip(model.trainable_variables, averages, strict=True):
                value = ops.convert_to_numpy(variable)
                variable.assign(average)
                average.assign(value)


def _weighted_mean(values: Any, sample_weight: Any) -> Any:
    """Mean of the weighted values `(B,)`; a scalar, a term of the whole batch, stays as it is."""
    values = ops.cast(values, "float32")
    if sample_weight is not None and len(values.shape) == 1:
        values = values * ops.cast(sample_weight, "float32")
    # A replica of a distribution strategy can get no example.
    return ops.divide_no_nan(ops.sum(values), ops.cast(ops.size(values), "float32"))


def _fixed(tensor: Any) -> Any:
    return None if tensor is None else ops.stop_gradient(tensor)


def _scaled(optimizer: Any) -> keras.optimizers.Optimizer:
    is_scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    return optimizer if is_scaled else keras.optimizers.LossScaleOptimizer(optimizer)


def _in_float16(model: Any) -> bool:
    """Whether any layer computes in float16, so that small gradients would vanish."""
    return model.compute_dtype == "float16" or any(map(_in_float16, getattr(model, "layers", [])))
