"""What is trained: a model with its optimizer, and the arrays that stay frozen."""

from collections.abc import Callable
from typing import Any, NamedTuple

import optax

from ffnlab.train.optimizers import as_optimizer
from ffnlab.types import Gradient, Model, Objective


class _Learner(NamedTuple):
    model: Model
    objective: Objective
    optimizer: optax.GradientTransformation
    gradient: Gradient | None = None
    independent: bool = False


class Learner(_Learner):
    """A model, and what its steps do to it.

    Attributes:
      model: The model; `apply(params, x, key)` takes the key of its dropout last. It
        may have running statistics, `params["stats"]`: they are not trained, and become
        what `apply` returns in `aux["stats"]` (see `ffnlab.nn.statistics`).
      objective: What is minimised and scored: the mean of its score named `loss`.
      optimizer: An optax transformation, for instance of `optimizers.make`; or what
        `optimizers.as_optimizer` takes, such as a function of the learning rate.
      gradient: `gradient(params, batch, key) -> (loss, gradient)`, which the optimizer
        receives; None is the gradient of the objective's mean. `ffnlab.train.gradients`
        and `ffnlab.train.adversarial` have others. With running statistics, another
        pass over the batch computes them.
      independent: Whether the loss of an example does not depend on the others of its
        batch, as it does with batch normalisation. Devices that divide a batch then
        exchange their gradients at once where that is faster.
    """

    __slots__ = ()

    def __new__(
        cls,
        model: Model,
        objective: Objective,
        optimizer: Any,
        gradient: Gradient | None = None,
        independent: bool = False,
    ) -> "Learner":
        optimizer = as_optimizer(optimizer)
        return super().__new__(cls, model, objective, optimizer, gradient, independent)


class Parts(NamedTuple):
    """The parts of a data set that training uses; a `Dataset` has them too.

    Attributes:
      name: What the data is called.
      train: The arrays of the training part, by name.
      valid: The arrays of the validation part, by name.
    """

    name: str
    train: Any
    valid: Any


class Frozen(NamedTuple):
    """A learner of a model with arrays that no step changes.

    They are held once, also by a population, and have no gradient and no moments. The
    arrays of a program are then the pair of these and of what it would have without.

    Attributes:
      arrays: The frozen arrays.
      make: `make(arrays)` returns the learner of the others. It is called again
        wherever a program is traced, with what stands for the arrays there.

    >>> def make(arrays):
    ...     def apply(params, x, key=None):
    ...         return x @ arrays["kernel"] + params["bias"], {}
    ...     model = Model(lambda key: {"bias": 0.0}, apply)
    ...     return Learner(model, None, optax.sgd(0.1))
    >>> Frozen({"kernel": 2.0}, make).learner.model.init(None)
    {'bias': 0.0}
    """

    arrays: Any
    make: Callable[[Any], Learner]

    @property
    def learner(self) -> Learner:
        """The learner with the arrays themselves."""
        return self.make(self.arrays)


def with_frozen(learner: Learner | Frozen, arrays: Any) -> Any:
    """Returns the arrays of a program, together with those that are frozen, if any."""
    return (learner.arrays, arrays) if isinstance(learner, Frozen) else arrays


def bind(learner: Learner | Frozen, arrays: Any) -> tuple[Learner, Any]:
    """Returns the learner and the arrays of a program, given all of its arrays."""
    if isinstance(learner, Learner):
        return learner, arrays
    frozen, rest = arrays
    return learner.make(frozen), rest
