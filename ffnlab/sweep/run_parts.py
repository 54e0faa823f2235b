"""Run directories of comparisons that are parts of one: found, read and checked.

Parts of one comparison have the same flags but for the shard, or for the seed. Nothing
here imports JAX, so that directories that do not belong together are refused at once.
"""

import glob
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from ffnlab import io
from ffnlab.errors import InputError
from ffnlab.report.run_directory import is_finished
from ffnlab.sweep import report_facts
from ffnlab.sweep.report_facts import Facts
from ffnlab.sweep.shards import Shard, parse

_WILD = re.compile(r"[*?\[]")
# Files that all parts must share, and those that parts of one seed must share too.
_CODE, _DATA = ("imports.sha256", "models.sha256"), "data.sha256"
_OF_A_PLACE = ("python", "machine", "devices")
# Flags that tell a run of a launcher from those of others.
_LAUNCHERS = {
    "compare": ("blocks", "budget"),
    "feedback": ("couplings", "coupling_init"),
}
_KNOWN = " or ".join(f"experiments.{name}" for name in _LAUNCHERS)


class Part(NamedTuple):
    """A finished run directory of a comparison.

    Attributes:
      path: The directory.
      flags: Its flags by name.
      facts: What its report is made from.
      shard: Which of the replicates it has; None is all.
      versions: What is in its versions.json.
    """

    path: Path
    flags: dict[str, str]
    facts: Facts
    shard: Shard | None
    versions: dict[str, Any]

    @property
    def seed(self) -> int:
        """The seed of the comparison."""
        return self.facts.seed

    @property
    def numbers(self) -> range:
        """The numbers of its replicates."""
        replicates = self.facts.replicates
        return self.shard.numbers(replicates) if self.shard else range(replicates)

    @property
    def launcher(self) -> str:
        """The launcher that made it."""
        return launcher_of(self.flags)

    @property
    def is_from_python(self) -> bool:
        """Whether its models were given by a call of `compare`."""
        return "candidates" in self.flags

    @property
    def place(self) -> str:
        """The machine and the versions that it was made with."""
        devices = self.versions.get("devices", [])
        kinds = (f"{len([*same])} × {kind}" for kind, same in groupby(devices))
        packages = ("python", "jax", "ffnlab")
        known = [f"{name} {self.versions.get(name, '?')}" for name in packages]
        return ", ".join([str(self.versions.get("machine", "?")), *kinds, *known])


def find(patterns: Sequence[str], out: str | None = None) -> list[Path]:
    """Returns the directories that patterns name, without the one of the result.

    Args:
      patterns: Directories, or patterns with `*`, `?` and `[...]` for several.
      out: The directory of the result.

    Raises:
      InputError: A pattern names no directory.
    """
    paths: list[Path] = []
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if path.exists() or not _WILD.search(pattern):
            found = [path]
        else:
            names = sorted(glob.glob(str(path)), key=_natural)
            found = [each for each in map(Path, names) if each.is_dir()]
            found = [each for each in found if not out or not _is_same(each, Path(out))]
        if not found:
            raise InputError(f"runs: no directory matches {pattern!r}")
        for each in found:
            if not each.is_dir():
                what = "is a file" if each.exists() else "does not exist"
                raise InputError(f"runs: {each} {what}; name run directories")
        paths += found
    return list(dict.fromkeys(paths))


def _natural(name: str) -> list[tuple[int, str]]:
    """Returns a key that sorts numbers in names by value."""
    parts = re.findall(r"\d+|\D+", name)
    return [(int(part) if part.isdecimal() else -1, part) for part in parts]


def _is_same(one: Path, other: Path) -> bool:
    return other.exists() and one.samefile(other)


def read(paths: Sequence[Path]) -> list[Part]:
    """Returns run directories by seed and replicate, after a check of each and of all.

    Args:
      paths: The directories.

    Raises:
      InputError: One is not a finished run of a comparison, or they are not parts of
        one comparison, or a replicate is in none of them.
    """
    parts = [_read_part(path) for path in paths]
    first = parts[0]
    for part in parts[1:]:
        _check_flags(first, part)
        if first.versions == part.versions or not part.is_from_python:
            for name in _CODE:
                _check_file(first, part, name)
    parts.sort(key=lambda part: (part.seed, part.numbers.start, -part.numbers.stop))
    for _, same in groupby(parts, key=lambda part: part.seed):
        _check_seed([*same])
    return parts


