"""Run directories of comparisons, joined to one with the report of all replicates."""

import contextlib
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ffnlab import io
from ffnlab.errors import InputError
from ffnlab.escape import markdown, terminal
from ffnlab.sweep import report_facts, run_files, run_parts
from ffnlab.sweep.report_facts import Facts
from ffnlab.sweep.run_parts import Part

if TYPE_CHECKING:
    from ffnlab.sweep.report import Pictures
    from ffnlab.sweep.results import CompareResult

_TIMES = ("microseconds_per_step", "compile_seconds")
_DIGESTS = ("data.sha256", "models.sha256", "imports.sha256")
_SEVERAL = """Repeat the runs that were joined, of the seeds {seeds}, and join them
again by experiments.judge."""


class _Owner(NamedTuple):
    """A replicate of the result, and the part that it is taken from."""

    part: Part
    number: int  # in the part's comparison
    replicate: int  # in the result


class _Joined(NamedTuple):
    """What all parts hold together: lines, and arrays by folder and job."""

    facts: Facts
    runs: list[dict[str, Any]]
    arrays: dict[tuple[str, str], dict[str, np.ndarray]]


def join(parts: Sequence[Part], out: str | None, config: Any) -> "CompareResult":
    """Joins run directories of comparisons, prints the result, and may write it.

    The report is that of a run of all replicates, and so is the directory, if there is
    one. Replicates of several seeds are numbered anew.

    Args:
      parts: From `run_parts.read`.
      out: The directory of the result; None writes nothing.
      config: The configuration whose flags repeat the judgement.

    Raises:
      InputError: Results are damaged, or those of a replicate differ.
    """
    for part in parts:
        print(terminal(_describe(part)), flush=True)
    for line in run_parts.warnings(parts):
        print(terminal(f"warning: {line}"), file=sys.stderr, flush=True)
    joined = _join(parts)
    with contextlib.ExitStack() as stack:
        place = out or stack.enter_context(tempfile.TemporaryDirectory())
        result = _publish(config, parts, joined, place)
    if out:
        print(f"\n{terminal(f'written to {out}: report.md, results.jsonl, pictures')}")
    return result if out else result._replace(out=None)


def _describe(part: Part) -> str:
    """Returns which replicates a part has, and where it was made."""
    from ffnlab.sweep.shard_report import name_replicates

    which = f"shard {part.shard}" if part.shard else "all"
    numbers = name_replicates(part.numbers)
    return f"{part.path}: seed {part.seed}, {which}, {numbers}; {part.place}"


def _join(parts: Sequence[Part]) -> _Joined:
    """Returns what the parts hold together."""
    lines = [_read_lines(part) for part in parts]
    owners = _find_owners(parts, lines)
    by_part = {id(part): rows for part, rows in zip(parts, lines, strict=True)}
    facts = _join_facts(parts)
    runs: list[dict[str, Any]] = []
    arrays = {}
    for key in facts.keys:
        rows = []
        for owner in owners:
            own = by_part[id(owner.part)].get((*key, owner.number), [])
            rows += [
                (place, {**run, "seed": owner.replicate})
                for place, run in enumerate(own)
            ]
        # A run orders its lines by learning rate, then by replicate.
        rows.sort(key=lambda row: (row[0], row[1]["seed"]))
        runs += [run for _, run in rows]
        slug = run_files.slug_of(*key)
        for folder in ("best", "examples", "spans"):
            if run_files.path_of(parts[0].path, folder, slug).exists():
                arrays[folder, slug] = _join_arrays(owners, folder, slug)
    return _Joined(facts, runs, arrays)


def _read_lines(part: Part) -> dict[tuple[str, str, int], list[dict[str, Any]]]:
    """Returns the lines of a part by task, block and replicate.

    Raises:
      InputError: The file is damaged, or lacks lines.
    """
    from ffnlab.sweep import result_lines

    path = part.path / "results.jsonl"
    lines: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for run in io.read_lines(path, result_lines.NAMES):
        key = run.get("task", ""), run["block"], run["seed"]
        lines.setdefault(key, []).append(run)
    for task, block in part.facts.keys:
        for number in part.numbers:
            if not result_lines.is_complete(
                lines.get((task, block, number), []), [number]
            ):
                name = " ".join(filter(None, (task, block)))
                raise InputError(
                    f"{path}: lines of {name}, replicate {number}, are missing; resume "
                    "the run"
                )
    return lines


def _find_owners(
    parts: Sequence[Part], lines: Sequence[Mapping[Any, list[dict[str, Any]]]]
) -> list[_Owner]:
    """Returns the part of each replicate.

    Raises:
      InputError: Two parts have different lines of a replicate.
    """
    owners: dict[tuple[int, int], tuple[Part, Mapping]] = {}
    for part, own in zip(parts, lines, strict=True):
        for number in part.numbers:
            first, before = owners.setdefault((part.seed, number), (part, own))
            for key in part.facts.keys:
                _check_equal(first, part, before, own, (*key, number))
    ordered = sorted(owners)
    return [
        _Owner(owners[key][0], key[1], replicate)
        for replicate, key in enumerate(ordered)
    ]


