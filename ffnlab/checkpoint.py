"""Checkpoints: a tree of arrays, written whole or not at all, and taken up again.

Orbax writes each into a folder of its own and renames it when it is complete, so that
an interrupted write leaves the one before.
"""

import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ffnlab import trees
from ffnlab.errors import InputError


class Checkpoints:
    """The checkpoints of one run.

    Args:
      directory: where they are kept; made if it does not exist.
      seconds: the least time between two saves, but the last step's is always saved.
      last: the step after which no other follows.

    >>> import tempfile
    >>> tree = {"kernel": np.arange(3.0)}
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     Checkpoints(directory).save(10, tree)
    ...     restored = Checkpoints(directory).restore({"kernel": np.zeros(3)})
    >>> restored["kernel"].tolist()
    [0.0, 1.0, 2.0]
    """

    def __init__(self, directory: str | Path, seconds: float = 0.0, last: int = -1):
        self._directory = Path(directory).absolute()
        self._seconds, self._last = seconds, last
        self._saved = -np.inf if not seconds else time.monotonic()

    def save(self, step: int, tree: Any) -> None:
        """Saves a tree of arrays, unless the last save is too recent.

        Args:
          step: the number of steps taken, which names the checkpoint.
          tree: any tree of arrays.
        """
        if step != self._last and time.monotonic() - self._saved < self._seconds:
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
          tree: a tree of the structure, shapes, dtypes and placement to restore.

        Raises:
          InputError: the checkpoint holds other names, shapes or dtypes.
        """
        if not self._directory.is_dir():
            return tree
        with self._manager() as manager:
            step = manager.latest_step()
            if step is None:
                return tree
            import orbax.checkpoint as ocp

            found = manager.restore(step, args=ocp.args.StandardRestore())
        return self._fill(tree, found)

    def _manager(self) -> Any:
        import orbax.checkpoint as ocp

        options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True)
        return ocp.CheckpointManager(self._directory, options=options)

    def _fill(self, tree: Any, found: dict[str, np.ndarray]) -> Any:
        def place(name: str, leaf: Any) -> Any:
            array = found.get(name)
            expected = (np.shape(leaf), np.dtype(leaf.dtype))
            if array is None or (array.shape, array.dtype) != expected:
                held = "nothing" if array is None else f"{array.dtype}{[*array.shape]}"
                raise InputError(
                    f"{self._directory}: the checkpoint is of another run: {name!r} "
                    f"should be {leaf.dtype}{[*np.shape(leaf)]} and is {held}; "
                    "resume with the flags it was started with, or start elsewhere"
                )
            if isinstance(leaf, jax.Array):
                return jax.device_put(array, leaf.sharding)
            return np.asarray(array)

        return jax.tree.map(place, trees.names(tree), tree)
