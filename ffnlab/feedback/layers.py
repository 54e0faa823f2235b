"""Feedback networks: modules that own the parameters of coupled chains.

    config = FeedbackConfig(features=8, hidden=32, contractive=0.9)
    layer = FeedbackLayer(config, rngs=nnx.Rngs(0))
    h, aux = layer(x, mask)  # [..., T, 32]; residual, iterations, converged

The equation, and why a loop cannot compute it, is in `ffnlab.feedback.chain`.
"""

import dataclasses
import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ffnlab.errors import InputError, choose
from ffnlab.feedback import fixed_point, solvers
from ffnlab.feedback.chain import (
    CERTIFICATES,
    Certificate,
    chain_arguments,
    chain_system,
    contract_kernels,
    narrow,
)
from ffnlab.feedback.iteration import Solver, System, widen
from ffnlab.nn import activations
from ffnlab.nn.initializers import INITIALIZERS
from ffnlab.nn.random_streams import check_rngs
from ffnlab.types import Array

Problem = tuple[System, dict[str, Any], Array]
_MAX_MEASURED = 64  # sequences of a batch for which costly diagnostics are computed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Coupling:
    """Options of the coupling between states, and of how it is solved.

    Attributes:
      activation: Activation f, a key of `ACTIVATIONS`.
      solver: From `ffnlab.feedback.solvers`, or its name; `solvers.auto` chooses if it
        is None or `auto`.
      gradient: `implicit`, `bptt` or `one_step`, see `fixed_point.solve`.
      contractive: γ in (0, 1): W and V are scaled so that their certificate is at most
        γ, in training and after. With None they are free, and a solve may not converge.
      certificate: `joint` or `sum`, see `ffnlab.feedback.chain.contraction`.
      coupling: The strength of W and V at initialization.
      coupling_init: `split`: one half of the states reads its left neighbour and the
        other half its right one, through a random rotation times `coupling`, as in a
        bidirectional network; `mixed`: all states read both, through rotations times
        half of it.
      boundary: The states outside the sequence: `zeros` or `learned`.

    Raises:
      InputError: A value is out of range or a name is unknown.
    """

    activation: str = "tanh"
    solver: Solver | solvers.Name | Literal["auto"] | None = None
    gradient: Literal["implicit", "bptt", "one_step"] = "implicit"
    contractive: float | None = None
    certificate: Certificate = "joint"
    coupling: float = 0.9
    coupling_init: Literal["split", "mixed"] = "split"
    boundary: Literal["zeros", "learned"] = "zeros"

    def __post_init__(self):
        choose("activation", self.activation, activations.ACTIVATIONS)
        object.__setattr__(self, "solver", _solver(self.solver))
        choose("gradient", self.gradient, fixed_point.GRADIENTS)
        choose("boundary", self.boundary, ("zeros", "learned"))
        choose("certificate", self.certificate, CERTIFICATES)
        choose("coupling_init", self.coupling_init, ("split", "mixed"))
        if not 0.0 <= self.coupling < math.inf:
            raise InputError(f"coupling={self.coupling} must be finite, at least 0")
        if self.contractive is not None and not 0.0 < self.contractive < 1.0:
            raise InputError(f"contractive={self.contractive} must be in (0, 1)")
        if self.contractive is not None and not math.isfinite(self.lipschitz):
            raise InputError(
                f"contractive: the slope of {self.activation} has no bound; use another"
            )

    @property
    def chosen_solver(self) -> Solver:
        """The solver that is used: the given one, or that of `solvers.auto`."""
        return self.solver or solvers.auto(self.contractive is not None)

    @property
    def lipschitz(self) -> float:
        """The Lipschitz constant of the activation."""
        return activations.get(self.activation).lipschitz


def _solver(solver: Any) -> Solver | None:
    """Returns the solver of a configuration, from a name if it has one."""
    if isinstance(solver, str):
        choose("solver", solver, ("auto", *solvers.SOLVERS))
    return None if solver in (None, "auto") else solvers.resolve(solver)


