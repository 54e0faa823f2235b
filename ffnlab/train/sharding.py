"""How the arrays of a training are divided over a mesh of devices.

A mesh has the axes `replicas`, `data` and `model`. Where an array goes follows from its
name by `RULES`: the columns of `up` and `gate` and the rows of `down` are divided along
`model`, so that a block needs one sum over that axis, and so are the heads of attention
and the vocabulary. Arrays of an optimizer are placed like the parameter whose name they
end with. With FSDP, both are divided along `data` too, in another dimension. Stacked
layers are divided as each of them would be. XLA derives what has to be exchanged.

Source: Shoeybi et al. 2019 (Megatron-LM) for the columns and rows; Rajbhandari et al.
2020 (ZeRO) for parameters and optimizer states along the batch.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ffnlab import processes, trees
from ffnlab.errors import InputError
from ffnlab.nn.batch_axis import divide_batch
from ffnlab.nn.stacks import stack_axes
from ffnlab.train.mesh_config import AXES, as_text, check_divides
from ffnlab.types import Key

Rule = tuple[str, tuple[tuple[str | None, ...], ...]]

COLUMNS, ROWS = (None, "model"), ("model", None)
# A pattern of the end of a name, and the axes of its last dimensions: the first entry
# whose sizes are divided equally is used. An array that matches no pattern is held by
# every device, as one that has fewer dimensions is.
RULES: tuple[Rule, ...] = (
    (r"(up|gate|query|key|value)/kernel", (COLUMNS,)),
    (r"(up|gate|query|key|value)/bias", (("model",),)),
    (r"(down|out)/kernel", (ROWS,)),
    (r"tokens/embedding", (ROWS, COLUMNS)),
    (r"head/decoder/kernel", (COLUMNS, ROWS)),
)
_SMALL = 256  # entries of a layer; smaller arrays are not worth an exchange


class Layout(NamedTuple):
    """A mesh, and how arrays are divided over it.

    Attributes:
      mesh: Its axes are those of `AXES`.
      fsdp: Whether parameters are divided along `data` too.
      rules: See `RULES`; a model whose arrays have other names adds its own.
      positions: Whether `data` divides the positions of sequences, the second
        dimension of a batch, and not its examples.
    """

    mesh: Mesh
    fsdp: bool = False
    rules: Sequence[Rule] = RULES
    positions: bool = False

    @property
    def sizes(self) -> dict[str, int]:
        """The number of devices along each axis."""
        return dict(self.mesh.shape)

    @property
    def replicated(self) -> NamedSharding:
        """The sharding of what every device holds."""
        return NamedSharding(self.mesh, PartitionSpec())

    def along(self, *axes: str | None) -> NamedSharding:
        """Returns the sharding whose dimensions are divided along these axes."""
        return NamedSharding(self.mesh, PartitionSpec(*axes))

    def check(self, init: Callable[[Key], Any]) -> None:
        """Raises InputError if the arrays of a model cannot be divided."""
        self.shardings(jax.eval_shape(init, jax.random.key(0)))

    def place(self, tree: Any) -> Any:
        """Returns a tree of parameters or of an optimizer's state on the devices."""
        return processes.place(tree, self.shardings(tree))

    def shardings(self, tree: Any, leading: tuple[str, ...] = ()) -> Any:
        """Returns the sharding of each array of a tree by its name.

        Args:
          tree: Parameters, an optimizer's state, or shapes of them.
          leading: The axes of dimensions before those of a parameter, such as
            `("replicas",)` for a population.

        Raises:
          InputError: An axis divides none of the dimensions that a rule names.
        """

        def sharding(name: str, leaf: Any) -> NamedSharding:
            return self.along(*leading, *self._axes(name, leaf.shape[len(leading) :]))

        return jax.tree.map(sharding, trees.names(tree), tree)

    def _axes(self, name: str, shape: tuple[int, ...]) -> tuple[str | None, ...]:
        """Returns the axis of each dimension of an array."""
        axes: list[str | None] = [None] * len(shape)
        if self.sizes["model"] > 1:
            axes = _by_rule(self.rules, name, shape, self.sizes["model"])
        first = stack_axes(name)  # a scan takes one layer of a stack at a time
        if self.fsdp and np.prod(shape[first:]) >= _SMALL:
            free = [i for i in range(first, len(axes)) if axes[i] is None]
            fits = [i for i in free if shape[i] % self.sizes["data"] == 0]
            if fits:
                axes[max(fits, key=lambda i: shape[i])] = "data"
        return tuple(axes)


