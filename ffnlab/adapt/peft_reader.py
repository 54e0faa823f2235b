"""Reads adapters in the layout of the peft library."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ffnlab import digests, trees
from ffnlab.adapt.methods import IA3, AdaLoRA, LoRA, Method, Prefix
from ffnlab.adapt.patterns import match_end
from ffnlab.adapt.peft_names import (
    ARRAYS,
    RANKNUM,
    SETTINGS,
    TASKS,
    Layer,
    head_rows,
    is_transposed,
    linear_rows,
    pooler_rows,
    read_number,
)
from ffnlab.adapt.selection import ENCODER, encoder_prefix
from ffnlab.adapt.surgery import split_path
from ffnlab.data.files import read_settings
from ffnlab.errors import InputError
from ffnlab.models.transformer_config import TransformerConfig
from ffnlab.pretrained.conversion import FAMILIES
from ffnlab.pretrained.safetensors_io import read_file
from ffnlab.schema import Field, check
from ffnlab.types import Params

Tensors = dict[str, np.ndarray]
_RANK = Field(kind=float, least=1, most=2**31 - 1)
_PATTERN = Field(kind=dict, items=_RANK, most=1000)  # each is tried for each layer


class _Saved(NamedTuple):
    """An adapter of peft, and the model that it is for.

    Attributes:
      tensors: The arrays by name; those that are read are taken out.
      settings: The settings.
      layers: The linear layers of the model.
      transformer: The configuration of the encoder.
      source: The file of the settings, for errors.
    """

    tensors: Tensors
    settings: dict[str, Any]
    layers: Sequence[Layer]
    transformer: TransformerConfig
    source: str

    def number(self, key: str, *default: Any, **limits: Any) -> Any:
        """Returns a number of the settings; see `read_number`."""
        return read_number(self.settings, key, self.source, *default, **limits)

    def adapted(self, *names: str) -> Iterator[tuple[Layer, list[np.ndarray]]]:
        """Yields each adapted layer with its arrays of these names."""
        for layer in self.layers:
            arrays = _take(self.tensors, layer, *names)
            if arrays is not None:
                yield layer, arrays

    def pattern(self, key: str, name: str, default: float) -> Any:
        """Returns the entry of a pattern of peft for a layer, or a default."""
        patterns = self.settings.get(key) or {}
        check(patterns, _PATTERN, f"{self.source}: {key}", "save the adapter again")
        for pattern in patterns:
            try:
                if match_end(pattern, name, "."):
                    return patterns[pattern]
            except InputError as error:
                raise InputError(f"{self.source}: {key}: {error}") from None
        return default


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
      family: Family of the checkpoint, a key of `FAMILIES`, such as bert.
      transformer: Configuration of the encoder.

    Returns:
      The trained part, and the methods for `adapt.join`.

    Raises:
      InputError: A file is missing or corrupt, or the adapter is of another kind, has
        modules that the model lacks, or is for a base of other sizes.

    Source: peft 0.21.
    """
    directory = Path(directory)
    settings, tensors = _read(directory)
    tensors, source = _names(tensors, family), str(directory / SETTINGS)
    head = _head(tensors, settings, params, family, str(directory))
    read, layers = _READERS[settings["peft_type"]], linear_rows(family, transformer)
    saved = _Saved(tensors, settings, layers, transformer, source)
    try:
        leaves, config = read(saved)
    except InputError as error:
        text = str(error)
        named = text if text.startswith(source) else f"{source}: {text}"
        raise InputError(named) from None
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


