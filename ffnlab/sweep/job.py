"""What a sweep trains: a named model on a data set."""

from typing import TYPE_CHECKING, Any, NamedTuple

from ffnlab.sweep.design import Design

if TYPE_CHECKING:
    from ffnlab.data import Dataset, Replicates
    from ffnlab.types import Model, Objective


class Job(NamedTuple):
    """A population to train.

    Attributes:
      name: What is compared.
      model: The model, as pure functions.
      dataset: What it is trained and scored on; with replicates, each run has its own.
      facts: What all its lines in results.jsonl hold; `block` is the name, and `task`
        is what differs between jobs of one name.
      optimizer: An optimizer of the caller's own, as `Learner` takes it; None is the
        one of the configuration.
    """

    name: str
    model: "Model"
    dataset: "Dataset | Replicates"
    facts: dict[str, Any]
    optimizer: Any = None

    @property
    def key(self) -> tuple[str, str]:
        """Its task and its name, which no other job has both of."""
        return self.facts.get("task", ""), self.name

    def scores_examples(self, design: Design) -> bool:
        """Returns whether the score on each example of a shared test part is kept."""
        from ffnlab.data import Replicates

        return not design.fixed and not isinstance(self.dataset, Replicates)

    @property
    def slug(self) -> str:
        """Its name as part of a path."""
        from ffnlab.sweep.run_files import slug_of

        return slug_of(*self.key)

    @property
    def first(self) -> "Dataset":
        """The data set of the first run."""
        from ffnlab.data import Replicates

        replicated = isinstance(self.dataset, Replicates)
        return self.dataset.dataset(0) if replicated else self.dataset

    @property
    def objective(self) -> "Objective":
        """What it is trained and scored by."""
        from ffnlab.train.objectives import OBJECTIVES

        return OBJECTIVES[self.dataset.task]