@dataclasses.dataclass(frozen=True)
class FeedbackConfig(Coupling):
    """The configuration of a feedback layer.

    The fields of `Coupling` are keywords.

    Attributes:
      features: The width D of x.
      hidden: The width H of a state.

    Raises:
      InputError: A value is out of range or a name is unknown.
    """

    features: int
    hidden: int

    def __post_init__(self):
        super().__post_init__()
        widths = (self.features, self.hidden)
        whole = all(isinstance(width, int | np.integer) for width in widths)
        if not whole or min(widths) < 1:
            wanted = "at least 1" if whole else "integers"
            given = f"features={self.features} and hidden={self.hidden}"
            raise InputError(f"{given} must be {wanted}")


def _rotations(config: FeedbackConfig, rngs: nnx.Rngs) -> tuple[Array, Array]:
    """Returns initial W and V of strength 1."""

    def rotation(width: int) -> Array:
        return INITIALIZERS["orthogonal"](rngs.params(), (width, width), jnp.float32)

    hidden, half = config.hidden, config.hidden // 2
    if config.coupling_init == "mixed":
        return 0.5 * rotation(hidden), 0.5 * rotation(hidden)
    zeros = jnp.zeros((hidden, hidden), jnp.float32)
    return (
        zeros.at[:half, :half].set(rotation(half) if half else 0.0),
        zeros.at[half:, half:].set(rotation(hidden - half)),
    )


class FeedbackLayer(nnx.Module):
    """A layer that solves h_t = f(U x_t + W h_{t−1} + V h_{t+1} + b).

    Args:
      config: Its configuration.
      rngs: The random numbers of the initial parameters.

    >>> layer = FeedbackLayer(FeedbackConfig(3, 4, contractive=0.9), rngs=nnx.Rngs(0))
    >>> h, aux = layer(jnp.ones((2, 5, 3)))
    >>> h.shape, bool(aux["converged"].all())
    ((2, 5, 4), True)
    """

    def __init__(self, config: FeedbackConfig, *, rngs: nnx.Rngs):
        check_rngs(rngs)
        self.config = config
        hidden = config.hidden
        self.up = nnx.Linear(config.features, hidden, rngs=rngs)
        self.left, self.right = (
            nnx.Param(config.coupling * kernel) for kernel in _rotations(config, rngs)
        )
        activations.add_beta(self, activations.get(config.activation), hidden)
        if config.boundary == "learned":
            self.before = nnx.Param(jnp.zeros(hidden, jnp.float32))
            self.after = nnx.Param(jnp.zeros(hidden, jnp.float32))

    def __call__(
        self,
        x: Array,
        mask: Array | None = None,
        *,
        report: bool = False,
        dtype: Any = None,
        **options: Any,
    ) -> tuple[Array, dict[str, Array]]:
        """Solves the layer.

        Args:
          x: `[..., T, D]`.
          mask: True for positions and False for padding, bool `[..., T]`.
          report: Whether to compute costly diagnostics too.
          dtype: The dtype of the states. With None, that of x if it is bfloat16 or
            float16, in which nothing is solved, and otherwise that of the solve.
          **options: Of `fixed_point.solve`, such as `probe`, `throw` or `warn`.

        Returns:
          The states `[..., T, H]`, and for each sequence the `residual`, `iterations`
          and `converged`. With `report` also the `radius`, which is the spectral
          radius of the Jacobian at the solution, and the `adjoint residual` to which
          the gradient of |h|² is solved.

        Raises:
          InputError: x is not `[..., T, D]` with T above 0, or the mask does not fit.
        """
        h, aux = _solve(self.config, self.problem(x, mask), report, options)
        return narrow(h, x, dtype), aux

    def problem(self, x: Array, mask: Array | None = None) -> Problem:
        """Returns the system of the layer, its arguments and the initial state."""
        config = self.config
        x = mask_inputs(x, mask, config.features)
        kernels = _contract(config, self.kernels())
        beta = self.beta[...] if hasattr(self, "beta") else None
        learned = config.boundary == "learned"
        boundary = (self.before[...], self.after[...]) if learned else None
        return chain_system(config.activation), *chain_arguments(
            self.up(x), *kernels, None, beta, mask, boundary, None, config.activation
        )

    def kernels(self) -> list[Array]:
        """Returns W and V before they are scaled, `[H, H]` each."""
        return [self.left[...], self.right[...]]


