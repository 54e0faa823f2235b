"""The instructions of a compiled program, read from its text.

`compiled.as_text()` names every instruction, with its shapes, the computations that it
calls and the lines of Python that it comes from. Profiles name the same instructions.
"""

import functools
import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_WIDTHS = {"pred": 1, "token": 0, "s4": 1, "u4": 1, "bf16": 2, "c64": 8, "c128": 16}
_SHAPE = re.compile(r"\b([a-z]+\d*\w*)\[([\d,<=]*)\]")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_ASSIGNMENT = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_CALLED = re.compile(
    r"\b(?:calls|to_apply|body|condition|branch_computations|called_computations)="
    r"(\{[^}]*\}|%?[\w.\-]+)"
)
_ROW = re.compile(r'^(\d+) (?:"(.*)"|\{(.*)\})$')
_GEMM = re.compile(r'custom_call_target="[^"]*(?:gemm|matmul)[^"]*"')
_TABLES = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")
Dimensions = tuple[tuple[tuple[int, ...], ...], ...]
# They read or write parts of an operand, and not all of it.
_READS = ("dynamic-slice", "gather", "slice")
_WRITES = ("dynamic-update-slice", "scatter")


class Shape(NamedTuple):
    """The shape of an array.

    Attributes:
      dtype: Its dtype as XLA names it, such as `f32`.
      sizes: Its sizes.
    """

    dtype: str
    sizes: tuple[int, ...]

    @property
    def elements(self) -> int:
        """The number of values."""
        return math.prod(self.sizes)

    @property
    def bytes(self) -> int:
        """The size in bytes.

        >>> Shape("f32", (2, 3)).bytes, Shape("f8e4m3fn", (5,)).bytes
        (24, 5)
        """
        digits = re.search(r"\d+", self.dtype)
        width = _WIDTHS.get(self.dtype) or int(digits.group() if digits else 0) // 8
        return width * self.elements


class Frame(NamedTuple):
    """A line of Python that an instruction comes from.

    Attributes:
      file: The path of the file.
      function: The qualified name of the function; empty if it is not known.
    """

    file: str
    function: str


class Instruction(NamedTuple):
    """An instruction of a program.

    Attributes:
      name: Its name, which no other instruction of the program has.
      opcode: What it does, such as `dot` or `fusion`.
      shapes: The shapes of its results.
      operands: The names of the instructions whose results it reads.
      called: The names of the computations that it calls.
      text: All that follows its operands.
      frames: The lines of Python that it comes from, the innermost first.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    called: tuple[str, ...]
    text: str
    frames: tuple[Frame, ...]

    @property
    def multiplies(self) -> bool:
        """Whether it is a matrix product itself."""
        gemm = self.opcode == "custom-call" and _GEMM.search(self.text)
        return self.opcode == "dot" or bool(gemm)

    @property
    def dimensions(self) -> Dimensions:
        """The dimensions of a product as `jax.lax.dot_general` takes them."""
        contracting, shared = (
            tuple(self._numbers(f"{side}_{what}_dim") for side in ("lhs", "rhs"))
            for what in ("contracting", "batch")
        )
        return contracting, shared

    def _numbers(self, field: str) -> tuple[int, ...]:
        """Returns the integers of an attribute, of HLO or of a library's call."""
        match = re.search(rf'\b{field}(?:s=|ensions":)[{{\[]([\d,"]*)', self.text)
        return tuple(map(int, re.findall(r"\d+", match.group(1)))) if match else ()


class Module(NamedTuple):
    """A compiled program.

    Attributes:
      name: Its name.
      instructions: Name to instruction, of all computations.
      computations: The name of each computation to the names of its instructions.
    """

    name: str
    instructions: dict[str, Instruction]
    computations: dict[str, list[str]]

    def inside(self, instruction: Instruction) -> Iterator[Instruction]:
        """Yields an instruction, or those of the computations that it calls."""
        if not instruction.called or instruction.multiplies:
            yield instruction
            return
        if instruction.opcode not in ("fusion", "call", "while", "conditional"):
            yield instruction  # what it calls is applied to each value
            return
        for computation in instruction.called:
            for name in self.computations[computation]:
                yield from self.inside(self.instructions[name])

    def products(self, instruction: Instruction) -> list[Instruction]:
        """Returns the matrix products of an instruction."""
        return [each for each in self.inside(instruction) if each.multiplies]

    def operand_shapes(self, instruction: Instruction) -> list[Shape]:
        """Returns the shapes of its operands, those of a tuple one after another."""
        operands = (self.instructions[name] for name in instruction.operands)
        return [shape for operand in operands for shape in operand.shapes]

    def flops(self, instruction: Instruction) -> int:
        """Returns the operations of its products: two for each pair of values."""
        return sum(self._flops(each) for each in self.products(instruction))

    def _flops(self, product: Instruction) -> int:
        left, right, *_ = self.operand_shapes(product)
        (depths, _), (shared, _) = product.dimensions
        depth = math.prod(left.sizes[i] for i in depths)
        batch = math.prod(left.sizes[i] for i in shared)
        return 2 * left.elements * right.elements // max(depth * batch, 1)

    def bytes(self, instruction: Instruction) -> int:
        """Returns how many bytes it has to read and to write.

        Of an operand that is only sliced or gathered from, the slices count; of a
        result that is an operand with a part replaced, that part.
        """
        if instruction.opcode == "fusion":
            return self._fusion_bytes(instruction)
        sizes = [shape.bytes for shape in self.operand_shapes(instruction)]
        written = sum(shape.bytes for shape in instruction.shapes)
        if instruction.opcode in _READS:
            return 2 * written
        if instruction.opcode in _WRITES:
            return 2 * sum(sizes[1:])
        return sum(sizes) + written

    def _fusion_bytes(self, fusion: Instruction) -> int:
        body = [self.instructions[n] for n in self.computations[fusion.called[0]]]
        replaced = [each for each in body if each.opcode in _WRITES]
        targets = {each.operands[0] for each in replaced}
        total = 0
        for parameter in (each for each in body if each.opcode == "parameter"):
            users = [each for each in body if parameter.name in each.operands]
            if parameter.name in targets and len(users) == 1:
                continue
            sliced = (
                each.opcode in _READS and each.operands[0] == parameter.name
                for each in users
            )
            if users and all(sliced):
                total += sum(each.shapes[0].bytes for each in users)
            else:
                total += sum(shape.bytes for shape in parameter.shapes)
        whole = {each.shapes for each in replaced}
        if fusion.shapes in whole:
            parts = (self.operand_shapes(each)[1:] for each in replaced)
            return total + 2 * sum(shape.bytes for part in parts for shape in part)
        return total + sum(shape.bytes for shape in fusion.shapes)


