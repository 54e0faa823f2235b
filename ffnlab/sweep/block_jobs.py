"""The jobs of blocks: towers of equal cost, with the facts that their lines hold."""

import dataclasses
import functools
import math
from typing import TYPE_CHECKING

from ffnlab.sweep.comparison_config import MATCHED, CompareConfig
from ffnlab.sweep.job import Job

if TYPE_CHECKING:
    from ffnlab.data import Dataset, Replicates
    from ffnlab.models.mlp import TowerConfig
    from ffnlab.nn.budget import Match
    from ffnlab.nn.ffn import BlockConfig
    from ffnlab.types import Array, Model, Params

_DRAWS = 4  # of initial parameters, whose variance is reported


def match_blocks(config: CompareConfig) -> "list[Match]":
    """Returns the blocks, each with the hidden width at which all cost the same."""
    reference = reference_block(config)
    blocks = [dataclasses.replace(reference, kind=name) for name in config.names]
    return [match_block(config, block, reference) for block in blocks]


def match_block(
    config: CompareConfig, block: "BlockConfig", reference: "BlockConfig"
) -> "Match":
    """Returns a block with the width of the budget, or with the one that is given.

    At equal time it starts with the width of equal FLOPs, until `_match_times`.
    """
    from ffnlab.nn.budget import Match, at_width, match

    width = config.given_widths.get(block.kind)
    if config.budget == "time":
        products = len(block.block.inputs) + 1
        hidden = width or max(1, 2 * config.hidden // products)
        resized = dataclasses.replace(block, hidden=hidden)
        return Match(resized, "time", math.nan, math.nan)
    if width is not None:
        return at_width(block, reference, config.budget, width)
    return match(block, reference, config.budget)


def reference_block(config: CompareConfig) -> "BlockConfig":
    """Returns the block whose cost all blocks have."""
    from ffnlab.nn.ffn import BlockConfig

    return BlockConfig(
        "mlp:relu",
        config.features,
        config.hidden,
        dropout=config.dropout,
        norm=config.norm,
        norm_kind=config.norm_kind,
        initializer="lecun" if config.initializer == MATCHED else config.initializer,
    )


def make_job(
    config: CompareConfig,
    dataset: "Dataset | Replicates",
    match: "Match",
    task: str = "",
    name: str | None = None,
) -> Job:
    """Returns the job of a block, with the facts that its lines hold.

    Args:
      config: The configuration of the comparison.
      dataset: What the block is trained on.
      match: The block, with its hidden width.
      task: The name of the data set, where there are several; otherwise empty.
      name: What the block is called; None is the name of the block itself.
    """
    from ffnlab.models import mlp
    from ffnlab.nn import pure

    block, model = match.config, make_model(config, dataset, match.config)
    costs = {"parameters": pure.parameters(model), "flops": pure.flops(model)}
    if (counted := _xla_flops(_tower(config, dataset, block))) is not None:
        costs["xla_flops"] = counted
    x = examples(dataset)
    if config.initializer == MATCHED:
        model = mlp.with_output_variance(model, x)
    unmatched = match.difference  # of the block; of the whole model where it is counted
    if match.budget in costs:
        excess = config.layers * (match.value - match.target)
        unmatched = excess / (costs[match.budget] - excess)
    if match.budget == "time" and not math.isnan(match.value):
        costs["time"] = 1e6 * match.value  # µs
    name = name or block.kind
    facts = {
        **({"task": task} if task else {}),
        "block": name,
        "activation": block.activation_name,
        "hidden": block.hidden,
        "initial_variance": _initial_variance(config, model, x),
        **costs,
        "budget": config.budget,
        "unmatched": unmatched,
    }
    return Job(name, model, dataset, facts)


def make_model(
    config: CompareConfig, dataset: "Dataset | Replicates", block: "BlockConfig"
) -> "Model":
    """Returns a model of a stack of blocks for a data set."""
    from ffnlab.models import mlp

    return mlp.tower(_tower(config, dataset, block))


def _tower(
    config: CompareConfig, dataset: "Dataset | Replicates", block: "BlockConfig"
) -> "TowerConfig":
    """Returns the configuration of a stack of blocks for a data set."""
    from ffnlab.models.mlp import TowerConfig

    vocabulary = dataset.classes if dataset.task == "bytes" else None
    return TowerConfig(
        dataset.features, dataset.classes, block, config.layers, vocabulary
    )


@functools.cache
def _xla_flops(tower: "TowerConfig") -> int | None:
    """Returns the operations of a model for one example, as XLA counts them."""
    import jax

    from ffnlab.models import mlp
    from ffnlab.nn import pure

    kind = "int32" if tower.vocabulary else "float32"
    x = jax.ShapeDtypeStruct((8, tower.inputs), kind)
    return pure.xla_flops(mlp.tower(tower), x)


def examples(dataset: "Dataset | Replicates") -> "Array":
    """Returns the inputs of some training examples of the first replicate."""
    import jax.numpy as jnp

    from ffnlab import data

    pool, rows = dataset.train, None
    if isinstance(dataset, data.Replicates):
        rows = dataset.rows["train"][0]
    count = data.size(pool) if rows is None else len(rows)
    index = data.order(0, 0, min(256, count), count)
    return jnp.asarray(data.take(pool, index if rows is None else rows[index])["x"])


def _initial_variance(config: CompareConfig, model: "Model", x: "Array") -> float:
    """Returns the mean variance of the outputs of the blocks at the start.

    Drawing is not jitted, and draws as many as are trained: what JAX compiles for its
    operations then serves all blocks, and the start of their training.
    """
    import jax

    from ffnlab.models import mlp
    from ffnlab.nn.pure import quick_to_compile

    def variances(drawn: "Params", x: "Array") -> "Array":
        some = jax.tree.map(lambda leaf: leaf[:_DRAWS], drawn)
        return jax.vmap(lambda params: mlp.output_variances(model, params, x))(some)

    keys = jax.random.split(jax.random.key(config.seed), max(config.seeds, _DRAWS))
    drawn = jax.vmap(model.init)(keys)
    program = jax.jit(variances).lower(drawn, x).compile(quick_to_compile())
    return float(program(drawn, x).mean())
