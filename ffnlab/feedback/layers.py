"""Feedback networks: the modules that own the arrays of coupled chains.

    config = FeedbackConfig(features=8, hidden=32, contractive=0.9)
    layer = FeedbackLayer(config, rngs=nnx.Rngs(0))
    h, aux = layer(x, mask)  # [..., T, 32]; residual, iterations, converged

The equation, and why it is solved and not looped over, is in `ffnlab.feedback.chain`.
"""

import dataclasses
import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from ffnlab.errors import InputError, choose
from ffnlab.feedback import fixed_point, solvers
from ffnlab.feedback.chain import (
    CERTIFICATES,
    Certificate,
    chain,
    chain_arguments,
    contract_kernels,
)
from ffnlab.feedback.iteration import System
from ffnlab.feedback.solvers import Solver, Unrolled
from ffnlab.nn import activations
from ffnlab.nn.ffn import INITIALIZERS
from ffnlab.types import Array

Problem = tuple[System, dict[str, Any], Array]
_MEASURED = 64  # sequences of a batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Coupling:
    """How states hear their neighbours, and how they are found.

    Attributes:
      activation: f, a key of `ACTIVATIONS`.
      solver: how the states are found; None is what `solvers.auto` picks.
      gradient: `implicit`, `bptt` or `one_step`, see `fixed_point.solve`.
      contractive: γ in (0, 1): W and V are scaled so that their certificate is at most
        γ, in training and after; None leaves them free, and a solve may not converge.
      certificate: `joint` or `sum`, see `ffnlab.feedback.chain.contraction`.
      coupling: how strong W and V are at the start.
      begin: `split`: half of the states hear the left, the others the right, each by a
        random rotation times `coupling`, as in a bidirectional network; `mixed`: all
        hear both, by rotations times half of it.
      boundary: the states outside the sequence: `zeros` or `learned`.

    Raises:
      InputError: a value is out of its range or a name unknown.
    """

    activation: str = "tanh"
    solver: Solver | Unrolled | None = None
    gradient: Literal["implicit", "bptt", "one_step"] = "implicit"
    contractive: float | None = None
    certificate: Certificate = "joint"
    coupling: float = 0.9
    begin: Literal["split", "mixed"] = "split"
    boundary: Literal["zeros", "learned"] = "zeros"

    def __post_init__(self):
        choose("activation", self.activation, activations.ACTIVATIONS)
        choose("gradient", self.gradient, fixed_point.GRADIENTS)
        choose("boundary", self.boundary, ("zeros", "learned"))
        choose("certificate", self.certificate, CERTIFICATES)
        choose("begin", self.begin, ("split", "mixed"))
        if not 0.0 <= self.coupling < math.inf:
            raise InputError(f"coupling={self.coupling} must be finite, at least 0")
        if self.contractive is not None and not 0.0 < self.contractive < 1.0:
            raise InputError(f"contractive={self.contractive} must be in (0, 1)")
        if self.contractive is not None and not math.isfinite(self.slope):
            raise InputError(
                f"contractive: the slope of {self.activation} has no bound; use another"
            )

    @property
    def chosen(self) -> Solver | Unrolled:
        """The solver, picked if none was given."""
        return self.solver or solvers.auto(self.contractive is not None)

    @property
    def slope(self) -> float:
        """The Lipschitz constant of the activation."""
        return activations.get(self.activation).lipschitz


@dataclasses.dataclass(frozen=True)
class FeedbackConfig(Coupling):
    """What a feedback layer is made of.

    Attributes:
      features: the width D of x.
      hidden: the width H of a state.

    The rest is keywords, those of `Coupling`.

    Raises:
      InputError: a value is out of its range or a name unknown.
    """

    features: int
    hidden: int

    def __post_init__(self):
        super().__post_init__()
        if min(self.features, self.hidden) < 1:
            raise InputError(
                f"features={self.features} and hidden={self.hidden} must be at least 1"
            )


def _rotations(config: FeedbackConfig, rngs: nnx.Rngs) -> tuple[Array, Array]:
    """Returns W and V at the start, but for their strength."""

    def rotation(width: int) -> Array:
        return INITIALIZERS["orthogonal"](rngs.params(), (width, width), jnp.float32)

    hidden, half = config.hidden, config.hidden // 2
    if config.begin == "mixed":
        return 0.5 * rotation(hidden), 0.5 * rotation(hidden)
    none = jnp.zeros((hidden, hidden))
    return (
        none.at[:half, :half].set(rotation(half) if half else 0.0),
        none.at[half:, half:].set(rotation(hidden - half)),
    )


