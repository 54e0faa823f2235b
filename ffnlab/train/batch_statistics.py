"""The gradient of a model with running statistics, and the new statistics."""

import jax
import jax.numpy as jnp

from ffnlab import trees
from ffnlab.errors import InputError
from ffnlab.nn.statistics import join_stats, split_stats, stats_of
from ffnlab.train.learner import Learner
from ffnlab.train.objectives import means
from ffnlab.types import Array, Batch, Key, Params


def gradient_and_stats(
    learner: Learner, params: Params, batch: Batch, key: Key
) -> tuple[Array, Params, Params]:
    """Returns the loss, the gradient of what is trained, and the new statistics.

    Both are of one pass over the batch. A gradient of the learner's own returns no
    statistics, so they take another pass.

    Args:
      learner: The model, its objective and its gradient.
      params: Its parameters, with statistics.
      batch: A batch.
      key: The key of the step, which puts the model into training mode.

    Raises:
      InputError: The model returns no statistics, or others than it has.
    """
    model, objective, _, gradient, _ = learner
    trained, stats = split_stats(params)
    if gradient is not None:
        loss, grads = gradient(params, batch, key)
        new = stats_of(model.apply(params, batch["x"], key)[1])
        return loss, split_stats(grads)[0], _like(stats, new)

    def loss_and_stats(trained: Params) -> tuple[Array, Params]:
        outputs, aux = model.apply(join_stats(trained, stats), batch["x"], key)
        return means(objective.score(outputs, batch))["loss"], stats_of(aux)

    (loss, new), grads = jax.value_and_grad(loss_and_stats, has_aux=True)(trained)
    return loss, grads, _like(stats, new)


def _like(stats: Params, new: Params) -> Params:
    """Returns new statistics in the dtypes of the old ones.

    Raises:
      InputError: They are other arrays than the old ones.
    """
    if (shapes := _shapes(stats)) != _shapes(new):
        raise InputError(
            f"model: the statistics in aux['stats'] should have the shapes of those in "
            f"the parameters, {shapes}, not {_shapes(new)}"
        )
    return jax.tree.map(lambda old, array: array.astype(old.dtype), stats, new)


def _shapes(tree: Params) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of arrays by path."""
    return {name: jnp.shape(leaf) for name, leaf in trees.flatten(tree).items()}
