"""The gradient of a batch that is divided over devices, as one array to exchange.

XLA sums the gradient of each array over the devices. On CPUs it exchanges them one by
one, and between processes each takes some milliseconds, however small it is. Here each
device takes the gradient of its own examples, and all of it is summed as one array
(`benchmarks/sharding.py`).
"""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.sharding import PartitionSpec

from ffnlab.nn.batch_axis import AXIS
from ffnlab.train.learner import Learner
from ffnlab.train.objectives import average, totals
from ffnlab.train.sharding import Layout
from ffnlab.types import Array, Batch, Gradient, Key, Params


def applies(learner: Learner, layout: Layout | None) -> bool:
    """Returns whether a learner's gradient can be taken by `divided_gradient`.

    Args:
      learner: The learner.
      layout: The layout; None is one device.
    """
    return (
        layout is not None
        and learner.independent
        and learner.gradient is None
        and layout.mesh.devices.flat[0].platform == "cpu"
        and layout.sizes["data"] == layout.mesh.size
        and not layout.fsdp
        and not layout.positions
        and not jax.sharding.get_abstract_mesh().manual_axes  # of a population
    )


def divided_gradient(learner: Learner, layout: Layout) -> Gradient:
    """Returns the gradient of the objective's mean, `(params, batch, key) -> ...`.

    Args:
      learner: The model and the objective; the loss of an example may not depend on
        the other examples of its batch.
      layout: Its axis `data` divides the batch, and every device holds all parameters.
    """
    model, objective, *_ = learner

    def total_loss(params: Params, batch: Batch, key: Key) -> tuple[Array, Array]:
        outputs, _ = model.apply(params, batch["x"], key)
        sums, weight = totals(objective.score(outputs, batch))
        return sums["loss"], weight

    def own_examples(params: Params, batch: Batch, key: Key) -> tuple[Array, Params]:
        total = jax.value_and_grad(total_loss, has_aux=True)
        flat, unravel = ravel_pytree(total(params, batch, key))
        (loss, weight), grads = unravel(jax.lax.psum(flat, AXIS))
        grads = jax.tree.map(lambda leaf: leaf / jnp.maximum(weight, 1e-9), grads)
        return average({"loss": loss}, weight)["loss"], grads

    whole = PartitionSpec()
    return jax.shard_map(
        own_examples,
        mesh=layout.mesh,
        in_specs=(whole, PartitionSpec(AXIS), whole),
        out_specs=whole,
        check_vma=False,  # or it would sum each gradient by itself
    )