class FeedbackLayer(nnx.Module):
    """h_t = f(U x_t + W h_{t−1} + V h_{t+1} + b), and the arrays it needs.

    Args:
      config: what it is made of.
      rngs: where the arrays are drawn from.

    >>> layer = FeedbackLayer(FeedbackConfig(3, 4, contractive=0.9), rngs=nnx.Rngs(0))
    >>> h, aux = layer(jnp.ones((2, 5, 3)))
    >>> h.shape, bool(aux["converged"].all())
    ((2, 5, 4), True)
    """

    def __init__(self, config: FeedbackConfig, *, rngs: nnx.Rngs):
        self.config = config
        hidden = config.hidden
        self.up = nnx.Linear(config.features, hidden, rngs=rngs)
        self.left, self.right = (
            nnx.Param(config.coupling * kernel) for kernel in _rotations(config, rngs)
        )
        activations.add_beta(self, activations.get(config.activation), hidden)
        if config.boundary == "learned":
            self.before = nnx.Param(jnp.zeros(hidden))
            self.after = nnx.Param(jnp.zeros(hidden))

    def __call__(
        self,
        x: Array,
        mask: Array | None = None,
        *,
        report: bool = False,
        **options: Any,
    ) -> tuple[Array, dict[str, Array]]:
        """Solves the layer.

        Args:
          x: `[..., T, D]`.
          mask: True where there is a position, bool `[..., T]`.
          report: whether to measure what takes time too.
          **options: of `fixed_point.solve`, such as `callback` or `throw`.

        Returns:
          The states `[..., T, H]`, and of each sequence the `residual`, `iterations`
          and `converged`; in a report the `radius` ρ of the linearisation at the
          solution, and the `adjoint residual` that the gradient of |h|² is solved to.

        Raises:
          InputError: x is not `[..., T, D]` with T above 0, or the mask does not fit.
        """
        return relax(self.config, self.problem(x, mask), report, options)

    def problem(self, x: Array, mask: Array | None = None) -> Problem:
        """Returns what is to be solved: the system, its arguments, where to begin."""
        config = self.config
        x = checked(x, mask, config.features)
        kernels = certified(config, self.kernels())
        beta = self.beta[...] if hasattr(self, "beta") else None
        learned = config.boundary == "learned"
        ends = (self.before[...], self.after[...]) if learned else None
        return chain(config.activation), *chain_arguments(
            self.up(x), *kernels, None, beta, mask, ends, None, config.activation
        )

    def kernels(self) -> list[Array]:
        """Returns W and V as they are stored, `[H, H]` each."""
        return [self.left[...], self.right[...]]


def checked(x: Array, mask: Array | None, features: int) -> Array:
    """Returns x, zeros where there is no position, so that nothing there is heard.

    Raises:
      InputError: x is not `[..., T, features]` with T above 0, or the mask not its.
    """
    if x.ndim < 2 or x.shape[-1] != features or 0 in x.shape:
        raise InputError(f"x {[*x.shape]} must be [..., T, {features}] with T above 0")
    if mask is None:
        return x
    if mask.shape != x.shape[:-1]:
        raise InputError(f"mask {[*mask.shape]} must be {[*x.shape[:-1]]}, as x")
    return jnp.where(mask[..., None], x, 0.0)


def certified(config: FeedbackConfig, kernels: list[Array]) -> list[Array]:
    """Returns kernels within the config's certificate, if it asks for one."""
    if config.contractive is None:
        return kernels
    row = activations.get(config.activation)
    return contract_kernels(kernels, row, config.contractive, config.certificate)


def relax(
    config: FeedbackConfig, problem: Problem, report: bool, options: dict[str, Any]
) -> tuple[Array, dict[str, Array]]:
    """Solves a layer or a joint network as its config says, and reports on it."""
    system, args, start = problem
    found = fixed_point.solve(
        system, args, start, config.chosen, config.gradient, **options
    )
    aux = found._asdict()
    del aux["state"]
    if report:
        aux |= _measured(config, system, args, found.state)
    return found.state, aux


