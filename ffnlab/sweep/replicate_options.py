"""How the runs of a model differ, as flags that comparisons share."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ffnlab import processes
from ffnlab.errors import InputError
from ffnlab.options import option
from ffnlab.sweep.design import Design
from ffnlab.train.config import Training
from ffnlab.train.mesh_config import MeshOptions

if TYPE_CHECKING:
    from ffnlab.sweep.job import Job
    from ffnlab.train.sharding import Layout


@dataclasses.dataclass(frozen=True)
class ReplicateOptions(Training, MeshOptions):
    """Design: how the runs of a model differ."""

    # What a flag file of an earlier version, without the flag, stands for.
    ADDED: ClassVar[dict[str, str]] = {"split": "fixed", "extend_rates": "3"}

    split: str = option(
        "replicates",
        "replicates splits or draws the data anew for each run, and every run has the "
        "learning rate that its own validation part chose; fixed gives all runs of a "
        "model the same data and the same learning rate.",
        known=lambda: ("replicates", "fixed"),
    )
    extend_rates: int = option(
        3,
        "Largest number of learning rates that are tried beyond the given ones, for a "
        "run whose best rate is the smallest or the largest.",
        least=0,
    )
    margin: float | None = option(
        None,
        "Largest difference that does not matter, in the unit of the table. The "
        "default is 0.5 points of accuracy, 0.01 bits or 1 % of the baseline's loss.",
        above=0,
    )

    def __post_init__(self):
        super().__post_init__()
        if self.split == "fixed" and self.extend_rates not in (0, 3):
            raise InputError(
                f"extend_rates={self.extend_rates} needs split=replicates; with "
                "split=fixed all runs of a model share one of the given rates"
            )

    @property
    def replicates(self) -> int:
        """The largest number of replicates of a model."""
        return self.seeds

    def doubts(self, names: Sequence[str]) -> list[str]:
        """Returns why nothing can be claimed, as far as it is known before training.

        Args:
          names: What is compared.
        """
        from ffnlab import stats

        least = stats.least_replicates()
        if len(names) < 2:
            return [f"{names[0]} is alone, so there is nothing to compare"]
        if self.replicates < least:
            return [
                f"with {self.replicates} replicates nothing can be claimed: a claim "
                f"needs at least {least}"
            ]
        return []

    @property
    def design(self) -> Design:
        """What the runs of a model have in common."""
        fixed = self.split == "fixed"
        return Design(fixed, 0 if fixed else self.extend_rates)

    def layout(self, batch: int | None = None, dataset: Any = None) -> "Layout | None":
        """Returns how a population is divided over devices; see `choose_layout`.

        Args:
          batch: The number of examples of a batch; `batch_size` if None.
          dataset: The data set, whose positions may be divided.

        Raises:
          InputError: The mesh does not fit the devices or the batch.
        """
        if not self.mesh and not self.fsdp and not processes.several():
            return None
        from ffnlab.train.sharding import choose_layout

        batch = self.batch_size if batch is None else batch
        length = self.divided_positions(dataset)
        return choose_layout(self.mesh_sizes, self.fsdp, batch, True, length)

    def check_mesh(self, jobs: "Iterable[Job]") -> None:
        """Raises unless the mesh fits the devices, the batch and the models.

        Args:
          jobs: The populations to train; their arrays are divided along `model`.

        Raises:
          InputError: It does not; the first model that it does not fit is named.
        """
        for job in jobs:
            layout = self.layout(dataset=job.dataset)
            if layout is None:
                return
            try:
                layout.check(job.model.init)
            except InputError as error:
                raise InputError(
                    f"{error} ({' '.join(filter(None, job.key))})"
                ) from None

    def divided_positions(self, dataset: Any) -> int | None:
        """Returns the number of positions that are divided; None for none."""
        return None