def _by_rule(
    rules: Sequence[Rule], name: str, shape: tuple[int, ...], size: int
) -> list[str | None]:
    """Returns the axis of each dimension by the first rule that matches a name."""
    for pattern, choices in rules:
        if not re.search(rf"(^|/){pattern}$", name) or len(shape) < len(choices[0]):
            continue
        for choice in choices:
            axes = [None] * (len(shape) - len(choice)) + [*choice]
            if shape[axes.index("model")] % size == 0:
                return axes
        place = axes.index("model")
        what = f"dimension {place} of {name}, {shape[place]}"
        check_divides("model", size, what, shape[place], ", or change that width")
    return [None] * len(shape)


def make_layout(
    sizes: Mapping[str, int], fsdp: bool = False, rules: Sequence[Rule] = RULES
) -> Layout:
    """Returns the layout of a mesh over all devices.

    Args:
      sizes: The number of devices along each axis, as `mesh_config.parse` returns it.
      fsdp: See `Layout`.
      rules: See `Layout`.

    Raises:
      InputError: The sizes do not multiply to the number of devices.

    >>> make_layout({"replicas": 1, "data": 2, "model": 1}).sizes
    {'replicas': 1, 'data': 2, 'model': 1}
    """
    devices, product = jax.device_count(), int(np.prod([*sizes.values()]))
    if product != devices:
        advice = (
            f"; JAX_NUM_CPU_DEVICES={product} makes as many of the CPU"
            if jax.default_backend() == "cpu"
            else ""
        )
        raise InputError(
            f"mesh: {as_text(sizes)} is for {product} devices, and there "
            f"{'is' if devices == 1 else 'are'} {devices}{advice}"
        )
    shape = tuple(sizes[axis] for axis in AXES)
    mesh = jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES))
    return Layout(mesh, fsdp, rules)


def sizes_of_processes(replicas: bool) -> dict[str, int]:
    """Returns the sizes of a mesh over the devices of several processes.

    Args:
      replicas: Whether they divide the members of a population, or else a batch.

    Returns:
      The number of devices along each axis; empty where there is one process.
    """
    if not processes.several():
        return {}
    devices = jax.device_count()
    own = (devices, 1, 1) if replicas else (1, devices, 1)
    return dict(zip(AXES, own, strict=True))


def choose_layout(
    sizes: Mapping[str, int],
    fsdp: bool,
    batch: int,
    replicas: bool = False,
    positions: int | None = None,
) -> Layout | None:
    """Returns the layout that flags ask for; None for that of a program without one.

    Args:
      sizes: The sizes of the flag; empty for the default: a population is divided over
        all devices, which needs no layout, and the batch of a single run too if their
        number divides it. Devices of a CPU share its cores, so that a single run has
        one of them, unless there are several processes.
      fsdp: See `Layout`.
      batch: The number of examples of a batch.
      replicas: Whether a population is trained.
      positions: The number of positions of a sequence, if they are divided along `data`
        in place of the examples.

    Raises:
      InputError: The mesh does not fit the devices or the batch, or divides runs and
        there is only one.
    """
    sizes = sizes or sizes_of_processes(replicas and not fsdp)
    if not sizes:
        devices = 1 if replicas else jax.device_count()
        shared = jax.default_backend() == "cpu"
        if not fsdp and (replicas or shared or batch % devices):
            return None
        sizes = dict(zip(AXES, (1, devices, 1), strict=True))
    if fsdp and sizes["data"] == 1:
        raise InputError(
            "fsdp: parameters are divided along the axis data, which has one device; "
            "give mesh=data:N"
        )
    if sizes["replicas"] > 1 and not replicas:
        raise InputError(
            f"mesh: replicas:{sizes['replicas']} divides runs that train together, and "
            "here one run is trained; use data or model"
        )
    if positions is None:
        check_divides("data", sizes["data"], f"the batch of {batch}", batch)
    else:
        what = f"the {positions} positions of a sequence"
        check_divides("data", sizes["data"], what, positions)
    layout = make_layout(sizes, fsdp)._replace(positions=positions is not None)
    return layout if layout.mesh.size > 1 else None


def constrain(layout: Layout | None, batch: Any) -> Any:
    """Returns a batch that is divided along `data`, inside `jax.jit`."""
    if layout is None:
        return batch
    dimension = int(layout.positions)
    return jax.tree.map(lambda leaf: divide_batch(leaf, dimension), batch)
