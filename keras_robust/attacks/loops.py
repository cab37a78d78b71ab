"""The loop of every attack inside a compiled graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops


def repeated(step: Callable[[Any, Any], Any], state: Any, count: Any, first: Any = 0) -> Any:
    """What `step(index, state)` makes of a state for the indices `first` to `first + count`, one by one.

    One graph serves every `first` and `count`, which may be tensors, with XLA too.

    >>> int(repeated(lambda index, total: total + index, ops.convert_to_tensor(0), count=4))
    6
    """
    first, count = ops.cast(first, "int32"), ops.cast(count, "int32")
    end = first + count
    _, state = ops.while_loop(
        lambda index, _: index < end,
        lambda index, state: (index + 1, step(index, state)),
        (first, state),
        maximum_iterations=count,
    )
    return state
