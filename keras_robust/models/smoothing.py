"""A copy of a model whose rectifiers are smooth, so that its gradient has a gradient."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_robust.models.rebuilding import rebuilt

_SHARPNESS = 10.0  # the softplus differs from the rectifier by 0.07 at zero


@keras.saving.register_keras_serializable("keras_robust")
class SmoothReLU(keras.layers.Layer):
    """negative_slope · x + (1 - negative_slope) · softplus(10 x) / 10: near a rectifier of that slope."""

    def __init__(self, negative_slope: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.negative_slope = negative_slope

    def call(self, inputs: Any) -> Any:
        return self.negative_slope * inputs + (1 - self.negative_slope) * smooth_relu(inputs)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "negative_slope": self.negative_slope}


@keras.saving.register_keras_serializable("keras_robust")
def smooth_relu(inputs: Any) -> Any:
    """softplus(10 x) / 10."""
    return ops.softplus(_SHARPNESS * inputs) / _SHARPNESS


def smoothed(model: keras.Model) -> keras.Model:
    """A copy of `model` with softplus in the place of its rectifiers, and with its weights.

    The gradient of a network of rectifiers is piecewise constant: its own gradient is zero and tells an
    attacker nothing. That of the copy does.

    Raises:
        InputError: the config does not rebuild the model.

    Source: Dombrowski et al. 2019, "Explanations can be manipulated and geometry is to blame", section 4.
    """
    return rebuilt(model, _smooth, "with smooth rectifiers, as its second order needs")


def _smooth(config: dict[str, Any]) -> dict[str, Any]:
    options = config.get("config") or {}
    capped = isinstance(options, dict) and (options.get("max_value") is not None or options.get("threshold"))
    if config.get("class_name") in ("ReLU", "LeakyReLU") and not capped:
        kept = {key: config["config"][key] for key in ("name", "trainable", "dtype")}
        slope = float(config["config"].get("negative_slope") or 0.0)
        layer = keras.saving.serialize_keras_object(SmoothReLU(negative_slope=slope))
        rest = {key: config[key] for key in ("build_config", "inbound_nodes") if key in config}
        # A layer in a graph has its name twice.
        named = {"name": config["name"]} if "name" in config else {}
        return {**layer, "config": {**kept, "negative_slope": slope}, **rest, **named}
    if config.get("activation") == "relu":
        return {**config, "activation": keras.saving.serialize_keras_object(smooth_relu)}
    return config
