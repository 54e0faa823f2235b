"""Checkpoints: trees of arrays, saved whole or not at all, and restored bit for bit.

Orbax writes each into a folder of its own and renames it when it is complete, so that
an interrupted write leaves the one before.
"""

import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ffnlab import trees
from ffnlab.errors import InputError
from ffnlab.io import write

# Counted up when programs or the names of what is saved change. Runs saved before it
# was written down may have another program, and moments of frozen arrays.
FORMAT = 2
_TRAINED = "inner_states/train/inner_state/"  # of optax.selective_transform


class Checkpoints:
    """The checkpoints of one run.

    Args:
      directory: The directory that holds them; it is made if it does not exist.
      seconds: The least time between two saves; a final one is always made.

    >>> import tempfile
    >>> tree = {"kernel": np.arange(3.0)}
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     Checkpoints(directory).save(10, tree)
    ...     restored = Checkpoints(directory).restore({"kernel": np.zeros(3)})
    >>> restored["kernel"].tolist()
    [0.0, 1.0, 2.0]
    """

    def __init__(self, directory: str | Path, seconds: float = 0.0):
        self._directory = Path(directory).absolute()
        self._seconds = seconds
        self._saved = -np.inf if not seconds else time.monotonic()

    def check_run(self, run: dict[str, Any]) -> None:
        """Records which run the checkpoints are of, or checks it against the record.

        Args:
          run: What tells the run from others, ready for JSON.

        Raises:
          InputError: They are of another run; the first difference is named.
        """
        path = self._directory / "run.json"
        run = json.loads(json.dumps({**run, "format": FORMAT}))
        if not path.exists():
            self._directory.mkdir(parents=True, exist_ok=True)
            write(path, json.dumps(run, indent=2) + "\n")
            return
        held = json.loads(path.read_text(encoding="utf-8"))
        if "format" not in held:  # its program was compiled from older code
            held |= {"format": FORMAT, "program": run.get("program")}
        for name in sorted({*held, *run}):
            if held.get(name) != run.get(name):
                raise InputError(
                    f"{self._directory}: the checkpoint is of another run: {name} was "
                    f"{held.get(name)} and is now {run.get(name)}; continue with the "
                    "flags that the run was started with, or name another directory"
                )

    def save(self, step: int, tree: Any, final: bool = False) -> None:
        """Saves a tree of arrays, unless the last save is too recent.

        Args:
          step: The number of steps taken, which names the checkpoint.
          tree: Any tree of arrays.
          final: Whether to save however recent the last save was.
        """
        if not final and time.monotonic() - self._saved < self._seconds:
            return
        import orbax.checkpoint as ocp  # seconds to import, and few runs save

        # Copied: a donated step takes over the memory that a view would show.
        leaves = {name: np.array(leaf) for name, leaf in trees.flatten(tree).items()}
        with self._manager() as manager:
            manager.save(step, args=ocp.args.StandardSave(leaves))
        self._saved = time.monotonic()

    def restore(self, tree: Any) -> Any:
        """Returns the newest checkpoint, or the given tree if there is none.

        Args:
          tree: A tree of the structure, shapes, dtypes and placement to restore.

        Raises:
          InputError: The checkpoint holds other names, shapes or dtypes.
        """
        if not self._directory.is_dir():
            return tree
        with self._manager() as manager:
            step = manager.latest_step()
            if step is None:
                return tree
            import orbax.checkpoint as ocp

            leaves = manager.restore(step, args=ocp.args.StandardRestore())
        return self._fill(tree, _without_frozen_moments(leaves, trees.flatten(tree)))

    def _manager(self) -> Any:
        import orbax.checkpoint as ocp

        options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True)
        return ocp.CheckpointManager(self._directory, options=options)

    def _fill(self, tree: Any, leaves: dict[str, np.ndarray]) -> Any:
        """Returns a tree with the arrays of a checkpoint in place of its own."""
        extra = sorted(leaves.keys() - trees.flatten(tree).keys())
        if extra:
            raise InputError(
                f"{self._directory}: the checkpoint is of another run: it has "
                f"{extra[0]!r}, which this run has not; name another directory"
            )

        def place(name: str, leaf: Any) -> Any:
            array = leaves.get(name)
            expected = (np.shape(leaf), np.dtype(leaf.dtype))
            if array is None or (array.shape, array.dtype) != expected:
                held = "missing" if array is None else f"{array.dtype}{[*array.shape]}"
                raise InputError(
                    f"{self._directory}: the checkpoint is of another run: {name!r} "
                    f"should be {leaf.dtype}{[*np.shape(leaf)]} and is {held}; "
                    "resume with the flags that the run was started with, or name "
                    "another directory"
                )
            if isinstance(leaf, jax.Array):
                return jax.device_put(array, leaf.sharding)
            return np.asarray(array)

        return jax.tree.map(place, trees.names(tree), tree)


def _without_frozen_moments(
    leaves: dict[str, np.ndarray], wanted: dict[str, Any]
) -> dict[str, np.ndarray]:
    """Returns a checkpoint under today's names of the optimizer's state.

    Optimizers had moments for frozen arrays too, until `optax.selective_transform` gave
    the state of trained arrays a name of its own; the former are dropped.
    """
    today = {name.replace(_TRAINED, ""): name for name in wanted if _TRAINED in name}
    if not today or today.values() & leaves.keys():
        return leaves
    inside = {name.partition(_TRAINED)[0] for name in today.values()}
    kept = {today.get(name, name): array for name, array in leaves.items()}
    return {
        name: array
        for name, array in kept.items()
        if name in wanted or not any(name.startswith(prefix) for prefix in inside)
    }