def parse(text: str) -> Module:
    """Returns the program of a text of `compiled.as_text()`.

    >>> lines = ["HloModule jit_f, is_scheduled=true", "", "ENTRY %main (x: f32[2,3])"]
    >>> lines[-1] += " -> f32[2,2] {"
    >>> lines += ["  %x = f32[2,3]{1,0} parameter(0)",
    ...           "  ROOT %y = f32[2,2]{1,0} dot(%x, %x), lhs_contracting_dims={1}, "
    ...           "rhs_contracting_dims={1}", "}"]
    >>> module = parse("\\n".join(lines))
    >>> y = module.instructions["y"]
    >>> module.name, y.opcode, module.flops(y), module.bytes(y)
    ('jit_f', 'dot', 24, 64)
    """
    lines = text.splitlines()
    stacks = _Stacks(lines)
    name = re.match(r"HloModule ([\w.\-]+)", lines[0]).group(1)
    module, current = Module(name, {}, {}), []
    for line in lines[1:]:
        if match := _COMPUTATION.match(line):
            current = module.computations.setdefault(match.group(1), [])
        elif match := _ASSIGNMENT.match(line):
            instruction = _parse_instruction(*match.groups(), stacks)
            module.instructions[instruction.name] = instruction
            current.append(instruction.name)
    return module


def _parse_instruction(name: str, rest: str, stacks: "_Stacks") -> Instruction:
    """Returns the instruction of `NAME = REST`."""
    end = _closing(rest) if rest.startswith("(") else rest.index(" ")
    result, rest = rest[:end], rest[end:].lstrip()
    opcode, _, _ = rest.partition("(")
    end = _closing(rest)
    operands, text = rest[len(opcode) : end], rest[end:]
    called = [
        each
        for match in _CALLED.finditer(text)
        for each in re.findall(r"[\w.\-]+", match.group(1))
    ]
    return Instruction(
        name,
        opcode,
        _shapes(result),
        tuple(re.findall(r"%([\w.\-]+)", operands)),
        tuple(called),
        text,
        stacks.frames(text),
    )


def _closing(text: str) -> int:
    """Returns the place after the bracket that closes the first one."""
    depth = 0
    for match in re.finditer(r"[()]", text):
        depth += 1 if match.group() == "(" else -1
        if not depth:
            return match.end()
    raise ValueError(f"no closing bracket in {text[:80]!r}")


def _shapes(text: str) -> tuple[Shape, ...]:
    """Returns the shapes of a type."""
    return tuple(
        Shape(dtype, tuple(int(n.strip("<=")) for n in sizes.split(",") if n))
        for dtype, sizes in _SHAPE.findall(text)
    )


class _Stacks:
    """The lines of Python that instructions come from.

    Args:
      lines: Those of the program, of which the tables come first.
    """

    def __init__(self, lines: Sequence[str]):
        self._tables: dict[str, dict[int, str]] = {name: {} for name in _TABLES}
        table: dict[int, str] = {}
        for line in lines:
            if line in self._tables:
                table = self._tables[line]
            elif match := _ROW.match(line):
                table[int(match.group(1))] = match.group(2) or match.group(3)
        self._stack = functools.cache(self._read_stack)

    def frames(self, text: str) -> tuple[Frame, ...]:
        """Returns the frames of an instruction's metadata, the innermost first."""
        if match := re.search(r"\bstack_frame_id=(\d+)", text):
            return self._stack(int(match.group(1)))
        match = re.search(r'\bsource_file="([^"]*)"', text)
        return (Frame(match.group(1), ""),) if match else ()

    def _read_stack(self, number: int) -> tuple[Frame, ...]:
        names, functions, places, stack = self._tables.values()
        frames = []
        while number in stack:
            place, parent = map(int, re.findall(r"=(\d+)", stack[number]))
            file, function, *_ = map(int, re.findall(r"=(\d+)", places[place]))
            frames.append(Frame(names[file], functions[function]))
            number = parent - 1  # XLA writes the number of the caller plus one
        return tuple(frames)