def _measured(
    config: FeedbackConfig, system: System, args: dict, state: Array
) -> dict[str, Array]:
    """Returns what takes time: of a large batch the mean over its first sequences."""
    shape = state.shape[:-2]
    if state.ndim == 3 and len(state) > _MEASURED:
        state = state[:_MEASURED]
        batched = {name: args[name] for name in ("drive", "mask") if name in args}
        args = args | {name: array[:_MEASURED] for name, array in batched.items()}
    told = {"radius": fixed_point.spectral_radius(system, args, state)}
    if config.gradient == "implicit":
        solver = config.chosen.for_adjoint
        found = fixed_point.adjoint(system, args, state, state, solver)
        told["adjoint residual"] = found.residual
    if state.shape[:-2] == shape:
        return told
    return {name: jnp.broadcast_to(each.mean(), shape) for name, each in told.items()}


class FeedbackNetwork(nnx.Module):
    """A stack of feedback layers, each solved on the states of the one below.

    Top-down, layer l also hears layer l + 1 at its own position, and all layers are
    one coupled system, solved together: a state of L·H numbers at each position.

    Args:
      config: what each layer is made of; `features` is the width of x.
      layers: L.
      top_down: whether a layer hears the one above.
      rngs: where the arrays are drawn from.

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
        if layers < 1:
            raise InputError(f"layers={layers} must be at least 1")
        if top_down and config.boundary == "learned":
            raise InputError("boundary: `learned` is for layers that are solved apart")
        self.config, self.layers = config, layers
        self.top_down = top_down and layers > 1
        above = dataclasses.replace(config, features=config.hidden)
        for layer in range(layers):
            made = FeedbackLayer(above if layer else config, rngs=rngs)
            setattr(self, f"layer_{layer}", made)
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
        **options: Any,
    ) -> tuple[Array, dict[str, Array]]:
        """Solves the network; arguments and results as of `FeedbackLayer`.

        The states are those of the last layer. Of layers that were solved apart the
        worst residual, the most iterations and the largest radius are told.
        """
        stack = [getattr(self, f"layer_{layer}") for layer in range(self.layers)]
        if self.top_down:
            joint = self.problem(x, mask)
            h, aux = relax(self.config, joint, report, options)
            return h[..., -self.config.hidden :], aux
        told = []
        for layer in stack:
            x, aux = layer(x, mask, report=report, **options)
            told.append(aux)
        worst = {"converged": jnp.minimum}
        return x, {
            name: functools.reduce(
                worst.get(name, jnp.maximum), [aux[name] for aux in told]
            )
            for name in told[0]
        }

    def problem(self, x: Array, mask: Array | None = None) -> Problem:
        """Returns what is solved first: all layers as one system, or the lowest.

        Together their states stand side by side, `[..., T, L·H]`.
        """
        if not self.top_down:
            return self.layer_0.problem(x, mask)
        stack = [getattr(self, f"layer_{layer}") for layer in range(self.layers)]
        config, width = self.config, self.config.hidden
        x = checked(x, mask, config.features)
        columns = jax.scipy.linalg.block_diag
        kernels = [
            columns(*each) for each in zip(*(s.kernels() for s in stack), strict=True)
        ]
        inside = jnp.zeros_like(kernels[0])
        for layer in range(1, self.layers):
            low = slice((layer - 1) * width, layer * width)
            high = slice(layer * width, (layer + 1) * width)
            inside = inside.at[low, high].set(stack[layer].up.kernel[...])
            inside = inside.at[high, low].set(getattr(self, f"down_{layer}")[...])
        kernels = certified(config, [*kernels, inside])
        first = stack[0].up(x)  # [..., T, H]
        biases = jnp.concatenate([layer.up.bias[...] for layer in stack[1:]])
        rest = jnp.broadcast_to(biases, (*first.shape[:-1], biases.size))
        beta = None
        if hasattr(stack[0], "beta"):
            each = [jnp.broadcast_to(s.beta[...], (width,)) for s in stack]
            beta = jnp.concatenate(each)
        drive = jnp.concatenate([first, rest], axis=-1)
        return chain(config.activation), *chain_arguments(
            drive, *kernels, beta, mask, None, None, config.activation
        )