def _read(directory: Path) -> tuple[dict[str, Any], Tensors]:
    """Returns the settings and the arrays of a directory."""
    source = directory / SETTINGS
    if not source.is_file():
        raise InputError(f"{source}: not found; an adapter of peft has it")
    digests.check_all(directory, ("README.md",))
    settings = read_settings(source, _SETTINGS, "save the adapter again")
    if not (directory / ARRAYS).is_file():
        raise InputError(
            f"{directory / ARRAYS}: not found; a pickle such as adapter_model.bin can "
            "run code, and is not read"
        )
    kind = settings["peft_type"]
    if kind not in _READERS:
        raise InputError(
            f"{source}: peft_type {kind!r:.60} should be one of {', '.join(_READERS)}"
        )
    if settings.get("bias") not in (None, "none"):
        raise InputError(f"{source}: bias {settings['bias']!r:.60} cannot be loaded")
    return settings, read_file(directory / ARRAYS)


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
    arrays = [tensors.pop(name).astype(np.float32) for name in full]
    for name, array in zip(full, arrays, strict=True):
        axes = 1 if name.endswith("magnitude_vector") else 2
        if array.ndim != axes:
            raise InputError(f"{name} is {[*array.shape]}, not an array of {axes} axes")
    return arrays


def _split(array: np.ndarray, layer: Layer, axis: int) -> list[np.ndarray]:
    """Returns the parts of an array of a layer that consists of several of ours."""
    if array.shape[axis] % len(layer.modules):
        raise InputError(
            f"{layer.name}: its array {[*array.shape]} is not of {len(layer.modules)} "
            "layers of the same width; load the base that it was trained on"
        )
    return np.split(array, len(layer.modules), axis=axis)


def _check_ranks(layer: Layer, *ranks: int) -> int:
    """Returns the rank of an adapter after checking that all its arrays have it."""
    if len(set(ranks)) > 1:
        raise InputError(f"{layer.name}: its arrays have the ranks {[*ranks]}")
    return ranks[0]


def _lora(saved: _Saved) -> tuple[Tensors, Method]:
    """Returns the arrays of LoRA by path, and its configuration."""
    rank, alpha = saved.number("r", least=1, whole=True), _alpha(saved)
    dora, root = (bool(saved.settings.get(key)) for key in ("use_dora", "use_rslora"))
    names = ("lora_A.weight", "lora_B.weight") + ("lora_magnitude_vector",) * dora
    leaves, modules = {}, []
    scale = alpha / (rank**0.5 if root else rank)
    for layer, arrays in saved.adapted(*names):
        a, b = arrays[0].T, arrays[1].T  # [D, r], [r, H]
        _check_ranks(layer, a.shape[1], b.shape[0])
        own = saved.pattern("rank_pattern", layer.name, rank)
        own_alpha = saved.pattern("alpha_pattern", layer.name, alpha)
        b = b * np.float32(own_alpha / (own**0.5 if root else own) / scale)
        modules += layer.modules
        for module, part in zip(layer.modules, _split(b, layer, 1), strict=True):
            leaves |= {f"{module}/lora/a": a, f"{module}/lora/b": part}
        norms = _split(arrays[2], layer, 0) if dora else ()
        for module, part in zip(layer.modules, norms, strict=False):
            leaves[f"{module}/lora/magnitude"] = part
    fields = {**_low_rank_fields(saved, modules), "rslora": root, "dora": dora}
    return leaves, LoRA(rank=rank, **fields)


def _alpha(saved: _Saved) -> float:
    return saved.number("lora_alpha", least=1e-6)  # the arrays are divided by it


def _low_rank_fields(saved: _Saved, modules: Sequence[str]) -> dict[str, Any]:
    """Returns the fields that LoRA and AdaLoRA share."""
    return {
        "alpha": float(_alpha(saved)),
        "dropout": float(saved.number("lora_dropout", 0.0)),
        "targets": _targets(modules, saved.source),
    }