def _read_part(path: Path) -> Part:
    """Returns one directory."""
    if not (path / "flags").is_file():
        raise InputError(f"runs: {path} holds no run; name directories of {_KNOWN}")
    lines = io.read(path / "flags").splitlines()
    flags = {
        name.removeprefix("--"): value
        for name, _, value in (line.partition("=") for line in lines)
    }
    if not launcher_of(flags):
        raise InputError(
            f"runs: {path} holds a run of another launcher; runs of {_KNOWN} can be "
            "joined"
        )
    way = _to_resume(path, flags)
    if not is_finished(path):
        raise InputError(f"runs: {path} is not finished; to continue it: {way}")
    if flags.get("until") == "decided" or flags.get("split") == "fixed":
        which = "until=decided" if flags.get("until") == "decided" else "split=fixed"
        raise InputError(
            f"runs: {path} has {which}, whose claims depend on all of its own "
            "replicates; such runs cannot be joined"
        )
    if not (path / report_facts.NAME).exists():
        raise InputError(
            f"runs: {path} is of an earlier version, without {report_facts.NAME}; to "
            f"add it: {way}"
        )
    try:
        versions = json.loads(io.read(path / "versions.json"))
    except json.JSONDecodeError:
        versions = None
    if not isinstance(versions, dict):
        raise InputError(f"runs: {path}/versions.json: it is damaged; restore it")
    shard = parse(flags["shard"]) if "shard" in flags else None
    return Part(path, flags, report_facts.read(path), shard, versions)


def launcher_of(flags: Mapping[str, str]) -> str:
    """Returns the launcher of a run by its flags; empty if its runs are not joined.

    >>> launcher_of({"blocks": "mlp", "budget": "flops"})
    'compare'
    """
    names = (name for name, own in _LAUNCHERS.items() if all(f in flags for f in own))
    return next(names, "")


def _to_resume(path: Path, flags: dict[str, str]) -> str:
    """Returns what resumes a run."""
    if "candidates" in flags:
        return "the same call of compare with resume=True"
    words = [f"--flagfile={path}/flags", f"--out={path}", "--resume"]
    return f"python -m experiments.{launcher_of(flags)} {shlex.join(words)}"


def _check_flags(first: Part, part: Part) -> None:
    """Raises if a flag differs that makes two comparisons different ones."""
    if first.launcher != part.launcher:
        each = (f"{p.path} is a run of experiments.{p.launcher}" for p in (first, part))
        raise InputError(f"runs: {' and '.join(each)}; join those of one launcher")
    free = {"shard", "seed", *(["seeds"] if first.seed != part.seed else [])}
    names = dict.fromkeys([*first.flags, *part.flags])
    for name in names:
        one, other = first.flags.get(name), part.flags.get(name)
        if one != other and name not in free:
            values = (f"{p.path} has {_given(p.flags, name)}" for p in (first, part))
            raise InputError(
                f"runs: {' and '.join(values)}; runs that are joined differ in shard "
                "or seed alone"
            )


def _given(flags: dict[str, str], name: str) -> str:
    return f"{name}={flags[name]}" if name in flags else f"no {name}"


def _check_file(first: Part, part: Part, name: str) -> None:
    """Raises if a file of digests differs."""
    texts = [_text(each.path / name) for each in (first, part)]
    if texts[0] != texts[1]:
        what = {_DATA: "data", "models.sha256": "models"}.get(name, "imported code")
        raise InputError(
            f"runs: the {what} of {first.path} and of {part.path} differ, by {name}; "
            "they are not parts of one comparison"
        )


def _text(path: Path) -> str:
    return io.read(path) if path.exists() else ""


def _check_seed(parts: Sequence[Part]) -> None:
    """Raises if parts of one seed have different data, or lack a replicate."""
    first = parts[0]
    for part in parts[1:]:
        _check_flags(first, part)
        _check_file(first, part, _DATA)
    held = {number for part in parts for number in part.numbers}
    missing = [n for n in range(first.facts.replicates) if n not in held]
    if not missing:
        return
    count = max(part.shard.count for part in parts if part.shard)
    shards = [Shard(i, count) for i in range(1, count + 1)]
    wanted = [
        str(shard)
        for shard in shards
        if set(shard.numbers(first.facts.replicates)) & set(missing)
    ]
    shown = ", ".join(map(str, missing[:10])) + (", …" if len(missing) > 10 else "")
    flags = shlex.quote(f"--flagfile={first.path}/flags")
    run = f"python -m experiments.{first.launcher} {flags} --shard="
    if first.is_from_python:
        run = "the same call of compare with shard="
    more = f" (also {', '.join(wanted[1:])})" if wanted[1:] else ""
    where = "" if first.is_from_python else " --out=DIRECTORY"
    raise InputError(
        f"runs: replicates {shown} of seed {first.seed} are missing; to run them: "
        f"{run}{wanted[0]}{where}{more}"
    )


def warnings(parts: Sequence[Part]) -> list[str]:
    """Returns what differs between the software of parts, a line for each part."""
    first, lines = parts[0], []
    for part in parts[1:]:
        differing = [
            f"{name} {part.versions.get(name)}, not {first.versions.get(name)}"
            for name in dict.fromkeys([*first.versions, *part.versions])
            if name not in _OF_A_PLACE[1:]
            and part.versions.get(name) != first.versions.get(name)
        ]
        if differing:
            lines.append(
                f"{part.path} has {'; '.join(differing)} as {first.path}; its numbers "
                "may differ for that reason alone"
            )
    return lines
