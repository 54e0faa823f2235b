"""Types that all packages share, and the letters that name the axes of an array.

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
    """The scores of a batch, entry by entry, and the weight of each entry.

    Attributes:
      values: Name to values, each of the shape of `weight`; training minimises `loss`.
      weight: 1 for entries that count, 0 for padding and ignored entries.
    """

    values: dict[str, Array]
    weight: Array


class Objective(NamedTuple):
    """The scores that a model is trained and evaluated by.

    Attributes:
      score: `score(outputs, batch) -> Scores`.
      monitor: The name of the score that chooses the best step and ranks blocks.
      higher_is_better: Whether higher values of `monitor` are better.
    """

    score: Callable[[Array, Batch], Scores]
    monitor: str
    higher_is_better: bool