def _adalora(saved: _Saved) -> tuple[Tensors, Method]:
    """Returns the arrays of AdaLoRA by path, and its configuration.

    peft leaves out pruned triplets, which are zeros here.
    """
    widest = max(saved.transformer.features, saved.transformer.hidden)
    rank = saved.number("init_r", least=1, most=widest, whole=True)
    exact = np.float32(rank / (rank + RANKNUM))
    leaves, modules = {}, []
    for layer, (a, values, b) in saved.adapted("lora_A", "lora_E", "lora_B"):
        more = rank - _check_ranks(layer, len(a), len(values), b.shape[1])
        if more < 0:
            raise InputError(
                f"{saved.source}: init_r is {rank}, below that of {layer.name}"
            )
        a, b = np.pad(a, [(0, more), (0, 0)]).T, np.pad(b, [(0, 0), (0, more)]).T
        values = np.pad(values[:, 0] * exact, (0, more))
        modules += layer.modules
        for module, part in zip(layer.modules, _split(b, layer, 1), strict=True):
            arrays = {"p": a, "lambda": values, "q": part}
            leaves |= {f"{module}/adalora/{n}": leaf for n, leaf in arrays.items()}
    schedule = {
        field: saved.number(key, default, whole=not isinstance(default, float))
        for field, (key, default) in _SCHEDULE.items()
    }
    target = min(saved.number("target_r", rank, whole=True), rank)
    fields = {**_low_rank_fields(saved, modules), **schedule}
    return leaves, AdaLoRA(rank=rank, target_rank=target, **fields)


# The fields of AdaLoRA, their names in peft, and peft's defaults.
_SCHEDULE = {
    "total_steps": ("total_step", None),
    "warmup_steps": ("tinit", 0),
    "final_steps": ("tfinal", 0),
    "interval": ("deltaT", 1),
    "beta1": ("beta1", 0.85),
    "beta2": ("beta2", 0.85),
    "orthogonality": ("orth_reg_weight", 0.5),
}


def _ia3(saved: _Saved) -> tuple[Tensors, Method]:
    """Returns the arrays of (IA)³ by path, and its configuration."""
    leaves: Tensors = {}
    modules: dict[str, list[str]] = {"output": [], "input": []}
    for layer, (factors,) in saved.adapted("ia3_l"):
        kind = "output" if factors.shape[1] == 1 else "input"
        factors = factors.reshape(-1)
        if kind == "input" and len(layer.modules) > 1:
            raise InputError(
                f"{saved.source}: the inputs of {layer.name} cannot be scaled"
            )
        modules[kind] += layer.modules
        for module, part in zip(layer.modules, _split(factors, layer, 0), strict=True):
            leaves[f"{module}/ia3/{kind}"] = part
    return leaves, IA3(
        targets=_targets(modules["output"], saved.source),
        input_targets=_targets(modules["input"], saved.source)
        if modules["input"]
        else (),
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


def _prefix(saved: _Saved) -> tuple[Tensors, Method]:
    """Returns the keys and values of prefix tuning by path, and its configuration."""
    if "prompt_embeddings" not in saved.tensors:
        raise InputError(f"{saved.source}: prompt_embeddings is missing beside it")
    rows = saved.tensors.pop("prompt_embeddings").astype(np.float32)
    transformer = saved.transformer
    width = (transformer.key_value_heads or transformer.heads) * (
        transformer.features // transformer.heads
    )
    if rows.ndim != 2 or rows.shape[1] != transformer.layers * 2 * width:
        raise InputError(
            f"{saved.source}: prompt_embeddings is {[*rows.shape]}, the model has "
            f"{transformer.layers} layers of keys and values of width {width}"
        )
    both = rows.reshape(len(rows), transformer.layers, 2, width).transpose(1, 2, 0, 3)
    leaves = {"prefix/key": both[:, 0], "prefix/value": both[:, 1]}
    return leaves, Prefix(virtual_tokens=len(rows), shift_positions=True)


_READERS = {
    "LORA": _lora,
    "ADALORA": _adalora,
    "IA3": _ia3,
    "PREFIX_TUNING": _prefix,
}
_TEXT, _SWITCH = Field(kind=str, optional=True), Field(kind=bool, optional=True)
_SETTINGS = {
    "peft_type": Field(kind=str, required=True),
    **dict.fromkeys(("bias", "task_type"), _TEXT),
    **dict.fromkeys(("use_dora", "use_rslora"), _SWITCH),
}


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