def _check_equal(
    first: Part, part: Part, before: Mapping, own: Mapping, key: tuple[str, str, int]
) -> None:
    """Raises if two parts have different lines of a replicate, times excepted."""
    if first is part:
        return
    one, other = (
        [{k: v for k, v in run.items() if k not in _TIMES} for run in lines[key]]
        for lines in (before, own)
    )
    if one != other:
        name = " ".join(filter(None, key[:2]))
        raise InputError(
            f"runs: {first.path} and {part.path} have different results of {name}, "
            f"replicate {key[2]} of seed {part.seed}; leave one of them out"
        )


def _join_arrays(
    owners: Sequence[_Owner], folder: str, slug: str
) -> dict[str, np.ndarray]:
    """Returns the arrays of a job with the rows of all replicates."""
    held = {
        id(owner.part): run_files.read(owner.part.path, folder, slug)
        for owner in {id(owner.part): owner for owner in owners}.values()
    }
    try:
        return {
            name: np.stack(
                [
                    held[id(part)][name][number - part.numbers.start]
                    for part, number, _ in owners
                ]
            )
            for name in held[id(owners[0].part)]
        }
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(
            f"runs: {folder}/{slug}.npz of the directories do not fit together: {error}"
        ) from None


def _join_facts(parts: Sequence[Part]) -> Facts:
    """Returns the facts of all parts; those of the data are of the first seed."""
    first = parts[0].facts
    sizes = {part.seed: part.facts.replicates for part in parts}
    if len(sizes) == 1:
        return first
    total = sum(sizes.values())
    repeat = _SEVERAL.format(seeds=", ".join(map(str, sizes)))
    sources = {
        name: each._replace(
            about=_with_count(each.about, total), marks=_mean_marks(parts, name)
        )
        for name, each in first.sources.items()
    }
    return first._replace(replicates=total, repeat=repeat, sources=sources)


def _mean_marks(parts: Sequence[Part], source: str) -> dict[str, float]:
    """Returns the best possible scores on a data set, as means over all replicates."""
    facts = {part.seed: part.facts for part in parts}.values()
    total = sum(each.replicates for each in facts)
    return {
        name: sum(e.replicates * e.sources[source].marks[name] for e in facts) / total
        for name in parts[0].facts.sources[source].marks
    }


def _with_count(about: dict[str, str], replicates: int) -> dict[str, str]:
    """Returns facts about data with the number of replicates, where they have one."""
    return about | {k: str(replicates) for k in about if k == "replicates"}


def _publish(
    config: Any, parts: Sequence[Part], joined: _Joined, out: str
) -> "CompareResult":
    """Writes the directory of the result, and prints its report."""
    from ffnlab.report import run_directory
    from ffnlab.sweep import comparison_report

    with run_directory.open_run(out, config, None) as directory:
        for (folder, slug), arrays in joined.arrays.items():
            run_files.append(run_files.path_of(directory, folder, slug), arrays, 0)
        io.write_lines(directory / "results.jsonl", joined.runs)
        report = comparison_report.make_report(joined.facts, joined.runs, directory)
        report = report._replace(more=_places(parts))
        _write_origin(directory, parts)
        report_facts.write(directory, joined.facts)
        report.show()
        report.write(directory, _pictures(parts, joined))
        run_directory.finish(directory)
    given = joined.facts, report, joined.runs, directory
    return comparison_report.result(config, *given)


def _pictures(parts: Sequence[Part], joined: _Joined) -> "Pictures":
    """Returns the pictures of a comparison of feedback networks."""
    from ffnlab.sweep import feedback_report

    if joined.facts.feedback is None:
        return {}
    return {  # the first part has the first replicate, which they show
        **feedback_report.read_solver_pictures(parts[0].path),
        **feedback_report.draw_certificates(joined.facts, joined.runs),
    }


def _write_origin(directory: Path, parts: Sequence[Part]) -> None:
    """Writes what the directory of a run of all replicates would hold.

    Parts of several seeds keep the flags of the judgement, which joins them again.
    """
    first = parts[0]
    rows = [
        {
            "directory": str(part.path),
            "seed": part.seed,
            "shard": str(part.shard) if part.shard else None,
            "replicates": [*part.numbers],
            "versions": part.versions,
        }
        for part in parts
    ]
    io.write_lines(directory / "joined.jsonl", rows)
    text = json.dumps(first.versions, indent=2)
    io.write(directory / "versions.json", text + "\n")
    if len({part.seed for part in parts}) > 1:
        return
    flags = io.read(first.path / "flags").splitlines(keepends=True)
    kept = [line for line in flags if not line.startswith("--shard=")]
    io.write(directory / "flags", "".join(kept))
    for name in _DIGESTS:
        if (first.path / name).exists():
            io.write(directory / name, io.read(first.path / name))


def _places(parts: Sequence[Part]) -> str:
    """Returns a section on the machines, in Markdown; empty if all are alike."""
    if all(part.versions == parts[0].versions for part in parts):
        return ""
    lines = []
    for place, same in groupby(parts, key=lambda part: part.place):
        names = ", ".join(part.path.name for part in same)
        lines.append(f"- {markdown(f'{names}: {place}')}")
    return f"""## Where the runs were made

The times in the table are those of the first replicate's machine.

{chr(10).join(lines)}

"""
