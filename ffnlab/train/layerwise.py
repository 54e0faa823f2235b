"""Learning rates by layer, for fine-tuning: decayed, frozen, or unfrozen in turn.

    rates = layer_rates(params, layers=6, decay=0.9, freeze=["embeddings"])
    model = stop_gradients(model, rates)  # no gradient where the rate is 0
    optimizer = scale_by_layer(optimizers.make("adamw", 5e-5), rates)
    optimizer = gradual_unfreezing(optimizer, params, layers=6, every=100)

`prune_embeddings` and `balanced_weights` prepare the parameters and the loss of a
fine-tuning in the same way: for the tokens and the classes that its data has.
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
from ffnlab.nn.indices import check_indices
from ffnlab.types import Array, Batch, Key, Model, Params


def frozen_patterns(freeze: Sequence[str], layers: int) -> list[str]:
    """Returns regular expressions for the names of the frozen parameters.

    Args:
      freeze: The frozen parts: `embeddings`, `encoder`, a layer such as `layers.3`, or
        a range of layers such as `layers.0-3`.
      layers: L, the number of the encoder's layers.

    Raises:
      InputError: A part does not exist.

    >>> frozen_patterns(["embeddings", "layers.0-1"], layers=6)
    ['encoder/embed/.*', 'encoder/layer_0/.*', 'encoder/layer_1/.*']
    """
    patterns = []
    for part in freeze:
        match = re.fullmatch(r"layers\.(\d+)(?:-(\d+))?", part)
        if part == "embeddings":
            patterns.append("encoder/embed/.*")
        elif part == "encoder":
            patterns.append("encoder/.*")
        elif match:
            first, last = int(match[1]), int(match[2] or match[1])
            if not first <= last < layers:
                raise InputError(f"freeze: {part}: the layers are 0 to {layers - 1}")
            patterns += [f"encoder/layer_{i}/.*" for i in range(first, last + 1)]
        else:
            raise InputError(
                f"freeze: {part!r} should be embeddings, encoder or layers.0-3"
            )
    return patterns


def layer_rates(
    params: Params, layers: int, decay: float = 1.0, freeze: Sequence[str] = ()
) -> Any:
    """Returns the factor of the learning rate of every array; 0 where it is frozen.

    The factor of the head, and of what follows the last layer, is 1; that of the last
    layer is `decay`, and so on down to the embeddings.

    Args:
      params: The parameters of a model with an `encoder` and a head; shapes suffice.
      layers: L, the number of the encoder's layers.
      decay: The factor from one layer to the layer below, in (0, 1].
      freeze: The frozen parts; see `frozen_patterns`.

    Returns:
      A tree of floats with the structure of `params`.

    Raises:
      InputError: A frozen part does not exist.

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
    """Returns the depth of an array below the head.

    It is 0 for the head and what follows the last layer, 1 for the last layer, L for
    the first, and L + 1 for the embeddings.
    """
    layer = re.match(r"encoder/layer_(\d+)/", name)
    if layer:
        return layers - int(layer[1])
    return layers + 1 if name.startswith("encoder/embed") else 0


def scale_by_layer(
    optimizer: optax.GradientTransformation, rates: Any
) -> optax.GradientTransformation:
    """Returns an optimizer that scales the updates of another, by a factor per array.

    Weight decay is scaled too. Arrays of rate 0 are not updated and have no moments.

    Args:
      optimizer: Any optimizer.
      rates: The factor of each array, a tree of floats, for instance of `layer_rates`.

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
      count: The number of steps taken, int32 `[]`.
      inner: The state of the inner optimizer.
    """

    count: Array
    inner: Any


