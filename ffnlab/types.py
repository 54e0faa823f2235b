"""Types shared by every room, and the letters that name the axes of an array.

B batch · T positions · D model width · H hidden width · E experts · K classes ·
V vocabulary · S population · L layers. A line that makes or reshapes an array ends
in its shape, such as `# [B, T, D]`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

Array = jax.Array
Key = jax.Array
Params = dict[str, Any]
Batch = Mapping[str, Array]
Loss = Callable[[Params, Batch, Key], Array]
Gradient = Callable[[Params, Batch, Key], tuple[Array, Params]]


class Model(NamedTuple):
    """A model as a pair of pure functions over plain nested dicts of arrays.

    Attributes:
      init: `init(key) -> params`.
      apply: `apply(params, *inputs, **options) -> (outputs, aux)`.
    """

    init: Callable[..., Params]
    apply: Callable[..., tuple[Array, dict[str, Any]]]


class Scores(NamedTuple):
    """What a batch scored, entry by entry, and how much each entry counts.

    Attributes:
      values: name to values, each of the shape of `weight`; `loss` is what training
        minimises.
      weight: 1 where an entry counts and 0 where it is padding or ignored.
    """

    values: dict[str, Array]
    weight: Array


class Objective(NamedTuple):
    """What a model is trained and judged by.

    Attributes:
      score: `score(outputs, batch) -> Scores`.
      monitor: the name of the score that a table ranks by.
      higher_is_better: the direction of `monitor`.
    """

    score: Callable[[Array, Batch], Scores]
    monitor: str
    higher_is_better: bool
