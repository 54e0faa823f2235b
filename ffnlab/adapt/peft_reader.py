"""Reads adapters in the layout of the peft library."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from ffnlab import trees
from ffnlab.adapt.methods import IA3, AdaLoRA, LoRA, Method, Prefix
from ffnlab.adapt.peft_names import (
    ARRAYS,
    RANKNUM,
    SETTINGS,
    TASKS,
    Layer,
    head_rows,
    is_transposed,
    linear_rows,
    missing,
    pooler_rows,
)
from ffnlab.adapt.selection import ENCODER, encoder_prefix
from ffnlab.adapt.surgery import split_path
from ffnlab.data.files import read_json
from ffnlab.errors import InputError
from ffnlab.models.transformer_config import TransformerConfig
from ffnlab.pretrained.conversion import FAMILIES
from ffnlab.pretrained.safetensors_io import read_file
from ffnlab.types import Params

Tensors = dict[str, np.ndarray]


def load_peft(
    directory: str | Path,
    params: Params,
    *,
    family: str,
    transformer: TransformerConfig,
) -> tuple[Params, tuple[Method, ...]]:
    """Loads an adapter that peft saved: LoRA, DoRA, AdaLoRA, (IA)³ or a prefix.

    Args:
      directory: Directory with adapter_config.json and adapter_model.safetensors.
      params: Parameters of the base, with a head of the adapter's number of classes if
        it has one.
      family: Family of the checkpoint: bert, roberta, distilbert or gpt2.
      transformer: Configuration of the encoder.

    Returns:
      The trained part, and the methods for `adapt.join`.

    Raises:
      InputError: A file is missing or corrupt, or the adapter is of another kind, has
        modules that the model lacks, or is for a base of other sizes.

    Source: peft 0.21.
    """
    directory = Path(directory)
    source = str(directory / SETTINGS)
    if not (directory / SETTINGS).is_file():
        raise InputError(f"{source}: not found; an adapter of peft has it")
    settings = read_json(directory / SETTINGS)
    if not (directory / ARRAYS).is_file():
        raise InputError(
            f"{directory / ARRAYS}: not found; a pickle such as adapter_model.bin can "
            "run code, and is not read"
        )
    tensors = _names(read_file(directory / ARRAYS), family)
    kind = settings.get("peft_type")
    readers = {
        "LORA": _lora,
        "ADALORA": _adalora,
        "IA3": _ia3,
        "PREFIX_TUNING": _prefix,
    }
    if kind not in readers:
        raise InputError(
            f"{source}: peft_type {kind!r} should be one of {', '.join(readers)}"
        )
    if settings.get("bias", "none") != "none":
        raise InputError(f"{source}: bias {settings['bias']!r} cannot be loaded")
    head = _head(tensors, settings, params, family, str(directory))
    layers = linear_rows(family, transformer)
    leaves, config = readers[kind](tensors, settings, layers, transformer, source)
    if tensors:
        raise InputError(
            f"{directory}: {len(tensors)} arrays are of modules that cannot be adapted "
            f"in this model, the first is {min(tensors)}"
        )
    _check_widths(leaves, params, str(directory))
    prefix = encoder_prefix(params)
    leaves = head | {prefix + path: leaf for path, leaf in leaves.items()}
    arrays = {path: jnp.asarray(leaf, jnp.float32) for path, leaf in leaves.items()}
    return trees.unflatten(arrays), (config,)


def _names(tensors: Tensors, family: str) -> Tensors:
    """Returns arrays by name, without the prefixes of peft and of the encoder."""
    root = FAMILIES[family].prefix if family in FAMILIES else ""
    pattern = re.compile(rf"(base_model\.(model\.)?)?({re.escape(root)})?")
    return {name[pattern.match(name).end() :]: t for name, t in tensors.items()}


def _head(
    tensors: Tensors, settings: dict, params: Params, family: str, source: str
) -> Tensors:
    """Returns the arrays of the head and the pooler by path, taken from `tensors`."""
    purposes = {task: purpose for purpose, task in TASKS.items()}
    purpose = purposes.get(settings.get("task_type"))
    rows = [*head_rows(params, family, purpose)] if purpose else []
    prefix = encoder_prefix(params).removesuffix("/")
    poolers = [(path.removeprefix(ENCODER), name) for path, name in pooler_rows()]
    rows += [(f"{prefix}/{path}" if prefix else path, name) for path, name in poolers]
    shapes, leaves = trees.flatten(params), {}
    for path, name in rows:
        if name in tensors:
            array = tensors.pop(name)
            array = array.T if is_transposed(path, name) else array
            if path not in shapes or shapes[path].shape != array.shape:
                theirs = [*shapes[path].shape] if path in shapes else "no array"
                raise InputError(
                    f"{source}: {name} is {[*array.shape]}, the model has {theirs}"
                )
            leaves[path] = array
    return leaves


def _take(tensors: Tensors, layer: Layer, *names: str) -> list[np.ndarray] | None:
    """Returns the arrays of a layer, taken from `tensors`; None if it has none."""
    full = [f"{layer.name}.{name}" for name in names]
    if full[0] not in tensors:
        return None
    lacking = [name for name in full if name not in tensors]
    if lacking:
        raise InputError(f"{lacking[0]} is missing, though {full[0]} is there")
    return [tensors.pop(name).astype(np.float32) for name in full]


def _split(array: np.ndarray, layer: Layer, axis: int) -> list[np.ndarray]:
    """Returns the parts of an array of a layer that consists of several of ours."""
    return np.split(array, len(layer.modules), axis=axis)


def _pattern(patterns: Any, name: str, default: float) -> float:
    """Returns the entry of a pattern of peft for a layer, or a default."""
    for pattern, value in (patterns or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", name):
            return value
    return default


def _lora(
    tensors: Tensors,
    settings: dict[str, Any],
    layers: Sequence[Layer],
    transformer: TransformerConfig,
    source: str,
) -> tuple[Tensors, Method]:
    """Returns the arrays of LoRA by path, and its configuration."""
    rank, alpha = (missing(settings, key, source) for key in ("r", "lora_alpha"))
    dora, root = (bool(settings.get(key)) for key in ("use_dora", "use_rslora"))
    names = ("lora_A.weight", "lora_B.weight") + ("lora_magnitude_vector",) * dora
    leaves, modules = {}, []
    scale = alpha / (rank**0.5 if root else rank)
    for layer in layers:
        arrays = _take(tensors, layer, *names)
        if arrays is None:
            continue
        a, b = arrays[0].T, arrays[1].T  # [D, r], [r, H]
        own = _pattern(settings.get("rank_pattern"), layer.name, rank)
        own_alpha = _pattern(settings.get("alpha_pattern"), layer.name, alpha)
        b = b * np.float32(own_alpha / (own**0.5 if root else own) / scale)
        for number, module in enumerate(layer.modules):
            leaves[f"{module}/lora/a"] = a
            leaves[f"{module}/lora/b"] = _split(b, layer, 1)[number]
            if dora:
                norms = _split(arrays[2], layer, 0)
                leaves[f"{module}/lora/magnitude"] = norms[number]
            modules.append(module)
    return leaves, LoRA(
        rank=rank,
        alpha=float(alpha),
        dropout=float(settings.get("lora_dropout") or 0.0),
        targets=_targets(modules, source),
        rslora=root,
        dora=dora,
    )


def _adalora(
    tensors: Tensors,
    settings: dict[str, Any],
    layers: Sequence[Layer],
    transformer: TransformerConfig,
    source: str,
) -> tuple[Tensors, Method]:
    """Returns the arrays of AdaLoRA by path, and its configuration.

    peft leaves out pruned triplets, which are zeros here.
    """
    rank, alpha = (missing(settings, key, source) for key in ("init_r", "lora_alpha"))
    leaves, modules = {}, []
    for layer in layers:
        arrays = _take(tensors, layer, "lora_A", "lora_E", "lora_B")
        if arrays is None:
            continue
        more = rank - len(arrays[0])
        a = np.pad(arrays[0], [(0, more), (0, 0)]).T
        values = np.pad(arrays[1][:, 0], (0, more)) * np.float32(
            rank / (rank + RANKNUM)
        )
        b = np.pad(arrays[2], [(0, 0), (0, more)]).T
        for number, module in enumerate(layer.modules):
            leaves[f"{module}/adalora/p"] = a
            leaves[f"{module}/adalora/lambda"] = values
            leaves[f"{module}/adalora/q"] = _split(b, layer, 1)[number]
            modules.append(module)
    return leaves, AdaLoRA(
        rank=rank,
        target_rank=min(settings.get("target_r") or rank, rank),
        alpha=float(alpha),
        dropout=float(settings.get("lora_dropout") or 0.0),
        targets=_targets(modules, source),
        total_steps=missing(settings, "total_step", source),
        warmup_steps=settings.get("tinit") or 0,
        final_steps=settings.get("tfinal") or 0,
        interval=settings.get("deltaT") or 1,
        beta1=settings.get("beta1", 0.85),
        beta2=settings.get("beta2", 0.85),
        orthogonality=settings.get("orth_reg_weight", 0.5),
    )


def _ia3(
    tensors: Tensors,
    settings: dict[str, Any],
    layers: Sequence[Layer],
    transformer: TransformerConfig,
    source: str,
) -> tuple[Tensors, Method]:
    """Returns the arrays of (IA)³ by path, and its configuration."""
    leaves: Tensors = {}
    modules: dict[str, list[str]] = {"output": [], "input": []}
    for layer in layers:
        arrays = _take(tensors, layer, "ia3_l")
        if arrays is None:
            continue
        kind = "output" if arrays[0].shape[1] == 1 else "input"
        factors = arrays[0].reshape(-1)
        if kind == "input" and len(layer.modules) > 1:
            raise InputError(f"{source}: the inputs of {layer.name} cannot be scaled")
        for number, module in enumerate(layer.modules):
            leaves[f"{module}/ia3/{kind}"] = _split(factors, layer, 0)[number]
            modules[kind].append(module)
    return leaves, IA3(
        targets=_targets(modules["output"], source),
        input_targets=_targets(modules["input"], source) if modules["input"] else (),
    )


def _targets(modules: Sequence[str], source: str) -> tuple[str, ...]:
    """Returns patterns for exactly these layers."""
    if not modules:
        raise InputError(f"{source}: no layer of the model is adapted")
    ends = {module.split("/", 1)[1] for module in modules}
    numbers = {module.split("/", 1)[0] for module in modules}
    if len(ends) * len(numbers) == len(modules):
        return tuple(sorted(ends))
    return tuple(sorted(modules))


def _prefix(
    tensors: Tensors,
    settings: dict[str, Any],
    layers: Sequence[Layer],
    transformer: TransformerConfig,
    source: str,
) -> tuple[Tensors, Method]:
    """Returns the keys and values of prefix tuning by path, and its configuration."""
    if "prompt_embeddings" not in tensors:
        raise InputError(f"{source}: prompt_embeddings is missing beside it")
    rows = tensors.pop("prompt_embeddings").astype(np.float32)
    width = (transformer.key_value_heads or transformer.heads) * (
        transformer.features // transformer.heads
    )
    if rows.ndim != 2 or rows.shape[1] != transformer.layers * 2 * width:
        raise InputError(
            f"{source}: prompt_embeddings is {[*rows.shape]}, the model has "
            f"{transformer.layers} layers of keys and values of width {width}"
        )
    both = rows.reshape(len(rows), transformer.layers, 2, width).transpose(1, 2, 0, 3)
    leaves = {"prefix/key": both[:, 0], "prefix/value": both[:, 1]}
    return leaves, Prefix(virtual_tokens=len(rows), shift_positions=True)


def _check_widths(leaves: Mapping[str, Any], params: Params, source: str) -> None:
    """Checks the arrays of adapters against the kernels that they adapt."""
    shapes = trees.flatten(params.get("encoder", params))
    for path, leaf in leaves.items():
        module, _, rest = split_path(path)
        kernel = shapes.get(f"{module}/kernel")
        if kernel is None:
            continue
        axes = {"a": (0, -2), "p": (0, -2), "input": (0, -2), "lambda": (0, None)}
        own, theirs = axes.get(rest, (-1, -1))
        if theirs is not None and leaf.shape[own] != kernel.shape[theirs]:
            raise InputError(
                f"{source}: the adapter of {module} is {[*leaf.shape]}, its kernel "
                f"{[*kernel.shape]}; load the base that it was trained on"
            )