def mask_inputs(x: Array, mask: Array | None, features: int) -> Array:
    """Returns x with zeros at padding, so that no state depends on what was there.

    Args:
      x: `[..., T, D]`.
      mask: True for positions and False for padding, bool `[..., T]`, or None.
      features: D.

    Raises:
      InputError: x is not `[..., T, D]` with T above 0, or the mask does not fit.
    """
    if x.ndim < 2 or x.shape[-1] != features or 0 in x.shape:
        raise InputError(f"x {[*x.shape]} must be [..., T, {features}] with T above 0")
    if mask is None:
        return x
    if mask.shape != x.shape[:-1]:
        raise InputError(f"mask {[*mask.shape]} must be {[*x.shape[:-1]]}, as x")
    return jnp.where(mask[..., None], x, 0.0)


def _contract(config: FeedbackConfig, kernels: list[Array]) -> list[Array]:
    """Returns kernels within the certificate of a configuration, if it has one."""
    kernels = widen(kernels)  # the certificate holds for the kernels that are solved
    if config.contractive is None:
        return kernels
    return contract_kernels(
        kernels, config.activation, config.contractive, config.certificate
    )


def _solve(
    config: FeedbackConfig, problem: Problem, report: bool, options: dict[str, Any]
) -> tuple[Array, dict[str, Array]]:
    """Returns the states of a layer or a joint network, and its diagnostics."""
    system, args, start = problem
    solution = fixed_point.solve(
        system, args, start, config.chosen_solver, config.gradient, **options
    )
    aux = solution._asdict()
    del aux["state"]
    if report:
        aux |= _diagnose(config, system, args, solution.state)
    return solution.state, aux


def _diagnose(
    config: FeedbackConfig, system: System, args: dict, state: Array
) -> dict[str, Array]:
    """Returns the costly diagnostics, for a large batch the mean over a part."""
    shape = state.shape[:-2]
    if state.ndim == 3 and len(state) > _MAX_MEASURED:
        state = state[:_MAX_MEASURED]
        batched = {name: args[name] for name in ("drive", "mask") if name in args}
        args = args | {name: array[:_MAX_MEASURED] for name, array in batched.items()}
    aux = {"radius": fixed_point.spectral_radius(system, args, state)}
    if config.gradient == "implicit":
        solver = config.chosen_solver.adjoint_solver
        solution = fixed_point.adjoint(system, args, state, state, solver)
        aux["adjoint residual"] = solution.residual
    if state.shape[:-2] == shape:
        return aux
    return {name: jnp.broadcast_to(row.mean(), shape) for name, row in aux.items()}


