"""A fine-tuned model as a program that runs without ffnlab.

The program is written by `jax.export`, beside the tokenizer and the labels:

    from jax import export
    model = export.deserialize(open("model.jax", "rb").read())
    probabilities = model.call(tokens, mask, types, at)    # [B, K, labels]
    start_end = model.call(tokens, mask, types)            # qa: logits [B, T, 2]
    logits = model.call(tokens, mask)                      # generate: [B, T, V]
"""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffnlab import io
from ffnlab.data.targets import MULTI
from ffnlab.data.tokenizer import Tokenizer
from ffnlab.errors import InputError
from ffnlab.finetune.usage import Usage

if TYPE_CHECKING:
    from ffnlab.finetune.finetuned_model import FinetunedModel
    from ffnlab.types import Array


def export_model(model: "FinetunedModel", path: str | Path) -> list[Path]:
    """Writes a model, its tokenizer and its labels.

    The program takes tokens int32 `[B, T]`, mask bool `[B, T]` and, except for
    generate, types int32 `[B, T]`; for the tasks with labels also `at` int32 `[B, K]`,
    the positions of the labels, −1 for none. B, T and K may be any numbers, T up to the
    positions of the model. It runs on CPU, CUDA and TPU.

    Args:
      model: The fine-tuned model.
      path: The file of the program. The labels, and how the model is used, go to a file
        of that name with `.labels.json` appended, the tokenizer to one with
        `.tokenizer.json`, unless tokens are bytes.

    Returns:
      The files that were written, the program first.

    Raises:
      InputError: The file exists already, its directory does not, it cannot be written,
        or flatbuffers is not installed.
    """
    target = Path(path)
    if target.exists():
        raise InputError(f"export: {target} exists already; choose another name")
    if not target.parent.is_dir():
        raise InputError(f"export: {target.parent}: no such directory")
    contents = {"": _program(model)}
    if isinstance(model.tokenizer, Tokenizer):
        contents[".tokenizer.json"] = model.tokenizer.inner.to_str().encode()
    contents[".labels.json"] = _labels(model).encode()
    files = {target.with_name(target.name + end): contents[end] for end in contents}
    try:
        # The block ends with the file that was opened first: the program comes last.
        with contextlib.ExitStack() as stack:
            for name, content in files.items():
                file = stack.enter_context(io.atomic(name, "wb"))
                file.write(content)
                file.flush()
    except OSError as error:
        raise InputError(f"export: {target}: {error.strerror}") from None
    return list(files)


def _labels(model: "FinetunedModel") -> str:
    """Returns the labels, and how the model is used, as JSON."""
    inputs, outputs = _signature(model.usage.task)
    if not model.usage.predicts_labels:
        outputs = "numbers [B, K, 1]"
    signature = {"labels": model.names, "inputs": inputs, "outputs": outputs}
    settings = {**model.usage.to_dict(), **signature}
    return json.dumps(settings, indent=2, ensure_ascii=False) + "\n"


def _signature(task: str) -> tuple[dict[str, str], str]:
    """Returns the inputs of a task's program, in their order, and its output."""
    inputs = {"tokens": "int32 [B, T]", "mask": "bool [B, T]"}
    if task == "generate":
        return inputs, "logits [B, T, vocabulary]"
    inputs["types"] = "int32 [B, T], 1 in the second text"
    if task == "qa":
        return inputs, "logits of start and end [B, T, 2]"
    position = "the first token of a word" if task == "tag" else "0, the first token"
    inputs["at"] = f"int32 [B, K], {position}; -1 for none"
    return inputs, "probabilities [B, K, labels]"


def _program(model: "FinetunedModel") -> bytes:
    """Returns the model with its parameters, for any B, T and K."""
    import jax
    import jax.numpy as jnp
    from jax import export

    from ffnlab.nn.attention_kernel import only_xla

    try:
        import flatbuffers  # noqa: F401, jax.export serializes with it
    except ImportError:
        need = "pip install 'ffnlab[export]'"
        raise InputError(f"export: this needs flatbuffers: {need}") from None
    inputs, _ = _signature(model.usage.task)
    limits, labelled = [f"t <= {model.checkpoint.config.length}"], "at" in inputs
    batch, length, *positions = export.symbolic_shape(
        "b, t, k" if labelled else "b, t", constraints=limits + ["k <= t"] * labelled
    )
    tokens = jax.ShapeDtypeStruct((batch, length), jnp.int32)
    known = {
        "tokens": tokens,
        "mask": jax.ShapeDtypeStruct((batch, length), jnp.bool_),
        "types": tokens,
        "at": jax.ShapeDtypeStruct((batch, *positions), jnp.int32),
    }
    shapes = {name: known[name] for name in inputs}

    def apply(*inputs: jax.Array) -> jax.Array:
        return _apply(model, dict(zip(shapes, inputs, strict=True)))

    exporter = export.export(jax.jit(apply), platforms=["cpu", "cuda", "tpu"])
    with only_xla("the program is for all platforms"):
        return bytes(exporter(*shapes.values()).serialize())


def _apply(model: "FinetunedModel", x: dict[str, Any]) -> Any:
    """Returns the outputs of the model, with one text per row."""
    import jax.numpy as jnp

    from ffnlab.models.transformer import transformer_model

    if model.usage.task == "generate":
        inner = transformer_model(model.checkpoint.config)
        return inner.apply(model.params["encoder"], x["tokens"], x["mask"])[0]
    x = {**x, "segment_ids": jnp.zeros_like(x["tokens"])}
    if not model.checkpoint.config.types:
        x.pop("types")
    if model.usage.task == "qa":
        x["inside"] = x["mask"]
        return model.model.apply(model.params, x, None)[0]
    x["label_positions"] = x.pop("at")
    return read_outputs(model.usage)(model.model.apply(model.params, x, None)[0])


def read_outputs(usage: Usage) -> Callable[["Array"], "Array"]:
    """Returns the function from the outputs of a classifier to what it predicts.

    Args:
      usage: How the model is used.

    Returns:
      A function of `[..., L]`: numbers as they are, probabilities that add up to 1, or
      the probability of each label by itself.
    """
    import jax

    if not usage.predicts_labels:
        return lambda outputs: outputs
    return jax.nn.sigmoid if usage.problem_type == MULTI else jax.nn.softmax
