"""Feedback networks: the modules that own the arrays of coupled chains.

    config = FeedbackConfig(features=8, hidden=32, contractive=0.9)
    layer = FeedbackLayer(config, rngs=nnx.Rngs(0))
    h, aux = layer(x, mask)  # [..., T, 32]; residual, iterations, converged

The equation, and why it is solved and not looped over, is in `ffnlab.chain`.
"""

import dataclasses
import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from ffnlab import activations, fixed_point
from ffnlab.chain import Boundary, arguments, chain, contracted
from ffnlab.errors import InputError, choose
from ffnlab.ffn import INITIALIZERS
from ffnlab.fixed_point import System
from ffnlab.solvers import Jacobi, Solver, Unrolled
from ffnlab.types import Array


@dataclasses.dataclass(frozen=True)
class FeedbackConfig:
    """What a feedback layer is made of.

    Attributes:
      features: the width D of x.
      hidden: the width H of a state.
      activation: f, a key of `ACTIVATIONS`.
      solver: how the states are found.
      gradient: `implicit`, `bptt` or `one_step`, see `fixed_point.solve`.
      contractive: γ in (0, 1): W and V are scaled so that Lip(f)·(‖W‖₂ + ‖V‖₂) ≤ γ,
        in training and after; None leaves them free, and a solve may fail to converge.
      coupling: ‖W‖₂ + ‖V‖₂ at the start, both being random rotations.
      boundary: the states outside the sequence: `zeros` or `learned`.

    Raises:
      InputError: a value is out of its range or a name unknown.
    """

    features: int
    hidden: int
    activation: str = "tanh"
    solver: Solver | Unrolled = dataclasses.field(default_factory=Jacobi)
    gradient: Literal["implicit", "bptt", "one_step"] = "implicit"
    contractive: float | None = None
    coupling: float = 0.9
    boundary: Literal["zeros", "learned"] = "zeros"

    def __post_init__(self):
        choose("activation", self.activation, activations.ACTIVATIONS)
        choose("gradient", self.gradient, fixed_point.GRADIENTS)
        choose("boundary", self.boundary, ("zeros", "learned"))
        if min(self.features, self.hidden) < 1:
            raise InputError(
                f"features={self.features} and hidden={self.hidden} must be at least 1"
            )
        if not 0.0 <= self.coupling < math.inf:
            raise InputError(f"coupling={self.coupling} must be finite, at least 0")
        if self.contractive is not None and not 0.0 < self.contractive < 1.0:
            raise InputError(f"contractive={self.contractive} must be in (0, 1)")
        if self.contractive is not None and not math.isfinite(self.slope):
            raise InputError(
                f"contractive: the slope of {self.activation} has no bound; use another"
            )

    @property
    def slope(self) -> float:
        """The Lipschitz constant of the activation."""
        return activations.get(self.activation).lipschitz


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
        rotation = INITIALIZERS["orthogonal"]
        for name in ("left", "right"):
            kernel = rotation(rngs.params(), (hidden, hidden), jnp.float32)
            setattr(self, name, nnx.Param(0.5 * config.coupling * kernel))
        beta = activations.get(config.activation).beta
        if beta:
            self.beta = nnx.Param(jnp.ones((hidden,) if beta == "channel" else ()))
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
          **options: of `fixed_point.solve`, such as `sensor` or `on_failure`.

        Returns:
          The states `[..., T, H]`, and of each sequence the `residual`, `iterations`
          and `converged`; in a report the `radius` ρ of the linearisation at the
          solution, and the `adjoint residual` that a random gradient is solved to.

        Raises:
          InputError: x is not `[..., T, D]` with T above 0, or the mask does not fit.
        """
        config = self.config
        x = checked(x, mask, config.features)
        kernels = self.kernels()
        if config.contractive is not None:
            row = activations.get(config.activation)
            kernels = contracted(kernels, row, config.contractive)
        found = {
            "beta": self.beta[...] if hasattr(self, "beta") else None,
            "boundary": (self.before[...], self.after[...])
            if config.boundary == "learned"
            else None,
        }
        return relax(config, self.up(x), kernels, mask, report, options, **found)

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


def relax(
    config: FeedbackConfig,
    drive: Array,
    kernels: list[Array],
    mask: Array | None,
    report: bool,
    options: dict[str, Any],
    beta: Array | None = None,
    boundary: Boundary | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Solves a layer or a joint network as its config says, and reports on it."""
    three = (*kernels, None)[:3]
    args, start = arguments(
        drive, *three, beta, mask, boundary, None, config.activation
    )
    system = chain(config.activation)
    found = fixed_point.solve(
        system, args, start, config.solver, config.gradient, **options
    )
    aux = found._asdict()
    del aux["state"]
    if report:
        aux |= _measured(config, system, args, found.state)
    return found.state, aux


def _measured(
    config: FeedbackConfig, system: System, args: dict, state: Array
) -> dict[str, Array]:
    """Returns what is worth a look in evaluation, and takes time."""
    told = {"radius": fixed_point.spectral_radius(system, args, state)}
    if config.gradient == "implicit":
        along = jax.random.normal(jax.random.key(1), state.shape, state.dtype)
        solver = config.solver.for_adjoint
        found = fixed_point.adjoint(system, args, state, along, solver)
        told["adjoint residual"] = found.residual
    return told


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
            return self._together(stack, x, mask, report, options)
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

    def _together(
        self,
        stack: list[FeedbackLayer],
        x: Array,
        mask: Array | None,
        report: bool,
        options: dict[str, Any],
    ) -> tuple[Array, dict[str, Array]]:
        """Solves all layers as one system, the states side by side, `[..., T, L·H]`."""
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
        kernels.append(inside)
        if config.contractive is not None:
            row = activations.get(config.activation)
            kernels = contracted(kernels, row, config.contractive)
        first = stack[0].up(x)  # [..., T, H]
        biases = jnp.concatenate([layer.up.bias[...] for layer in stack[1:]])
        rest = jnp.broadcast_to(biases, (*first.shape[:-1], biases.size))
        beta = None
        if hasattr(stack[0], "beta"):
            each = [jnp.broadcast_to(s.beta[...], (width,)) for s in stack]
            beta = jnp.concatenate(each)
        drive = jnp.concatenate([first, rest], axis=-1)
        h, aux = relax(config, drive, kernels, mask, report, options, beta)
        return h[..., -width:], aux