class FeedbackNetwork(nnx.Module):
    """A stack of feedback layers, each solved on the states of the layer below.

    With `top_down`, layer l also reads layer l + 1 at its own position, and all layers
    are one coupled system with a state of width L·H at each position.

    Args:
      config: The configuration of each layer; `features` is the width of x.
      layers: L.
      top_down: Whether a layer reads the layer above.
      rngs: The random numbers of the initial parameters.

    Raises:
      InputError: There is no layer, or `top_down` is combined with a learned boundary.

    >>> config = FeedbackConfig(3, 4, contractive=0.9)
    >>> network = FeedbackNetwork(config, layers=2, top_down=True, rngs=nnx.Rngs(0))
    >>> h, aux = network(jnp.ones((2, 5, 3)))
    >>> h.shape, bool(aux["converged"].all())
    ((2, 5, 4), True)
    """

    def __init__(
        self,
        config: FeedbackConfig,
        layers: int = 1,
        top_down: bool = False,
        *,
        rngs: nnx.Rngs,
    ):
        check_rngs(rngs)
        if layers < 1:
            raise InputError(f"layers={layers} must be at least 1")
        if top_down and config.boundary == "learned":
            raise InputError("boundary: `learned` cannot be combined with top_down")
        self.config, self.layers = config, layers
        self.top_down = top_down and layers > 1
        upper = dataclasses.replace(config, features=config.hidden)
        for layer in range(layers):
            module = FeedbackLayer(upper if layer else config, rngs=rngs)
            setattr(self, f"layer_{layer}", module)
            if self.top_down and layer:
                shape = (config.hidden, config.hidden)
                kernel = INITIALIZERS["orthogonal"](rngs.params(), shape, jnp.float32)
                setattr(
                    self, f"down_{layer}", nnx.Param(0.5 * config.coupling * kernel)
                )

    def __call__(
        self,
        x: Array,
        mask: Array | None = None,
        *,
        report: bool = False,
        dtype: Any = None,
        **options: Any,
    ) -> tuple[Array, dict[str, Array]]:
        """Solves the network; arguments and results are those of `FeedbackLayer`.

        The states are those of the last layer. Without `top_down` the diagnostics are
        the worst over the layers: the largest residual, number of iterations and
        radius, and whether all converged.
        """
        if self.top_down:
            h, aux = _solve(self.config, self.problem(x, mask), report, options)
            return narrow(h[..., -self.config.hidden :], x, dtype), aux
        diagnostics = []
        for layer in self._stack():
            x, aux = layer(x, mask, report=report, dtype=dtype, **options)
            diagnostics.append(aux)
        worst = {"converged": jnp.minimum}
        return x, {
            name: functools.reduce(
                worst.get(name, jnp.maximum), [aux[name] for aux in diagnostics]
            )
            for name in diagnostics[0]
        }

    def _stack(self) -> list[FeedbackLayer]:
        return [getattr(self, f"layer_{layer}") for layer in range(self.layers)]

    def problem(self, x: Array, mask: Array | None = None) -> Problem:
        """Returns the system that is solved first: all layers jointly, or the lowest.

        The joint state is the concatenation of the layers' states, `[..., T, L·H]`.
        """
        if not self.top_down:
            return self.layer_0.problem(x, mask)
        config, stack = self.config, self._stack()
        x = mask_inputs(x, mask, config.features)
        beta = None
        if hasattr(stack[0], "beta"):
            betas = [jnp.broadcast_to(s.beta[...], (config.hidden,)) for s in stack]
            beta = jnp.concatenate(betas)
        first = stack[0].up(x)  # [..., T, H]
        biases = jnp.concatenate([layer.up.bias[...] for layer in stack[1:]])
        rest = jnp.broadcast_to(biases, (*first.shape[:-1], biases.size))
        drive = jnp.concatenate([first, rest], axis=-1)  # [..., T, L·H]
        return chain_system(config.activation), *chain_arguments(
            drive, *self._joint_kernels(), beta, mask, None, None, config.activation
        )

    def _joint_kernels(self) -> list[Array]:
        """Returns W, V and the kernel between the layers, `[L·H, L·H]` each."""
        stack, width = self._stack(), self.config.hidden
        pairs = zip(*(layer.kernels() for layer in stack), strict=True)
        kernels = [jax.scipy.linalg.block_diag(*blocks) for blocks in pairs]
        inside = jnp.zeros_like(kernels[0])
        for layer in range(1, self.layers):
            low = slice((layer - 1) * width, layer * width)
            high = slice(layer * width, (layer + 1) * width)
            inside = inside.at[low, high].set(stack[layer].up.kernel[...])
            inside = inside.at[high, low].set(getattr(self, f"down_{layer}")[...])
        return _contract(self.config, [*kernels, inside])
