"""Scalars and pictures of a run for TensorBoard and Weights & Biases.

    python -m experiments.finetune ... --report_to=tensorboard
    tensorboard --logdir=OUT/tensorboard

The packages are imported when a run begins. A tracker that fails ends no training: a
warning says so, and the run goes on without it.
"""

import contextlib
import dataclasses
import importlib.util
import os
import re
import secrets
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ffnlab import io
from ffnlab.errors import InputError
from ffnlab.escape import terminal
from ffnlab.options import RunOptions, option

if TYPE_CHECKING:
    from ffnlab.train.record import Plan, Record

# The package of each tracker; the extra in setup.cfg has the name of the tracker.
PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}
FOLDERS = tuple(PACKAGES)  # of a run directory, written by the packages alone
_ID = "wandb.id"  # the file of a run's id at Weights & Biases, by which it continues
_FLUSH = 5.0  # seconds between flushes


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrackOptions(RunOptions):
    """Tracking: where else the run is reported to while it goes on."""

    report_to: tuple[str, ...] = option(
        ("none",),
        "Where to report losses, scores, learning rates and pictures to, beside the "
        "run directory: tensorboard (to OUT/tensorboard), wandb or none.",
        known=lambda: (*PACKAGES, "none"),
    )


def require(names: Iterable[str]) -> None:
    """Checks that the packages of trackers are installed, without importing them.

    Args:
      names: Names of `PACKAGES`, or `none` alone.

    Raises:
      InputError: A package is missing, or `none` is not alone.
    """
    names = tuple(names)
    if "none" in names and len(names) > 1:
        raise InputError("report_to: none stands alone; leave it out")
    for name in names:
        package = PACKAGES.get(name, "ffnlab")
        if package not in sys.modules and not importlib.util.find_spec(package):
            raise InputError(
                f"report_to: {name} needs the package {package}, which is not "
                f"installed; pip install -e '.[{name}]' installs it"
            )


class Series(NamedTuple):
    """A curve or several that belong together, such as those of a seed.

    Attributes:
      name: The name; empty for the only one of a run.
      start: The number of steps of the series before it, by which Weights & Biases
        numbers the steps of all series of a run.
    """

    name: str = ""
    start: int = 0


Rows = Mapping[Series, Mapping[str, float]]


class Tracker:
    """Reports a run to any number of services.

    Args:
      services: By name, the services to report to; see `opened`.
    """

    def __init__(self, services: Mapping[str, Any]):
        self._services = dict(services)
        self._flushed = time.monotonic()

    def begin(self, series: Series) -> None:
        """Begins a series; what a service has of it is replaced, or is not repeated."""
        self._each(lambda service: service.begin(series))

    def scalars(self, step: int, rows: Rows) -> None:
        """Reports values after a number of steps.

        Args:
          step: The number of steps.
          rows: By series, values by tag, such as `train/loss`.
        """
        self._each(lambda service: service.scalars(step, rows))

    def flush(self, now: bool = False) -> None:
        """Writes what was reported, if the last time is some seconds ago."""
        if now or time.monotonic() - self._flushed >= _FLUSH:
            self._each(lambda service: service.flush())
            self._flushed = time.monotonic()

    def pictures(self, directory: Path) -> None:
        """Reports the pictures that a run has written to its directory."""
        paths = sorted(directory.glob("*.png"))
        if paths:
            self._each(lambda service: service.pictures(paths))
            self.flush(now=True)

    def close(self) -> None:
        """Ends the run at all services."""
        self._each(lambda service: service.close())

    def _each(self, act: Callable[[Any], None]) -> None:
        """Calls a function for each service; one that fails is left out from then."""
        for name, service in list(self._services.items()):
            try:
                act(service)
            except Exception as error:  # of a package of others: any may come
                del self._services[name]
                _warn(name, error)
                with contextlib.suppress(Exception):
                    service.close()

    def callback(
        self,
        plan: "Plan",
        rates: Sequence[float],
        scores: Mapping[str, str],
        series: Sequence[Series] = (Series(),),
        also: "Callable[[Record], None] | None" = None,
    ) -> "Callable[[Record], None]":
        """Returns a function that reports the record of a run, or of a population.

        The first call reports all steps up to then, those before `--resume` too.

        Args:
          plan: The plan of the run.
          rates: The learning rate of each step.
          scores: The tag of each score of the record that is reported.
          series: The series of each member of a population.
          also: A function to call with each record first.

        Returns:
          A function for `train.Hooks.on_progress`.
        """
        reported = 0

        def on_progress(record: "Record") -> None:
            nonlocal reported
            if also:
                also(record)
            if not self._services:
                return
            if not reported:
                for each in series:
                    self.begin(each)
            step = int(record.step)
            for number in range(reported, step):
                values, rate = _values(record, plan, number, scores), rates[number]
                rows = {
                    each: {"train/learning_rate": float(rate)}
                    | {tag: float(row[member]) for tag, row in values.items()}
                    for member, each in enumerate(series)
                }
                self.scalars(number + 1, rows)
            reported = step
            self.flush(now=step == plan.steps)

        return on_progress


