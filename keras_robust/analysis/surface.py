"""The loss and the decisions in a plane around single examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from rich.table import Table

from keras_robust import losses
from keras_robust.analysis.finding import Finding, columns
from keras_robust.analysis.pairs import Pairs, pairs
from keras_robust.attacks import observe
from keras_robust.attacks.gradient import value_and_input_gradient
from keras_robust.errors import is_finite, require, require_choice
from keras_robust.models.latent import require_head
from keras_robust.threat import ThreatModel

KINDS = ("clean", "successful", "failed")
SPACES = ("input", "latent")
SECOND_AXES = ("orthogonal", "rademacher")


@dataclass(frozen=True)
class Surface:
    """Cross-entropy and predicted class in a plane around one point.

    Attributes:
        kind: "clean", or what became of the attack: "successful" or "failed".
        space: "input" or "latent".
        index: which of the examples it is.
        label: its true class.
        offsets: how far along each axis, `(S,)` float32.
        loss: `(S, S)` float32, `loss[i, j]` at `offsets[i]` along the gradient's sign and `offsets[j]` along
            the second axis.
        prediction: `(S, S)` int32, the class predicted there.
    """

    kind: str
    space: str
    index: int
    label: int
    offsets: np.ndarray
    loss: np.ndarray
    prediction: np.ndarray


@dataclass(frozen=True)
class LossSurface(Finding):
    """`surfaces` by space and kind; `notes` say which are missing."""

    surfaces: Sequence[Surface]
    notes: Sequence[str] = ()

    @property
    def size(self) -> tuple[float, float]:
        across, down = self._layout()
        return 3.2 * len(across), 5.2 * len(down)

    def rows(self) -> Iterator[Sequence[Any]]:
        yield "space", "kind", "index", "label", "along gradient", "along second", "loss", "prediction"
        for at in self.surfaces:
            for (i, j), loss in np.ndenumerate(at.loss):
                place = at.offsets[i], at.offsets[j]
                yield at.space, at.kind, at.index, at.label, *place, loss, at.prediction[i, j]

    def table(self) -> Table:
        names = ("space", "example", "index", "label", "radius", "loss in the middle", "lowest", "highest")
        table = columns(*names, "rightly predicted %")
        for at in self.surfaces:
            middle = len(at.offsets) // 2
            numbers = (at.loss[middle, middle], at.loss.min(), at.loss.max())
            table.add_row(
                at.space,
                at.kind,
                str(at.index),
                str(at.label),
                f"{at.offsets[-1]:.4g}",
                *[f"{number:.4g}" for number in numbers],
                f"{100 * (at.prediction == at.label).mean():.1f}",
            )
        return table

    def draw(self, figure: Any) -> None:
        """One column a kind of example; for each space the loss above, the predicted classes below."""
        across, down = self._layout()
        classes = max(int(at.prediction.max()) for at in self.surfaces)
        for at in self.surfaces:
            above = 1 + 2 * len(across) * down.index(at.space) + across.index(at.kind)
            grid = np.meshgrid(at.offsets, at.offsets, indexing="ij")
            axes = figure.add_subplot(2 * len(down), len(across), above, projection="3d")
            axes.plot_surface(*grid, at.loss, cmap="coolwarm")
            axes.set_title(f"{at.space}, {at.kind}\nlabel {at.label}", fontsize=9)
            axes.set_box_aspect(None, zoom=0.85)  # the layout leaves no room for the labels of its axes
            _name(axes, labelpad=-4)
            axes.tick_params(pad=-2)
            axes = figure.add_subplot(2 * len(down), len(across), above + len(across))
            cells = axes.pcolormesh(
                *grid, at.prediction, cmap="tab10" if classes < 10 else "turbo", vmin=0, vmax=max(9, classes)
            )
            figure.colorbar(cells, ax=axes, label="class")
            _name(axes)

    def _layout(self) -> tuple[list[str], list[str]]:
        kinds, spaces = ({getattr(at, which) for at in self.surfaces} for which in ("kind", "space"))
        return [kind for kind in KINDS if kind in kinds], [space for space in SPACES if space in spaces]


def loss_surface(
    model: keras.Model,
    examples: tuple[Any, Any],
    attack: Any,
    *,
    spaces: Sequence[str] | None = None,
    second: str = "orthogonal",
    eps: float | None = None,
    points: int = 17,
    seed: int = 0,
) -> LossSurface:
    """Loss and predictions around a clean, a successful and a failed adversarial example.

    Args:
        model: maps images in [0, 1] to logits `(B, K)`.
        examples: images `(N, ...)` float in [0, 1] and labels `(N,)`. Among those that are classified rightly
            the first one, the first at which the attack succeeds and the first at which it fails are taken.
        attack: an `Attack`, or adversarial images shaped like the images.
        spaces: "input", "latent", or both; None: both, or "input" for a model without a latent.
        second: "orthogonal", a random vector of ±1 made orthogonal to the first axis, or "rademacher", one
            that is not.
        eps: half the width of the plane; None: the attack's. In the latent it is eps times the mean
            absolute value of the latent.
        points: of the grid along each axis, odd, so that the middle is the example itself.
        seed: of the attack and of the second axis.

    Returns:
        LossSurface: of those that exist; its `notes` name the missing.

    Raises:
        InputError: nothing is classified rightly, no eps, an unknown space or axis, or "latent" of a model
            whose logits are not a function of a latent.

    The first axis is the sign of the gradient of the cross-entropy. Both have unit size in the norm of the
    attack. Points in the plane are not clipped to [0, 1]. Source: Bui et al., ECCV 2020, Figure 3, whose code
    takes the gradient itself; Li et al., ICCV 2021, Figure 10, which takes the sign and a Rademacher vector.

    >>> import keras_robust as kr
    >>> digits = kr.data.load("digits", "test", examples=20, seed=0)
    >>> found = loss_surface(kr.zoo.load("at_digits"), digits, kr.attacks.FGSM(eps=0.15))
    >>> found.surfaces[0].loss.shape
    (17, 17)
    """
    chosen = _spaces(model, spaces)
    require_choice("second axis", second, SECOND_AXES)
    require(
        isinstance(points, int) and points >= 3 and points % 2 == 1,
        f"points must be an odd integer >= 3. Received: {points!r}.",
    )
    threat = _plane_of(attack, eps)
    seen = pairs(model, examples, attack, seed)
    taken, notes = _taken(seen)
    if spaces is None and "latent" not in chosen:
        notes.append("No latent to draw: cut the model with keras_robust.models.split(model, at=<layer>).")
    surfaces = []
    for space in chosen:
        for kind, index in taken.items():
            image = (seen.images if kind == "clean" else seen.adversarial)[index : index + 1]
            point, logits_of, radius = _look(model, image, space, threat.eps)
            label = seen.labels[index : index + 1]
            first = _gradient_sign(logits_of, point, label)
            if not first.any():
                notes.append(f"The gradient at the {kind} example is zero in the {space}: its axis is flat.")
            axes = (first, _second_axis(second, first, np.random.default_rng(seed)))
            offsets = np.linspace(-radius, radius, points, dtype="float32")
            plane = _plane(point, [_unit(axis, threat) for axis in axes], offsets)
            loss, prediction = _on(plane, logits_of, label)
            surfaces.append(Surface(kind, space, int(index), int(label[0]), offsets, loss, prediction))
    return LossSurface(surfaces, notes)


def _plane_of(attack: Any, eps: float | None) -> ThreatModel:
    """The norm of the axes and the radius in the input."""
    radius: Any = getattr(attack, "eps", None) if eps is None else eps
    require(
        is_finite(radius) and radius > 0,
        f"Give the plane's eps, a finite number > 0. Received: eps={radius!r}.",
    )
    return ThreatModel(getattr(attack, "norm", "linf"), radius)


def _spaces(model: keras.Model, spaces: Sequence[str] | None) -> Sequence[str]:
    if spaces is None:
        return SPACES if getattr(model, "head", None) is not None else SPACES[:1]
    require(len(spaces) > 0, f"Name at least one space. Valid: {', '.join(SPACES)}.")
    for space in spaces:
        require_choice("space", space, SPACES)
    if "latent" in spaces:
        require_head("A surface in latent space", model)
    return spaces


def _taken(seen: Pairs) -> tuple[dict[str, int], list[str]]:
    """The first example of each kind, and which kinds there are none of."""
    require(bool(seen.right.any()), f"None of {len(seen.labels)} examples is classified rightly.")
    rows = {"clean": seen.right, "successful": seen.successful, "failed": seen.failed}
    taken = {kind: int(np.flatnonzero(rows[kind])[0]) for kind in KINDS if rows[kind].any()}
    return taken, [
        f"There is no {kind} adversarial example among {len(seen.labels)}: not drawn."
        for kind in KINDS
        if kind not in taken
    ]


def _name(axes: Any, **options: Any) -> None:
    axes.set_xlabel("gradient's sign", fontsize=7, **options)
    axes.set_ylabel("second axis", fontsize=7, **options)
    axes.tick_params(labelsize=6)
    axes.locator_params(nbins=5)


def _look(model: keras.Model, image: np.ndarray, space: str, eps: float) -> tuple[Any, Callable, float]:
    """The point in a space, the logits as a function of such points, and the radius."""
    if space == "input":
        return image, lambda images: observe(model, images).logits, eps
    latent = ops.convert_to_numpy(ops.cast(model.encoder(image, training=False), "float32"))
    radius = eps * float(np.abs(latent).mean())
    return latent, lambda latents: ops.cast(model.head(latents, training=False), "float32"), radius


def _gradient_sign(logits_of: Callable, point: np.ndarray, label: np.ndarray) -> np.ndarray:
    def loss(at: Any) -> Any:
        return losses.cross_entropy(label, logits_of(at))

    _, gradient = value_and_input_gradient(loss, tf.convert_to_tensor(point))
    return np.sign(gradient)


def _second_axis(second: str, first: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return orthogonal_signs(first, random) if second == "orthogonal" else _signs(first.shape, random)


def _signs(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    return random.choice(np.array([-1, 1], "float32"), shape)


def orthogonal_signs(signs: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A random vector of ±1 that is orthogonal to `signs`, of -1, 0 and 1, in the same shape.

    It agrees with a random half of the signs and not with the other half; of an odd number, one entry is 0.

    >>> signs = np.array([1, -1, 0, 1, 1], "float32")
    >>> drawn = orthogonal_signs(signs, np.random.default_rng(0))
    >>> float(signs @ drawn), np.abs(drawn).tolist()
    (0.0, [1.0, 1.0, 1.0, 1.0, 1.0])
    """
    flat, drawn = signs.ravel(), _signs((signs.size,), random)
    places = random.permutation(np.flatnonzero(flat))
    half = len(places) // 2
    agreeing, opposed, left = places[:half], places[half : 2 * half], places[2 * half :]
    drawn[agreeing], drawn[opposed], drawn[left] = flat[agreeing], -flat[opposed], 0
    return drawn.reshape(signs.shape)


def _unit(axis: np.ndarray, threat: ThreatModel) -> np.ndarray:
    size = float(threat.distance(axis, 0.0)[0])
    return axis / size if size else axis


def _plane(point: np.ndarray, axes: Sequence[np.ndarray], offsets: np.ndarray) -> np.ndarray:
    """The points of the grid, `(S, S, ...)`."""
    along = offsets.reshape(-1, *[1] * (point.ndim - 1))
    return point + (along * axes[0])[:, None] + (along * axes[1])[None]


def _on(plane: np.ndarray, logits_of: Callable, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Loss and prediction at each point of the grid, one line of it at a time."""
    lines = [logits_of(line) for line in plane]
    loss = [losses.cross_entropy(np.repeat(label, len(line)), line) for line in lines]
    return np.array(loss, "float32"), np.array([np.argmax(line, axis=-1) for line in lines], "int32")
