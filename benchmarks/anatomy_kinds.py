"""What kind of work an instruction of a training step is.

An instruction is classified by the innermost line of Python that it comes from and that
`MODULES` knows. The gradient of an operation has the line of the operation. A fusion is
of the kind to which most of its arithmetic belongs.
"""

import collections
import re
from collections.abc import Iterable
from typing import NamedTuple

from benchmarks.anatomy_hlo import Frame, Instruction, Module

PRODUCTS = "products"
ATTENTION = "attention"
NORMS = "norms"
ACTIVATIONS = "activations"
DROPOUT = "dropout bits"
EMBEDDING = "embedding"
LOSS = "loss and head"
CLIPPING = "clipping"
OPTIMIZER = "optimizer"
OTHER = "biases, residuals, rest"
COPIES = "copies and layout"
WAITING = "dispatch and waiting"
KINDS = (
    PRODUCTS, ATTENTION, NORMS, ACTIVATIONS, DROPOUT, EMBEDDING, LOSS, CLIPPING,
    OPTIMIZER, OTHER, COPIES, WAITING,
)  # fmt: skip

# The end of a file's path, with the start of a function's name, to its kind. The first
# row that fits a line counts.
MODULES = {
    r"optax/transforms/_clipping\.py:": CLIPPING,
    r"ffnlab/nn/dropout\.py:": DROPOUT,
    r"(normalization|nn/batch_norm)\.py:": NORMS,
    r"ffnlab/nn/(activation\w*|ffn)\.py:": ACTIVATIONS,
    r"ffnlab/nn/attention\w*\.py:": ATTENTION,
    r"nn/linear\.py:Embed|ffnlab/models/embedding\.py:|nn/positions\.py:": EMBEDDING,
    r"ffnlab/nn/(linear|adapters)\.py:|nnx/nn/linear\.py:": OTHER,
    r"ffnlab/models/(transformer|layer_stack|mlp)\.py:": OTHER,
    r"ffnlab/feedback/": OTHER,
    r"optax/losses/|ffnlab/train/objectives\.py:": LOSS,
    r"ffnlab/models/(classifier|span_qa|language_model)\.py:": LOSS,
    r"benchmarks/anatomy_steps\.py:.*loss$": LOSS,
    r"benchmarks/anatomy_steps\.py:.*descend": OPTIMIZER,
    r"optax/|ffnlab/train/optimizers\.py:": OPTIMIZER,
}
# They compute nothing: they allocate, copy or change the shape or the dtype.
MOVES = {
    "parameter", "constant", "bitcast", "bitcast-convert", "broadcast", "reshape",
    "copy", "transpose", "slice", "tuple", "get-tuple-element", "iota", "convert",
    "concatenate", "pad", "reverse", "dynamic-slice", "dynamic-update-slice", "gather",
    "copy-start", "copy-done", "custom-call",
}  # fmt: skip
_KEYS = re.compile(r'\bop_name="[^"]*(threefry|random_)')
# An event of one of these holds the events of what it calls.
CONTAINERS = ("while", "call", "conditional")


def leaves(module: Module, events: Iterable[str]) -> set[str]:
    """Returns the names of the events that hold no events of what they call."""
    names = {*events}
    held = set()
    for name in names & module.instructions.keys():
        instruction = module.instructions[name]
        if instruction.opcode in CONTAINERS:
            inner = (module.computations[each] for each in instruction.called)
            if any(names.intersection(each) for each in inner):
                held.add(name)
    return names - held


class Part(NamedTuple):
    """An instruction that runs as one piece, as its profile has it.

    Attributes:
      instruction: The instruction.
      kind: One of `KINDS`.
      flops: The operations of its matrix products; 0 if it has none.
      bytes: What it reads and writes.
    """

    instruction: Instruction
    kind: str
    flops: int
    bytes: int


def describe(module: Module, instruction: Instruction) -> Part:
    """Returns the kind and the least work of an instruction."""
    flops, size = module.flops(instruction), module.bytes(instruction)
    return Part(instruction, classify(module, instruction), flops, size)


def classify(module: Module, instruction: Instruction) -> str:
    """Returns the kind of an instruction, of `KINDS`."""
    body = [*module.inside(instruction)]
    if products := [each for each in body if each.multiplies]:
        attends = kind_of(products[0].frames) == ATTENTION
        return ATTENTION if attends else PRODUCTS
    votes: collections.Counter[str] = collections.Counter()
    for each in body:
        if each.opcode not in MOVES:
            shapes = [*each.shapes, *module.operand_shapes(each)]
            votes[_kind(each, instruction)] += max(s.elements for s in shapes)
    if votes:
        return votes.most_common(1)[0][0]
    kinds = {_kind(each, instruction) for each in body if each.opcode != "parameter"}
    return EMBEDDING if EMBEDDING in kinds else COPIES


def _kind(inner: Instruction, outer: Instruction) -> str:
    """Returns the kind of an instruction of a fusion, or else that of the fusion."""
    if _KEYS.search(inner.text):
        return DROPOUT  # keys are split by loops of JAX wherever they are used
    return kind_of(inner.frames or outer.frames)


def kind_of(frames: tuple[Frame, ...]) -> str:
    """Returns the kind of the innermost line that `MODULES` knows.

    >>> kind_of((Frame("a/flax/nnx/nn/linear.py", "Linear.__call__"),
    ...          Frame("ffnlab/nn/attention.py", "Attention.__call__")))
    'biases, residuals, rest'
    >>> kind_of((Frame("optax/tree_utils/_tree_math.py", "tree_norm"),
    ...          Frame("optax/transforms/_clipping.py", "update_fn")))
    'clipping'
    >>> kind_of(())
    'biases, residuals, rest'
    """
    lines = [f"{frame.file}:{frame.function}" for frame in frames]
    if any("optax/transforms/_clipping.py" in line for line in lines):
        return CLIPPING  # the norm is computed by a function that others use too
    for line in lines:
        for pattern, kind in MODULES.items():
            if re.search(pattern, line):
                return kind
    return OTHER