def _values(
    record: "Record", plan: "Plan", number: int, scores: Mapping[str, str]
) -> dict[str, Any]:
    """Returns the loss of a step by its number from 0, and the scores after it.

    Each value is of all members, `[S]`, or of one run, `[1]`.
    """
    values, step = {"train/loss": record.loss[..., number]}, number + 1
    if step % plan.every == 0 or step == plan.steps:
        row = number // plan.every
        values |= {tag: record.scores[name][..., row] for name, tag in scores.items()}
    return {tag: value.reshape(-1) for tag, value in values.items()}


@contextlib.contextmanager
def opened(config: TrackOptions, directory: Path) -> Iterator[Tracker]:
    """Opens the trackers of a run, and closes them when the block ends.

    Args:
      config: The configuration of the run.
      directory: The run directory.

    Yields:
      The tracker of the run.
    """
    services, settings = {}, dataclasses.asdict(config)
    for name in config.report_to:
        if name in _SERVICES:
            try:
                services[name] = _SERVICES[name](directory, settings)
            except Exception as error:  # no network, no account, a full disk
                _warn(name, error)
    tracker = Tracker(services)
    try:
        yield tracker
    finally:
        tracker.close()


def _warn(name: str, error: Exception) -> None:
    """Prints that a service failed."""
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    line = f"warning: report_to: {name}: {reason}; the run goes on without it"
    print(terminal(line), file=sys.stderr, flush=True)


class _TensorBoard:
    """Event files below `tensorboard` of the run directory, a folder for each series.

    tensorboardX's `SummaryWriter` writes in a thread whose errors, such as a full disk,
    block the program; what is below it is called here.
    """

    def __init__(self, directory: Path, _: Mapping[str, Any]):
        self._folder = directory / "tensorboard"
        self._writers: dict[str, Any] = {}

    def begin(self, series: Series) -> None:
        from tensorboardX import event_file_writer
        from tensorboardX.proto import event_pb2

        folder = self._folder / re.sub(r"[^\w.-]", "-", series.name)
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("events.out.tfevents.*"):
            path.unlink()
        writer = event_file_writer.EventsWriter(str(folder / "events"))
        # A TensorBoard that is open discards what it has read of the removed files.
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        writer.write_event(event_pb2.Event(wall_time=time.time(), session_log=start))
        self._writers[series.name] = writer

    def scalars(self, step: int, rows: Rows) -> None:
        from tensorboardX import summary

        for series, values in rows.items():
            for tag, value in values.items():
                self._write(series.name, step, summary.scalar(tag, value))

    def pictures(self, paths: Sequence[Path]) -> None:
        from tensorboardX.proto import summary_pb2

        self.begin(Series("pictures"))
        for path in paths:
            data = path.read_bytes()
            width, height = struct.unpack(">II", data[16:24])  # in the header of a PNG
            image = summary_pb2.Summary.Image(
                height=height, width=width, colorspace=4, encoded_image_string=data
            )
            value = summary_pb2.Summary.Value(tag=path.stem, image=image)
            self._write("pictures", 0, summary_pb2.Summary(value=[value]))

    def _write(self, name: str, step: int, summary: Any) -> None:
        from tensorboardX.proto import event_pb2

        event = event_pb2.Event(wall_time=time.time(), step=step, summary=summary)
        self._writers[name].write_event(event)

    def flush(self) -> None:
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()


class _Wandb:
    """A run at Weights & Biases, which an interrupted run continues."""

    def __init__(self, directory: Path, settings: Mapping[str, Any]):
        import wandb

        path = directory / _ID
        if not path.exists():
            io.write(path, secrets.token_hex(4) + "\n")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "ffnlab"),
            name=os.environ.get("WANDB_NAME", directory.name),
            id=io.read(path).strip(),
            resume="allow",
            dir=str(directory),
            config=dict(settings),
            settings={"console": "off"},
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self._logged = int(self._run.step or 0)  # the first step that it has not

    def begin(self, series: Series) -> None:
        """Does nothing: steps that the run has are passed over."""

    def scalars(self, step: int, rows: Rows) -> None:
        number = min(series.start for series in rows) + step
        if number < self._logged:
            return
        values = {
            f"{series.name}/{tag}".removeprefix("/"): value
            for series, row in rows.items()
            for tag, value in row.items()
        }
        self._run.log({**values, "step": step}, step=number, commit=True)

    def pictures(self, paths: Sequence[Path]) -> None:
        import wandb

        images = {f"pictures/{path.stem}": wandb.Image(str(path)) for path in paths}
        self._run.log(images)

    def flush(self) -> None:
        """Does nothing: each step is sent."""

    def close(self) -> None:
        self._run.finish()


_SERVICES: Mapping[str, Callable[[Path, Mapping[str, Any]], Any]] = {
    "tensorboard": _TensorBoard,
    "wandb": _Wandb,
}
