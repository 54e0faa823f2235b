"""Fine-tuning of few parameters: a task's model in a part that trains and a frozen one.

`prepare` splits the model by the method of the flags, `make_learner` trains the first
part beside the second, and `save` and `load` write and read the adapter alone.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from ffnlab import adapt, trees
from ffnlab.adapt import adalora
from ffnlab.adapt.files import ARRAYS
from ffnlab.adapt.methods import AdaLoRA, Method
from ffnlab.adapt.surgery import Summary, overlay, partition
from ffnlab.errors import InputError
from ffnlab.finetune.adapt_options import with_flags
from ffnlab.nn.precision import cast
from ffnlab.train.layerwise import scale_by_layer
from ffnlab.train.learner import Frozen, Learner
from ffnlab.types import Model, Params

if TYPE_CHECKING:
    import optax

    from ffnlab.finetune.config import Config

FOLDER = "adapter"


class Adaptation(NamedTuple):
    """A model of which few parameters train.

    Attributes:
      methods: The methods.
      model: The whole model; `init` returns the parameters of the checkpoint, with a
        new head.
      frozen: The arrays that do not train, on the device.
      whole: The same in float32.
      summary: How much trains.
    """

    methods: tuple[Method, ...]
    model: Model
    frozen: Params
    whole: Params
    summary: Summary

    def join(self, trainable: Params, frozen: Params | None = None) -> Params:
        """Returns parameters of the whole model, with their adapters."""
        frozen = self.frozen if frozen is None else frozen
        return adapt.join(trainable, frozen, self.methods)

    def init(self, key: jax.Array) -> Params:
        """Returns the part that trains, before training."""
        return adapt.init(self.model.init(key), self.methods, key=key)

    @property
    def adalora(self) -> AdaLoRA | None:
        """The AdaLoRA among the methods, whose ranks fall in training."""
        return next((m for m in self.methods if isinstance(m, AdaLoRA)), None)


def prepare(config: "Config", model: Model, steps: int) -> Adaptation | None:
    """Returns the model in two parts, or None where everything trains.

    Args:
      config: The flags.
      model: The model; `init` returns the parameters of the checkpoint, with a new
        head.
      steps: The number of training steps, by which AdaLoRA plans its ranks.

    Raises:
      InputError: A pattern matches no layer, a rank is above a width, or the steps are
        too few for AdaLoRA.
    """
    methods = config.adapt_methods(steps)
    if methods is None:
        return None
    params = model.init(jax.random.key(config.seed))
    try:
        trainable, frozen, _ = adapt.apply(params, methods, model)
    except InputError as error:
        raise InputError(with_flags(str(error))) from None
    narrow = frozen if config.dtype == "float32" else cast(frozen, config.dtype)
    summary = adapt.summary(trainable, frozen)
    return Adaptation(methods, model, jax.device_put(narrow), frozen, summary)


def make_learner(
    adaptation: Adaptation,
    learner_of: Callable[[Model], Learner],
) -> Frozen:
    """Returns what trains, beside what is frozen.

    Args:
      adaptation: From `prepare`.
      learner_of: Returns the learner of a model whose parameters are those that train.
    """

    def make(frozen: Params) -> Learner:
        def apply(trainable: Params, *inputs: Any, **options: Any) -> Any:
            joined = adaptation.join(trainable, frozen)
            return adaptation.model.apply(joined, *inputs, **options)

        return learner_of(Model(adaptation.init, apply))

    return Frozen(adaptation.frozen, make)


def adapted_optimizer(
    adaptation: Adaptation, optimizer: "optax.GradientTransformation"
) -> "optax.GradientTransformation":
    """Returns an optimizer with the learning rates and the pruning of the methods."""
    shapes = jax.eval_shape(adaptation.init, jax.random.key(0))
    rates = adapt.rates(shapes, adaptation.methods)
    if any(rate != 1.0 for rate in jax.tree.leaves(rates)):
        optimizer = scale_by_layer(optimizer, rates)
    if adaptation.adalora:
        optimizer = adalora.pruned(optimizer, adaptation.adalora)
    return optimizer


def penalty(adaptation: Adaptation) -> Callable[[Params], jax.Array] | None:
    """Returns what a method adds to the loss, or None."""
    config = adaptation.adalora
    if config is None or not config.orthogonality:
        return None
    return lambda trainable: adalora.orthogonality_loss(config, trainable)


def mergeable(methods: tuple[Method, ...]) -> bool:
    """Returns whether a model of these methods is one of the plain kind after merging.

    >>> mergeable(adapt.parse("lora+bitfit")), mergeable(adapt.parse("houlsby"))
    (True, False)
    """
    stays = (adapt.Bottleneck, adapt.Prefix, adapt.Prompt)
    return not any(isinstance(method, stays) for method in methods)


def plain(adaptation: Adaptation, trainable: Params) -> Params:
    """Returns parameters of the plain model.

    Adapters are merged if all of them can be. Otherwise they are left out, and the
    model needs them beside these parameters.
    """
    if mergeable(adaptation.methods):
        return adapt.merge(trainable, adaptation.whole, adaptation.methods)
    own, _ = partition(trainable)
    return trees.unflatten(overlay(trees.flatten(adaptation.whole), own, {}))


def save(
    adaptation: Adaptation,
    trainable: Params,
    folder: Path,
    base: Params,
    about: Mapping[str, Any],
) -> None:
    """Writes the adapter alone, with the head and how it is used.

    Args:
      adaptation: The adaptation.
      trainable: The part that was trained.
      folder: The directory; what it holds is replaced.
      base: The parameters of the base, with its whole vocabulary; shapes suffice.
      about: How the adapter is used.
    """
    methods = adaptation.methods
    if any(isinstance(m, adapt.Prefix) and m.projection for m in methods):
        trainable, methods = adapt.fold(trainable, methods)
    shutil.rmtree(folder, ignore_errors=True)
    adapt.save(folder, trainable, methods, base, about=about)


def size(folder: Path) -> int:
    """Returns the bytes of the arrays of a saved adapter."""
    return (folder / ARRAYS).stat().st_size
