"""Fine-tuning: which parts learn, at what rate, and toward what.

rates = rates_of(params, layers=6, decay=0.9, freeze=("embeddings", "layers.0-2"))
model = frozen(model, rates)                   # no gradient where a rate is 0
optimizer = scaled(optimizers.make("adamw", 5e-5), rates)
optimizer = unfrozen(optimizer, params, layers=6, every=100)
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ffnlab import trees
from ffnlab.errors import InputError
from ffnlab.types import Array, Batch, Key, Model, Params


def frozen_patterns(freeze: Sequence[str], layers: int) -> list[str]:
    """Returns patterns of the parameters that are not to learn.

    Args:
      freeze: `embeddings`, `encoder`, `layers.3`, `layers.0-3`.
      layers: L, of the encoder.

    Raises:
      InputError: there is no such part.

    >>> frozen_patterns(["embeddings", "layers.0-1"], layers=6)
    ['encoder/embed/.*', 'encoder/layer_0/.*', 'encoder/layer_1/.*']
    """
    found = []
    for part in freeze:
        match = re.fullmatch(r"layers\.(\d+)(?:-(\d+))?", part)
        if part == "embeddings":
            found.append("encoder/embed/.*")
        elif part == "encoder":
            found.append("encoder/.*")
        elif match:
            first, last = int(match[1]), int(match[2] or match[1])
            if not first <= last < layers:
                raise InputError(f"freeze: {part}: the layers are 0 to {layers - 1}")
            found += [f"encoder/layer_{i}/.*" for i in range(first, last + 1)]
        else:
            raise InputError(
                f"freeze: {part!r} should be embeddings, encoder or layers.0-3"
            )
    return found


def layer_rates(
    params: Params, layers: int, decay: float = 1.0, freeze: Sequence[str] = ()
) -> Any:
    """Returns the share of the learning rate of every array; 0 where it is frozen.

    The head and what follows the last layer have all of it, the layer below that
    `decay` of it, and so on down to the embeddings.

    Args:
      params: of a labeller: `encoder` and `head`.
      layers: L, of the encoder.
      decay: the factor from a layer to the one below, in (0, 1].
      freeze: see `frozen_patterns`.

    Raises:
      InputError: there is no such part.

    Source: Howard & Ruder 2018, section 3.2, for rates by layer.

    >>> params = {"encoder": {"embed": 0.0, "layer_0": {"w": 0.0}}, "head": 0.0}
    >>> layer_rates(params, layers=1, decay=0.5)
    {'encoder': {'embed': 0.25, 'layer_0': {'w': 0.5}}, 'head': 1.0}
    """
    patterns = frozen_patterns(freeze, layers)

    def rate(name: str) -> float:
        if any(re.fullmatch(pattern, name) for pattern in patterns):
            return 0.0
        return decay ** _depth(name, layers)

    return jax.tree.map(rate, trees.names(params))


def _depth(name: str, layers: int) -> int:
    """Returns how far below the head an array is: the last layer 1, embeddings L + 1.

    What follows the last layer goes with the head.
    """
    layer = re.match(r"encoder/layer_(\d+)/", name)
    if layer:
        return layers - int(layer[1])
    return layers + 1 if name.startswith("encoder/embed") else 0


def scale_by_layer(
    optimizer: optax.GradientTransformation, rates: Any
) -> optax.GradientTransformation:
    """Returns an optimizer whose updates, its decay included, are scaled per array.

    Arrays of rate 0 are not updated and have no moments.

    Args:
      optimizer: Any optimizer.
      rates: The factor of each array, a tree of floats as of `layer_rates`.

    >>> optimizer = scale_by_layer(optax.sgd(1.0), {"a": 0.5, "b": 0.0})
    >>> params = {"a": jnp.ones(1), "b": jnp.ones(1)}
    >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
    >>> updates["a"].tolist(), updates["b"].tolist()
    ([-0.5], [0.0])
    """
    frozen = jax.tree.map(lambda rate: rate == 0, rates)
    if any(jax.tree.leaves(frozen)):
        optimizer = optax.selective_transform(optimizer, freeze_mask=frozen)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = optimizer.update(updates, state, params)
        return jax.tree.map(lambda u, rate: rate * u, updates, rates), state

    return optax.GradientTransformation(optimizer.init, update)


class GradualUnfreezingState(NamedTuple):
    """The state of `gradual_unfreezing`.

    Attributes:
      count: how many steps were taken, int32 `[]`.
      inner: the state of the optimizer that is held back.
    """

    count: Array
    inner: Any


def gradual_unfreezing(
    optimizer: optax.GradientTransformation, params: Params, layers: int, every: int
) -> optax.GradientTransformation:
    """Returns an optimizer that holds back the updates of a part until its turn.

    The head learns from the first step, the last layer from step `every`, the one
    below from 2 · `every`, and so on; the embeddings come last.

    Moments are gathered while a part waits. All parts share one count of steps, by
    which Adam undoes that moments begin at 0: moments that began later would be taken
    for large ones, and the first updates of a part be (1 − β₁) / √(1 − β₂) ≈ 3 times
    too large. So the whole gradient is computed at every step, and clipped as a whole.

    Args:
      optimizer: from `scale_by_layer`, `optimizers.make`, or any other.
      params: of a labeller: `encoder` and `head`; shapes will do.
      layers: L, of the encoder.
      every: steps from a turn to the next.

    Source: Howard & Ruder 2018, section 3.3, where a turn is an epoch.

    >>> params = {"encoder": {"layer_0": {"w": jnp.ones(1)}}, "head": jnp.ones(1)}
    >>> optimizer = gradual_unfreezing(optax.sgd(1.0), params, layers=1, every=1)
    >>> state = optimizer.init(params)
    >>> for _ in range(2):
    ...     updates, state = optimizer.update(params, state, params)
    ...     updates["encoder"]["layer_0"]["w"].tolist(), updates["head"].tolist()
    ([0.0], [-1.0])
    ([-1.0], [-1.0])
    """
    turns = jax.tree.map(lambda name: every * _depth(name, layers), trees.names(params))

    def init(params: Params) -> GradualUnfreezingState:
        return GradualUnfreezingState(jnp.zeros((), jnp.int32), optimizer.init(params))

    def update(
        updates: Any, state: GradualUnfreezingState, params: Any = None
    ) -> tuple[Any, Any]:
        updates, inner = optimizer.update(updates, state.inner, params)
        held = jax.tree.map(
            lambda u, turn: jnp.where(state.count >= turn, u, jnp.zeros_like(u)),
            updates,
            turns,
        )
        return held, GradualUnfreezingState(state.count + 1, inner)

    return optax.GradientTransformation(init, update)


def stop_gradients(model: Model, rates: Any) -> Model:
    """Returns a model in which nothing is differentiated where the rate is 0.

    Layers below the lowest that learns are then computed forward only.
    """

    def apply(params: Params, x: Batch, key: Key | None = None) -> tuple[Array, dict]:
        params = jax.tree.map(
            lambda p, rate: p if rate else jax.lax.stop_gradient(p), params, rates
        )
        return model.apply(params, x, key)

    return Model(model.init, apply)


def prune_embeddings(params: Params, vocab_ids: Array) -> Params:
    """Returns an encoder with the embeddings of some tokens alone.

    Tokens that no text holds have no gradient; an optimizer would only read and write
    their zeros, for BERT's vocabulary half of all that there is.

    Args:
      params: of the encoder.
      vocab_ids: the numbers of the tokens to keep; they are numbered anew by their place.

    >>> params = {"embed": {"tokens": {"embedding": jnp.arange(6.0).reshape(3, 2)}}}
    >>> prune_embeddings(params, jnp.array([0, 2]))["embed"]["tokens"]["embedding"].tolist()
    [[0.0, 1.0], [4.0, 5.0]]
    """
    return _with_table(params, params["embed"]["tokens"]["embedding"][vocab_ids])


def restore_embeddings(params: Params, whole: Params, vocab_ids: Array) -> Params:
    """Returns a trimmed encoder with the embeddings that were left out, as they were.

    Args:
      params: of the trimmed encoder.
      whole: of the encoder that it was made of.
      vocab_ids: as `prune_embeddings` was given.
    """
    table = jnp.asarray(whole["embed"]["tokens"]["embedding"])
    return _with_table(
        params, table.at[vocab_ids].set(params["embed"]["tokens"]["embedding"])
    )


def _with_table(params: Params, table: Array) -> Params:
    embed = {**params["embed"], "tokens": {"embedding": table}}
    return {**params, "embed": embed}


def balanced_weights(labels: Any, classes: int) -> list[float]:
    """Returns a weight for each class, inversely proportional to its frequency.

    A class without labels has the weight 0; the mean over the labels is 1, times the
    share of the classes that occur.

    Args:
      labels: int `[N]` in 0…K−1; a negative label is ignored.
      classes: K.

    Source: King & Zeng 2001; scikit-learn's `compute_class_weight`.

    >>> balanced_weights([0, 0, 0, 1], classes=2)
    [0.6666666666666666, 2.0]
    """
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.asarray(labels)
    labels = labels[labels >= 0]
    found = np.unique(labels)
    weights = np.zeros(classes)
    if len(found):
        balanced = compute_class_weight("balanced", classes=found, y=labels)
        weights[found] = balanced * (len(found) / classes)
    return weights.tolist()