def gradual_unfreezing(
    optimizer: optax.GradientTransformation, params: Params, layers: int, every: int
) -> optax.GradientTransformation:
    """Returns an optimizer that unfreezes the layers one by one, from the head down.

    The head is updated from the first step, the last layer from step `every`, the
    layer below from step 2 · `every`, and so on; the embeddings come last.

    The moments of frozen arrays are accumulated from the first step. All arrays share
    one count of steps, by which Adam corrects the bias of moments that start at 0.
    Moments that started later would be corrected too little, and the first updates of
    a layer would be (1 − β₁) / √(1 − β₂) ≈ 3 times too large. Therefore the whole
    gradient is computed at every step, and clipped as a whole.

    Args:
      optimizer: Any optimizer, for instance of `scale_by_layer`.
      params: The parameters of a model with an `encoder` and a head; shapes suffice.
      layers: L, the number of the encoder's layers.
      every: The number of steps between two unfreezings.

    Source: Howard & Ruder 2018, section 3.3, where one layer is unfrozen per epoch.

    >>> params = {"encoder": {"layer_0": {"w": jnp.ones(1)}}, "head": jnp.ones(1)}
    >>> optimizer = gradual_unfreezing(optax.sgd(1.0), params, layers=1, every=1)
    >>> state = optimizer.init(params)
    >>> for _ in range(2):
    ...     updates, state = optimizer.update(params, state, params)
    ...     updates["encoder"]["layer_0"]["w"].tolist(), updates["head"].tolist()
    ([0.0], [-1.0])
    ([-1.0], [-1.0])
    """
    starts = jax.tree.map(
        lambda name: every * _depth(name, layers), trees.names(params)
    )

    def init(params: Params) -> GradualUnfreezingState:
        return GradualUnfreezingState(jnp.zeros((), jnp.int32), optimizer.init(params))

    def update(
        updates: Any, state: GradualUnfreezingState, params: Any = None
    ) -> tuple[Any, Any]:
        updates, inner = optimizer.update(updates, state.inner, params)
        updates = jax.tree.map(
            lambda u, start: jnp.where(state.count >= start, u, jnp.zeros_like(u)),
            updates,
            starts,
        )
        return updates, GradualUnfreezingState(state.count + 1, inner)

    return optax.GradientTransformation(init, update)


def stop_gradients(model: Model, rates: Any) -> Model:
    """Returns a model without gradients for the arrays whose rate is 0.

    Layers below the lowest trained one are then computed forward only.

    Args:
      model: A model; its parameters have the structure of `rates`.
      rates: The factor of each array, a tree of floats, for instance of `layer_rates`.
    """

    def apply(params: Params, x: Batch, key: Key | None = None) -> tuple[Array, dict]:
        params = jax.tree.map(
            lambda p, rate: p if rate else jax.lax.stop_gradient(p), params, rates
        )
        return model.apply(params, x, key)

    return Model(model.init, apply)


def prune_embeddings(params: Params, vocab_ids: Array) -> Params:
    """Returns the parameters of an encoder with the embeddings of some tokens only.

    Tokens that do not occur have no gradient. An optimizer would only read and write
    their zeros, which for BERT's vocabulary are half of all parameters.

    Args:
      params: The parameters of the encoder.
      vocab_ids: The ids of the tokens to keep, int `[N]`. The new id of a token is its
        index in this array.

    Raises:
      InputError: A token has no embedding.

    >>> params = {"embed": {"tokens": {"embedding": jnp.arange(6.0).reshape(3, 2)}}}
    >>> pruned = prune_embeddings(params, jnp.array([0, 2]))
    >>> pruned["embed"]["tokens"]["embedding"].tolist()
    [[0.0, 1.0], [4.0, 5.0]]
    """
    table = params["embed"]["tokens"]["embedding"]
    check_indices("vocab_ids", vocab_ids, len(table), "embeddings")
    return _with_table(params, table[vocab_ids])


def restore_embeddings(params: Params, original: Params, vocab_ids: Array) -> Params:
    """Returns the parameters of a pruned encoder with all embeddings again.

    Args:
      params: The parameters of the pruned encoder.
      original: The parameters from before `prune_embeddings`; the embeddings that were
        left out are taken from them.
      vocab_ids: The ids that `prune_embeddings` kept, int `[N]`.
    """
    table = jnp.asarray(original["embed"]["tokens"]["embedding"])
    kept = params["embed"]["tokens"]["embedding"]
    return _with_table(params, table.at[vocab_ids].set(kept))


def _with_table(params: Params, table: Array) -> Params:
    """Returns the parameters of an encoder with another table of token embeddings."""
    embed = {**params["embed"], "tokens": {"embedding": table}}
    return {**params, "embed": embed}


def balanced_weights(labels: Any, classes: int) -> list[float]:
    """Returns a weight for each class, inversely proportional to its frequency.

    A class of n labels out of N has the weight N / (K n); one without labels has the
    weight 0.

    Args:
      labels: The labels, int `[...]` in 0…K−1; negative labels are ignored.
      classes: K, the number of classes.

    Source: King & Zeng 2001; scikit-learn's `compute_class_weight`.

    >>> balanced_weights([0, 0, 0, 1], classes=2)
    [0.6666666666666666, 2.0]
    """
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.asarray(labels)
    labels = labels[labels >= 0]
    occurring = np.unique(labels)
    weights = np.zeros(classes)
    if len(occurring):
        balanced = compute_class_weight("balanced", classes=occurring, y=labels)
        weights[occurring] = balanced * (len(occurring) / classes)
    return weights.tolist()
