"""Checkpoints: a tree of arrays, written whole or not at all, and taken up again.

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


class Checkpoints:
    """The checkpoints of one run.

    Args:
      directory: where they are kept; made if it does not exist.
      seconds: the least time between two saves, but a final one is always made.

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

    def claim(self, run: dict[str, Any]) -> None:
        """Says which run these are the checkpoints of, before any is restored.

        Args:
          run: what makes it this run and no other, ready for JSON.

        Raises:
          InputError: they are of a run that differs; what differs is named.
        """
        path, run = self._directory / "run.json", json.loads(json.dumps(run))
        if not path.exists():
            self._directory.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
            return
        held = json.loads(path.read_text(encoding="utf-8"))
        for name in sorted({*held, *run}):
            if held.get(name) != run.get(name):
                raise InputError(
                    f"{self._directory}: the checkpoint is of another run: {name} was "
                    f"{held.get(name)} and is now {run.get(name)}; go on as it was "
                    "started, or name another directory"
                )

    def save(self, step: int, tree: Any, final: bool = False) -> None:
        """Saves a tree of arrays, unless the last save is too recent.

        Args:
          step: the number of steps taken, which names the checkpoint.
          tree: any tree of arrays.
          final: whether this is the end, to be saved however recent the last was.
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
        extra = sorted(found.keys() - trees.flatten(tree).keys())
        if extra:
            raise InputError(
                f"{self._directory}: the checkpoint is of another run: it has "
                f"{extra[0]!r}, which this one has not; start elsewhere"
            )

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
