"""Compiled functions, and how the steps of a plan are divided into calls of one."""

import contextlib
import hashlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from ffnlab import processes, trees
from ffnlab.nn.jaxprs import product_flops
from ffnlab.nn.stacks import stack_axes
from ffnlab.train.evaluation import Evaluator
from ffnlab.train.record import Plan

# The floating-point operations of a call of the steps, on an accelerator and on a CPU:
# some seconds at most.
OPERATIONS = (2e13, 1e11)


class Program:
    """A pure function, compiled ahead of its first call for each shape of its argument.

    Compiling is thus counted and timed apart from running.

    Args:
      function: A pure function. Only the shapes of its last argument may change between
        calls.
      donate: The positions of the arguments whose memory the function may reuse.
      shardings: Those of the outputs; None leaves them to XLA.
      mesh: The mesh of the devices that it runs on; None for one device.
      like: A program that computes the same on one device, of which the fingerprint is
        taken; None is this one.

    >>> import jax.numpy as jnp
    >>> double = Program(lambda x: 2 * x)
    >>> double(jnp.ones(3)).tolist(), double(jnp.ones(3)).tolist(), double.compilations
    ([2.0, 2.0, 2.0], [2.0, 2.0, 2.0], 1)
    """

    def __init__(
        self,
        function: Callable[..., Any],
        donate: tuple[int, ...] = (),
        shardings: Any = None,
        mesh: jax.sharding.Mesh | None = None,
        like: "Program | None" = None,
    ):
        options = {} if shardings is None else {"out_shardings": shardings}
        self._function = jax.jit(function, donate_argnums=donate, **options)
        self._like, self._mesh = like, mesh
        self._lowered: dict[Any, jax.stages.Lowered] = {}
        self._compiled: dict[Any, Callable[..., Any]] = {}
        self.compile_seconds = 0.0

    @property
    def compilations(self) -> int:
        """The number of shapes that were compiled."""
        return len(self._compiled)

    @property
    def temporary_bytes(self) -> int | None:
        """The most memory for temporary arrays of any shape; None if none compiled."""
        analyses = (each.memory_analysis() for each in self._compiled.values())
        return max((int(each.temp_size_in_bytes) for each in analyses), default=None)

    def lower(self, *args: Any) -> jax.stages.Lowered:
        """Returns the lowered program for arguments of these shapes."""
        shape = _shapes(args[-1])
        if shape not in self._lowered:
            with self._on_mesh():
                self._lowered[shape] = self._function.lower(*args)
        return self._lowered[shape]

    def _on_mesh(self) -> contextlib.AbstractContextManager:
        return jax.set_mesh(self._mesh) if self._mesh else contextlib.nullcontext()

    def operations(self, state: Any, *inputs: Any) -> float:
        """Returns the floating-point operations of a step, if the program scans steps.

        XLA counts the body of a loop once, whatever its iterations. That is right for
        the steps, and wrong for stacked layers, whose products are counted here.

        Args:
          state: The state, with `params`; shapes suffice.
          *inputs: The other arguments; the last are the examples of each step, `[steps,
            B]`.
        """
        costs = self.lower(state, *inputs).cost_analysis() or {}
        counted = costs.get("flops", 0.0)
        if not any(map(stack_axes, jax.tree.leaves(trees.names(state.params)))):
            return counted
        with self._on_mesh():
            traced = self._function.trace(state, *inputs)
        return max(counted, product_flops(traced.jaxpr.jaxpr) / len(inputs[-1]))

    def fingerprint(self, *args: Any) -> str:
        """Returns a hash of what the function computes for arguments of these shapes.

        It differs between models, optimizers and schedules that differ in anything, and
        between versions of JAX.
        """
        if self._like:
            return self._like.fingerprint(*jax.tree.map(_shape, args))
        text = self.lower(*args).as_text()
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def outputs(self, *args: Any) -> Any:
        """Returns the outputs' shapes for arguments of these shapes."""
        return jax.eval_shape(self._function, *args)

    def __call__(self, *args: Any) -> Any:
        shape = _shapes(args[-1])
        if shape not in self._compiled:
            start = time.perf_counter()
            self._compiled[shape] = self.lower(*args).compile()
            processes.meet()
            self.compile_seconds += time.perf_counter() - start
        return self._compiled[shape](*args)


def _shape(array: Any) -> jax.ShapeDtypeStruct:
    """Returns the shape and dtype of an array, without its place."""
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


def _shapes(tree: Any) -> Any:
    """Returns the structure of a tree, and the shapes and dtypes of its arrays."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)


class Programs(NamedTuple):
    """The compiled functions of a training.

    Attributes:
      steps: `steps(state, data, indices) -> (state, losses)`.
      evaluator: `evaluator(params, data) -> scores`.
    """

    steps: Program
    evaluator: Evaluator


class Calls(NamedTuple):
    """How the steps of a plan are divided into calls of a program.

    Attributes:
      plan: The plan.
      until: The step to end at, with an evaluation.
      size: The most steps of a call, which is as long as a signal waits.
    """

    plan: Plan
    until: int
    size: int

    def end(self, start: int) -> int:
        """Returns the step at which the call that starts at a step ends."""
        evaluation = (start // self.plan.every + 1) * self.plan.every
        return min(start + self.size, evaluation, self.until)

    def evaluates(self, step: int) -> bool:
        """Returns whether there is an evaluation after a step."""
        return step % self.plan.every == 0 or step == self.until

    def within(self, operations: float) -> "Calls":
        """Returns the calls of a program whose steps take some operations.

        Another length is compiled anew. It is thus the largest divisor of the steps
        between two evaluations, unless that is far too small.
        """
        most = OPERATIONS[jax.default_backend() == "cpu"] / max(operations, 1.0)
        limit = min(max(int(most), 1), self.plan.every)
        sizes = (n for n in range(1, limit + 1) if self.plan.every % n == 0)
        divisor = max(sizes)
        return self._replace(size=divisor if 4 * divisor >= limit else limit)
