"""The one `train_step`: perturb, then make an ordered list of moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras import ops

from keras_robust.attacks.gradient import value_and_input_gradient
from keras_robust.attacks.view import View, observe
from keras_robust.errors import InputError, require
from keras_robust.noise import Noise
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
    """Descend a loss on the variables of some players.

    loss: maps a `Batch` to unweighted terms by name, each `(B,)` or a scalar.
    players: names of the players that descend, each with its own optimizer.
    repeat: how many steps to take.
    constraint: applied to every variable of the players after each step (a critic's clip).
    """

    loss: Callable[[Batch], dict[str, Any]]
    players: tuple[str, ...] = ("classifier",)
    repeat: int = 1
    constraint: Callable[[Any], Any] | None = None


class Defense(keras.Model):
    """A way to train a robust classifier: an adversary, weighted loss terms, players and their moves.

    A subclass lists its `terms` with their weights, returns them unweighted from `loss_terms`, and, if it
    has a second player, names it in `players` and orders the `moves`. It is then an ordinary Keras
    model: `compile`, `fit`, `evaluate` and callbacks work, and `classifier` is what to deploy.

    Args:
        classifier: built Keras model from images to logits, usually a `LatentClassifier`.
        adversary: attack that makes the training examples, or None.
        terms: weight of each loss term by name; a term of weight 0 is left out.
        weight_decay: adds ½ · weight_decay · ‖w‖² of all kernels of the classifier to its loss.
        seed: with the saved step it determines all randomness of training.

    Logs hold `loss`, each term, `adversarial_accuracy`, and the compiled metrics, computed in
    training on the images that the classifier was trained on (clean ones where its loss sees them)
    and in evaluation on clean ones.
    """

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
        require(
            getattr(classifier, "built", False),
            "The classifier must be built before it is defended: give it a keras.Input, or call it once.",
        )
        self.classifier = classifier
        self.adversary = adversary
        self.terms = dict(terms)
        self.weight_decay = weight_decay
        self.seed = seed
        self.step = self.add_weight(shape=(), dtype="int64", initializer="zeros", trainable=False, name="step")
        self.term_means = [keras.metrics.Mean(name=term) for term in self.active_terms]
        self.adversarial_accuracy = (
            keras.metrics.SparseCategoricalAccuracy("adversarial_accuracy") if adversary is not None else None
        )
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

    def loss_terms(self, batch: Batch) -> dict[str, Any]:
        """Unweighted loss terms by name, each `(B,)` or a scalar."""
        raise NotImplementedError

    def perturb(self, batch: Batch) -> Any:
        """The adversarial images of a batch, or None without an adversary."""
        if self.adversary is None:
            return None
        return self.adversary.perturb(self.classifier, batch.images, batch.labels, batch.noise)

    def input_gradient(self, objective: Callable[[Any], Any], images: Any) -> Any:
        """Gradient of the sum of `objective(images)` with respect to the images."""
        return value_and_input_gradient(objective, images)[1]

    def view(self, batch: Batch, which: str = "clean") -> View:
        """The classifier's view of the "clean" or "adversarial" images, remembered for the metrics."""
        images = batch.images if which == "clean" else batch.adversarial
        batch.views[which] = observe(self.classifier, images, training=batch.training)
        return batch.views[which]

    # What Keras calls

    def call(self, images: Any, training: bool | None = None) -> Any:
        return self.classifier(images, training=training)

    def compile(self, optimizer: Any = "adam", optimizers: dict[str, Any] | None = None, **options: Any) -> None:
        """Configure training.

        Args:
            optimizer: of the first player; the others get a copy of it unless named in `optimizers`.
            optimizers: optimizers of further players by name.
            options: `metrics`, `weighted_metrics`, `jit_compile`, `steps_per_execution`, `run_eagerly`
                as in `keras.Model.compile`. The loss is the defense's own.
        """
        if options.pop("loss", None) is not None:
            raise InputError(f"{type(self).__name__} brings its own loss; compile it without one.")
        first, *others = self.players()
        for player in optimizers or {}:
            require(player in others, f"Unknown player: {player!r}. Valid: {', '.join(others) or 'none'}.")
        main = keras.optimizers.get(optimizer)
        chosen = {player: keras.optimizers.get((optimizers or {}).get(player, _copy(main))) for player in others}
        if any(layer.compute_dtype == "float16" for layer in _leaves(self.classifier)):
            main, chosen = _scaled(main), {player: _scaled(value) for player, value in chosen.items()}
        super().compile(optimizer=main, **options)
        self.player_optimizers = chosen
        for player, model in self.players().items():
            self.optimizer_of(player).build(model.trainable_variables)

    def optimizer_of(self, player: str) -> keras.optimizers.Optimizer:
        """The optimizer of a player."""
        return self.player_optimizers.get(player, self.optimizer)

    def train_step(self, data: Any) -> dict[str, Any]:
        self._reseed_layers()
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
        self.view(batch, "clean")
        if batch.adversarial is not None:
            self.view(batch, "adversarial")
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
        models = {key: deserialize(value) for key, value in config.items() if isinstance(value, dict)}
        return cls(**{**config, **models})

    def get_compile_config(self) -> dict[str, Any]:
        optimizers = {
            player: keras.optimizers.serialize(value) for player, value in self.player_optimizers.items()
        }
        return {**super().get_compile_config(), "optimizers": optimizers}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        config = keras.saving.deserialize_keras_object(config)
        self.compile(**{key: value for key, value in config.items() if key not in ("loss", "loss_weights")})

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it the players carry the exponential moving averages of their weights, if kept."""
        self._swap_averages()
        try:
            yield
        finally:
            self._swap_averages()

    # One step

    def _batch(self, data: Any, training: bool) -> Batch:
        images, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        replica = tf.distribute.get_replica_context()
        shard = (replica.replica_id_in_sync_group, replica.num_replicas_in_sync)
        noise = Noise((self.seed, self.step), shard)
        batch = Batch(ops.cast(images, "float32"), labels, sample_weight, noise, training)
        batch.adversarial = self.perturb(batch)
        return batch

    def _descend(self, move: Move, batch: Batch) -> dict[str, Any]:
        models = self.players()
        optimizers = [self.optimizer_of(player) for player in move.players]
        variables = [models[player].trainable_variables for player in move.players]
        with tf.GradientTape() as tape:
            terms = self._reduced(move, batch)
            total = self._total(terms) + self._regularization(move, models)
            total = total / tf.distribute.get_strategy().num_replicas_in_sync
            total = optimizers[0].scale_loss(total)
        gradients = tape.gradient(total, variables)
        for optimizer, gradient, targets in zip(optimizers, gradients, variables, strict=True):
            optimizer.apply(gradient, targets)
            for variable in targets if move.constraint else ():
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

    def _regularization(self, move: Move, models: dict[str, keras.Model]) -> Any:
        penalty = sum((ops.sum(loss) for name in move.players for loss in models[name].losses), ops.zeros(()))
        if self.weight_decay and "classifier" in move.players:
            kernels = [v for v in self.classifier.trainable_variables if len(v.shape) > 1]
            squares = [ops.sum(ops.square(kernel)) for kernel in kernels]
            penalty += 0.5 * self.weight_decay * sum(squares, ops.zeros(()))
        return penalty

    def _report(self, batch: Batch, terms: dict[str, Any]) -> dict[str, Any]:
        examples = ops.shape(batch.images)[0]
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(self._total(terms), sample_weight=examples)
        for mean in self.term_means:
            mean.update_state(terms[mean.name], sample_weight=examples)
        if "adversarial" in batch.views:
            adversarial = batch.views["adversarial"].logits
            self.adversarial_accuracy.update_state(batch.labels, adversarial, batch.sample_weight)
        seen = batch.views.get("clean") or batch.views["adversarial"]
        logs = self.compute_metrics(batch.images, batch.labels, seen.logits, batch.sample_weight)
        if "adversarial" not in batch.views:
            logs.pop("adversarial_accuracy", None)  # never updated, it would read 0
        return logs

    def _reseed_layers(self) -> None:
        """Make dropout and its like a function of (seed, step), so that a resumed run repeats them."""
        noise = Noise((self.seed, self.step))
        weights = {id(weight) for weight in self.classifier.weights}
        for index, variable in enumerate(self.classifier.variables):
            if id(variable) not in weights and variable.name == "seed_generator_state":
                variable.assign(ops.cast(noise.fold(index).seed(), variable.dtype))

    def _swap_averages(self) -> None:
        for player, model in self.players().items():
            optimizer = self.optimizer_of(player)
            if not optimizer.use_ema:
                continue
            for variable, average in zip(
                model.trainable_variables, optimizer._model_variables_moving_average, strict=True
            ):
                value = ops.convert_to_numpy(variable)
                variable.assign(average)
                average.assign(value)


def _weighted_mean(values: Any, sample_weight: Any) -> Any:
    if sample_weight is not None and len(values.shape) == 1:
        values = values * ops.cast(sample_weight, values.dtype)
    return ops.mean(values)


def _copy(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    return type(optimizer).from_config(optimizer.get_config())


def _scaled(optimizer: Any) -> keras.optimizers.Optimizer:
    is_scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    return optimizer if is_scaled else keras.optimizers.LossScaleOptimizer(optimizer)


def _leaves(model: Any) -> Iterator[Any]:
    for layer in getattr(model, "layers", []):
        yield from _leaves(layer) if getattr(layer, "layers", None) else (layer,)
