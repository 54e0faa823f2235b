"""Damage to the files of a run directory, and runs that must notice it."""

import hashlib
import shutil
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from ffnlab import pretrained
from ffnlab.errors import InputError
from ffnlab.finetune.finetuned_model import read_finetuned
from tests.faults import launchers
from tests.faults.processes import Fault
from tests.faults.trials import EXACT, REFUSED, SILENT, TRACEBACK, Trial, Workshop

FLIP, *OTHERS = KINDS = ("flip", "cut", "empty", "directory", "missing")
_READ = ("finetune", "pretrain")  # launchers whose finished runs are read


class Damage(NamedTuple):
    """Damage to a file.

    Attributes:
      path: The path of the file in its run directory.
      kind: One of `KINDS`.
      place: Where: the number of a bit, or of the first byte that is cut off.
    """

    path: str
    kind: str
    place: int = 0

    def apply(self, out: Path) -> None:
        """Damages a file of a run directory."""
        path = out / self.path
        content = bytearray(path.read_bytes())
        path.unlink()
        if self.kind == "directory":
            path.mkdir()
        elif self.kind != "missing":
            if self.kind == "flip":
                content[self.place // 8] ^= 1 << self.place % 8
            end = {"cut": self.place, "empty": 0}.get(self.kind)
            path.write_bytes(content[:end])


def draw(
    out: Path, kinds: tuple[str, ...], count: int, rng: np.random.Generator
) -> list[Damage]:
    """Returns damages, spread over all files of a run directory.

    Args:
      out: The run directory.
      kinds: The kinds of damage.
      count: How many, if it has files.
      rng: Draws the places.
    """
    files = sorted(path for path in out.rglob("*") if path.is_file())
    files = [path for path in files if path.stat().st_size or "flip" not in kinds]
    order = [files[n] for n in rng.permutation(len(files))]
    damages = []
    for number in range(count):
        path = order[number % len(order)]
        kind = kinds[number // len(order) % len(kinds)]
        size = path.stat().st_size * (8 if kind == "flip" else 1)
        place = int(rng.integers(max(size, 1)))
        damages.append(Damage(str(path.relative_to(out)), kind, place))
    return damages


def interrupted(shop: Workshop, name: str, share: float = 0.6) -> Path:
    """Returns a run that was killed after a share of its operations on files."""
    out = shop.place()
    shop.run(name, out, Fault(kill=round(share * shop.whole(name)[1])))
    return out


def resume(shop: Workshop, name: str, state: Path, damage: Damage) -> Trial:
    """Damages a file of an interrupted run, and resumes it."""
    out = shop.place()
    shutil.copytree(state, out)
    damage.apply(out)
    return shop.judge(name, f"{name}, resumed, {damage}", out, shop.resume(name, out))


def is_read(name: str) -> bool:
    """Returns whether something reads the finished runs of a name."""
    return launchers.RUNS[name][0] in _READ


def load(shop: Workshop, name: str, state: Path, damage: Damage, wanted: str) -> Trial:
    """Damages a file of a finished run, and loads its model in this process.

    Args:
      shop: Where the runs are.
      name: The name of the run.
      state: Its directory.
      damage: What happens to a file.
      wanted: The digest of the model.
    """
    out, trial = shop.place(), f"{name}, loaded, {damage}"
    shutil.copytree(state, out)
    damage.apply(out)
    try:
        same = model_digest(name, out) == wanted
        result = Trial(trial, EXACT if same else SILENT, "", not same)
    except InputError as error:
        lines = str(error).count("\n")
        result = Trial(trial, REFUSED, str(error), bool(lines))
    except Exception as error:
        result = Trial(trial, TRACEBACK, f"{type(error).__name__}: {error}", True)
    shutil.rmtree(out)
    return result


def model_digest(name: str, out: Path) -> str:
    """Returns a digest of all that is loaded from a finished run."""
    if launchers.RUNS[name][0] == "finetune":
        models = [read_finetuned(out)]
        if (out / "adapter").exists():
            models.append(read_finetuned(out / "adapter"))
        trees = [(m.params, m.names, m.usage, m.checkpoint.config) for m in models]
        texts = [m.tokenizer.inner.to_str() for m in models]
    else:
        checkpoint = pretrained.load(out / "best", head=True, pooler=False)
        trees, texts = [(checkpoint.params, checkpoint.config)], []
    found = hashlib.sha256("".join(texts).encode())
    for leaf in jax.tree.leaves(trees):
        if isinstance(leaf, jax.Array | np.ndarray):
            found.update(f"{leaf.dtype}{leaf.shape}".encode())
            found.update(np.asarray(leaf).tobytes())
        else:
            found.update(repr(leaf).encode())
    return found.hexdigest()
