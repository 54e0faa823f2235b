"""What a comparison from Python compares: blocks, and models of the caller's own."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from ffnlab import data, devices
from ffnlab.data import Dataset, Replicates
from ffnlab.errors import InputError
from ffnlab.nn import pure
from ffnlab.nn.budget import at_width
from ffnlab.nn.ffn import BlockConfig, parse
from ffnlab.nn.module_state import call_with_rngs
from ffnlab.nn.random_streams import random_streams
from ffnlab.sweep import block_jobs
from ffnlab.sweep.candidate_config import CandidateConfig, make_config
from ffnlab.sweep.comparison_config import MATCHED
from ffnlab.sweep.job import Job
from ffnlab.train.objectives import OBJECTIVES
from ffnlab.train.optimizers import OPTIMIZERS, as_optimizer, has_learning_rate
from ffnlab.types import Array, Model, Params

_WANTED = (
    "a block name, a BlockConfig, a Model(init, apply), or a function of rngs that "
    "returns an nnx.Module"
)


class Candidates(NamedTuple):
    """What is compared, and on what.

    Attributes:
      config: The configuration.
      models: Name to candidate: the name of a block, a `BlockConfig`, or a `Model`.
      dataset: The data set, or replicates of it.
      optimizer: An optimizer of the caller's own; None is that of the configuration.
    """

    config: CandidateConfig
    models: dict[str, "str | BlockConfig | Model"]
    dataset: Dataset | Replicates
    optimizer: Any = None


def gather(candidates: Any, dataset: Any, options: Mapping[str, Any]) -> Candidates:
    """Returns what `sweep.compare` was given, checked.

    Args:
      candidates: Name to candidate, or block names.
      dataset: A `Dataset`, the name of a built-in one, a function of a seed that
        returns one, or `Replicates`.
      options: Arguments by name, without those that are None.

    Raises:
      InputError: An argument cannot be used.
    """
    if isinstance(candidates, (list, tuple)) and all(
        isinstance(name, str) for name in candidates
    ):
        candidates = {name: name for name in candidates}
    if isinstance(candidates, Mapping) and not candidates:
        raise InputError("candidates: at least one is needed")
    if not isinstance(candidates, Mapping):
        raise InputError(
            "candidates: expected a list of block names, a dict from names to models "
            f"or blocks, or a CompareConfig, got {type(candidates).__name__}"
        )
    if not all(isinstance(name, str) for name in candidates):
        raise InputError("candidates: the names of models should be text")
    options, optimizer = dict(options), options.get("optimizer")
    own = optimizer is not None and not isinstance(optimizer, str)
    if own:
        optimizer = as_optimizer(options.pop("optimizer"))
    elif optimizer is not None and optimizer not in OPTIMIZERS:
        as_optimizer(optimizer)  # raises, with the nearest names
    dataset = _load(dataset) if isinstance(dataset, str) else dataset
    config = make_config(tuple(candidates), _name_of(dataset), own, options)
    devices.select(config.device)  # before models are traced, which starts JAX
    config.layout()  # refuses a mesh that does not fit
    dataset = _replicate(config, dataset)
    models = {name: _as_model(name, each) for name, each in candidates.items()}
    if config.initializer == MATCHED and any(
        isinstance(model, Model) for model in models.values()
    ):
        raise InputError("initializer=matched is for blocks; leave it out")
    gathered = Candidates(config, models, dataset, optimizer if own else None)
    _check_rates(gathered, options)
    return gathered


def _load(name: str) -> Dataset:
    """Returns a built-in data set."""
    if name not in data.DATASETS and ("/" in name or "." in name):
        raise InputError(
            f"dataset: {name!r} is no built-in data set; read a file by "
            "data.read_csv(path, target=COLUMN) or data.read_npz(path)"
        )
    return data.load(name)


def _name_of(dataset: Any) -> str:
    """Returns the name of a data set, after a check that it is one."""
    if isinstance(dataset, (Dataset, Replicates)):
        return dataset.name
    if callable(dataset):
        return getattr(dataset, "__name__", "data").strip("<>")
    raise InputError(
        "dataset: expected a Dataset, such as that of Dataset.from_arrays(x, y) or "
        "Dataset.from_frame(frame, target=COLUMN), the name of a built-in data set, or "
        f"a function of a seed, got {type(dataset).__name__}"
    )


def _replicate(config: CandidateConfig, dataset: Any) -> Dataset | Replicates:
    """Returns the data, split or drawn anew for each replicate where they can be."""
    if isinstance(dataset, Replicates):
        if len(dataset.seeds) < config.replicates or config.split == "fixed":
            raise InputError(
                f"dataset: {len(dataset.seeds)} replicates of the data for "
                f"{config.replicates} of each model with split={config.split}"
            )
        return dataset
    load = dataset if callable(dataset) else dataset.resplit
    if config.split == "fixed" or load is None:
        return _check(load(config.seed) if load else dataset, config)
    seeds = data.replicate_seeds(config.seed, config.replicates)
    return data.replicate(lambda seed: _check(load(seed), config), seeds)


def _check(dataset: Any, config: CandidateConfig) -> Dataset:
    """Returns a data set with the examples to score, after a check that it has some."""
    if not isinstance(dataset, Dataset):
        kind = type(dataset).__name__
        raise InputError(f"dataset: the function returned a {kind}, not a Dataset")
    if dataset.task not in OBJECTIVES:
        raise InputError(
            f"dataset: {dataset.name} has the task {dataset.task}; expected "
            f"{', '.join(OBJECTIVES)}"
        )
    for part in ("train", "valid", "test"):
        if not getattr(dataset, part) or not data.size(getattr(dataset, part)):
            raise InputError(f"dataset: {dataset.name} has no examples in {part}")
    return data.thin_parts(dataset, config.eval_examples)


def _as_model(name: str, candidate: Any) -> "str | BlockConfig | Model":
    """Returns a candidate as a block or as a model."""
    where = f"candidates: {name}"
    if isinstance(candidate, str):
        try:
            parse(candidate)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        return candidate
    if isinstance(candidate, (BlockConfig, Model)):
        return candidate
    if isinstance(candidate, nnx.Module):
        kind = type(candidate).__name__
        raise InputError(
            f"{where}: a {kind} that was made already has initial values for one run "
            f"only; give a function that makes it, lambda rngs: {kind}(..., rngs=rngs)"
        )
    if not callable(candidate):
        raise InputError(f"{where}: expected {_WANTED}, got {type(candidate).__name__}")
    _check_builder(where, candidate)
    return pure.functional(candidate)


def _check_builder(where: str, build: Any) -> None:
    """Raises unless a function builds a module."""
    try:
        module = nnx.eval_shape(lambda: call_with_rngs(build, random_streams(0)))
    except Exception as error:
        raise InputError(
            f"{where}: expected {_WANTED}; calling it failed: {_first_line(error)}"
        ) from error
    if not isinstance(module, nnx.Module):
        kind = type(module).__name__
        raise InputError(f"{where}: expected {_WANTED}; it returned a {kind}")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().split("\n")
    return f"{type(error).__name__}: {lines[0]:.300}"


def _check_rates(candidates: Candidates, options: Mapping[str, Any]) -> None:
    """Raises if learning rates are given that the optimizer would not use."""
    if candidates.optimizer is None or "learning_rates" not in options:
        return
    params = {"kernel": jax.ShapeDtypeStruct((1, 1), "float32")}
    for model in candidates.models.values():
        if isinstance(model, Model):
            params = jax.eval_shape(model.init, jax.random.key(0))
            break
    if not has_learning_rate(candidates.optimizer, params):
        raise InputError(
            "learning_rates: the optimizer has a rate or a schedule of its own; leave "
            "them out, or give the optimizer as a function of the rate, "
            "lambda learning_rate: optax.adam(learning_rate)"
        )


def make_jobs(candidates: Candidates) -> list[Job]:
    """Returns the jobs of all candidates.

    Raises:
      InputError: A model cannot be applied to the data, or its outputs have another
        shape than the data need.
    """
    jobs = [_job(candidates, name) for name in candidates.models]
    return [job._replace(optimizer=candidates.optimizer) for job in jobs]


def doubts(candidates: Candidates, jobs: Sequence[Job]) -> list[str]:
    """Returns what a reader of the verdict should know of the models.

    Args:
      candidates: What is compared.
      jobs: From `make_jobs`.
    """
    found = []
    sizes = {job.name: job.facts["parameters"] for job in jobs}
    least, most = min(sizes, key=sizes.get), max(sizes, key=sizes.get)
    if sizes[most] > 1.1 * sizes[least]:
        found.append(
            f"parameters differ: {least} has {sizes[least]:,}, {most} has "
            f"{sizes[most]:,}"
        )
    for job in jobs:
        if isinstance(candidates.models[job.name], Model) and _is_fixed(job.model):
            found.append(
                f"{job.name} starts from the same values in every replicate, since "
                "they do not depend on the key or on rngs"
            )
    return found


def _is_fixed(model: Model) -> bool:
    """Returns whether the initial values of a model do not depend on the key."""
    one, two = (jax.tree.leaves(model.init(jax.random.key(n))) for n in range(2))
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def _job(candidates: Candidates, name: str) -> Job:
    """Returns the job of a candidate, with the facts that its lines hold."""
    config, models, dataset, _ = candidates
    model = models[name]
    if isinstance(model, Model):
        model = _checked(name, model, dataset)
        facts = {"block": name, "parameters": pure.parameters(model)}
        return Job(name, model, dataset, facts)
    if not {"x", "ends"} & set(dataset.train) or np.ndim(dataset.train.get("x")) > 2:
        raise InputError(
            f"candidates: {name}: blocks take tables, [N, F]; for {dataset.name} give "
            "models of your own"
        )
    reference = block_jobs.reference_block(config)
    if isinstance(model, str):
        block = dataclasses.replace(reference, kind=model)
        match = block_jobs.match_block(config, block, reference)
        return block_jobs.make_job(config, dataset, match, name=name)
    match = at_width(model, reference, config.budget, model.hidden)
    job = block_jobs.make_job(config, dataset, match, name=name)
    own = ("budget", "unmatched")  # it has the width that it was given
    return job._replace(facts={k: v for k, v in job.facts.items() if k not in own})


def _checked(name: str, model: Model, dataset: Dataset | Replicates) -> Model:
    """Returns a model that takes a key and returns outputs and aux, after checks."""
    batch = data.take(dataset.train, np.arange(min(8, data.size(dataset.train))))
    x = jax.eval_shape(lambda: jax.tree.map(jax.numpy.asarray, batch["x"]))
    shapes = jax.tree.map(lambda leaf: list(leaf.shape), x)
    try:
        params = jax.eval_shape(model.init, jax.random.key(0))
        apply = _with_key(model, params, x)
        outputs = jax.eval_shape(_outputs_of(apply), params, x, jax.random.key(0))
    except Exception as error:
        raise InputError(
            f"candidates: {name}: the model fails on inputs of the shape {shapes}: "
            f"{_first_line(error)}"
        ) from error
    wanted = [*batch["y"].shape, dataset.classes]
    if not hasattr(outputs, "shape") or list(outputs.shape) != wanted:
        returned = list(getattr(outputs, "shape", [type(outputs).__name__]))
        raise InputError(
            f"candidates: {name}: for {shapes} inputs the outputs should have the "
            f"shape {wanted} ({'values' if dataset.task == 'values' else 'logits'}), "
            f"and have {returned}"
        )
    if not jax.numpy.issubdtype(outputs.dtype, jax.numpy.floating):
        raise InputError(
            f"candidates: {name}: the outputs should be floats, and are {outputs.dtype}"
        )
    return Model(model.init, _with_aux(apply))


def _with_key(model: Model, params: Params, x: Any) -> Callable:
    """Returns the function that applies a model, without the key if it takes none."""

    def without_key(params: Params, x: Any, key: Any = None) -> Any:
        return model.apply(params, x)

    try:
        inspect.signature(model.apply).bind(params, x, None)
    except TypeError:
        return without_key
    try:
        jax.eval_shape(model.apply, params, x, jax.random.key(0))
    except TypeError as error:
        if "positional argument" not in str(error):
            raise
        return without_key
    return model.apply


def _outputs_of(apply: Callable) -> Callable:
    """Returns a function that returns the outputs of a model alone."""
    full = _with_aux(apply)
    return lambda params, x, key=None: full(params, x, key)[0]


def _with_aux(apply: Callable) -> Callable:
    """Returns a function that returns `(outputs, aux)`, also of outputs alone."""

    def full(params: Params, x: Any, key: Any = None) -> tuple[Array, dict]:
        result = apply(params, x, key)
        return result if isinstance(result, tuple) else (result, {})

    return full
