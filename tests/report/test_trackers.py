"""What TensorBoard and Weights & Biases receive of a run."""

import struct
import sys
import types

import numpy as np
import pytest
from matplotlib.figure import Figure

from ffnlab.errors import InputError
from ffnlab.report import plots, trackers
from ffnlab.report.trackers import Series, TrackOptions
from ffnlab.train.record import Plan, Record

PLAN = Plan(steps=6, every=2, batch=1, monitor="f1", higher_is_better=True)
RATES = np.linspace(1.0, 0.5, 6)
TAGS = {"f1": "dev/F1"}


def record(step, members=None):
    """The record of a run after some steps; losses 10, 11, …, scores 0, 1, …"""
    shape = () if members is None else (members,)
    loss = np.full((*shape, 6), np.nan, np.float32)
    loss[..., :step] = np.arange(10, 10 + step)
    score = np.full((*shape, 3), np.nan, np.float32)
    score[..., : step // 2] = np.arange(step // 2)
    if members:
        loss += 100 * np.arange(members)[:, None]
    zero = np.zeros(shape, np.int32)
    return Record(np.asarray(step), loss, {"f1": score}, zero, zero, zero, zero - 1)


def events(folder):
    """The tags, steps and values in the event files of a folder."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    read = []
    for path in sorted(folder.glob("events*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            read += [(v.tag, event.step, v) for v in event.summary.value]
    return read


def track(directory, steps, report_to=("tensorboard",), series=None, members=None):
    """Reports the records after some numbers of steps, as a training does."""
    config = TrackOptions(report_to=report_to)
    with trackers.opened(config, directory) as tracker:
        given = {} if series is None else {"series": series}
        report = tracker.callback(PLAN, RATES, TAGS, **given)
        for step in steps:
            report(record(step, members))


def scalars(folder):
    """The scalars in a folder by tag and step, none of which is there twice."""
    read = events(folder)
    by_place = {(tag, step): value.simple_value for tag, step, value in read}
    assert len(by_place) == len(read)
    return by_place


def expected(shift=0.0):
    """The scalars of a whole run."""
    losses = {("train/loss", n): 9.0 + n + shift for n in range(1, 7)}
    rates = {("train/learning_rate", n + 1): rate for n, rate in enumerate(RATES)}
    scores = {("dev/F1", step): step // 2 - 1 for step in (2, 4, 6)}
    return losses | rates | scores


def test_tensorboard_has_each_value_once(tmp_path):
    pytest.importorskip("tensorboardX")
    track(tmp_path, [1, 2, 4, 6])
    assert scalars(tmp_path / "tensorboard") == pytest.approx(expected())


def test_a_resumed_run_repeats_no_step(tmp_path):
    """It was killed after step 4, and its last checkpoint is that of step 3."""
    pytest.importorskip("tensorboardX")
    track(tmp_path, [2, 3, 4])
    (events_file,) = (tmp_path / "tensorboard").iterdir()
    events_file.rename(events_file.with_name("events.out.tfevents.1.host"))
    track(tmp_path, [5, 6])
    assert scalars(tmp_path / "tensorboard") == pytest.approx(expected())


def test_a_population_has_a_series_per_member(tmp_path):
    pytest.importorskip("tensorboardX")
    names = [Series("seed 0"), Series("mlp:relu", 6)]  # one more member fills a device
    track(tmp_path, [4, 6], series=names, members=3)
    for name, shift in (("seed-0", 0.0), ("mlp-relu", 100.0)):
        found = scalars(tmp_path / "tensorboard" / name)
        assert found == pytest.approx(expected(shift))


def test_tensorboard_has_the_pictures(tmp_path):
    pytest.importorskip("tensorboardX")
    plots.save(Figure(figsize=(2, 1)), tmp_path / "types.png")
    for _ in range(2):  # as a run that is resumed after its training
        with trackers.opened(TrackOptions(report_to="tensorboard"), tmp_path) as one:
            one.pictures(tmp_path)
    ((tag, _, value),) = events(tmp_path / "tensorboard" / "pictures")
    assert (tag, value.image.width, value.image.height) == ("types", 300, 150)
    data = value.image.encoded_image_string
    assert data == (tmp_path / "types.png").read_bytes()


class FullDisk:
    """A service whose every write fails."""

    def __getattr__(self, name):
        raise OSError(28, "No space left on device")


def test_a_failure_is_one_warning(tmp_path, capfd):
    one = trackers.Tracker({"tensorboard": FullDisk()})
    report = one.callback(PLAN, RATES, TAGS)
    for step in (2, 4, 6):
        report(record(step))
    one.pictures(tmp_path)
    one.close()
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("warning: report_to: tensorboard: ") and "No space" in line


def test_a_place_that_cannot_be_written_is_one_warning(tmp_path, capfd):
    pytest.importorskip("tensorboardX")
    (tmp_path / "tensorboard").write_text("a file")
    track(tmp_path, [2, 4, 6])
    assert capfd.readouterr().err.count("warning: ") == 1


@pytest.fixture
def wandb(monkeypatch):
    """A module in place of wandb, which keeps what it receives."""
    fake = types.ModuleType("wandb")
    fake.rows, fake.started, fake.first = [], [], 0

    def init(**options):
        fake.started.append(options)
        run = types.SimpleNamespace(step=fake.first, define_metric=lambda *_, **__: 0)
        run.log = lambda values, **place: fake.rows.append((values, place))
        run.finish = lambda: fake.started.append("finished")
        return run

    fake.init, fake.Image = init, lambda path: ("image", path)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_wandb_receives_a_row_per_step(tmp_path, wandb):
    track(tmp_path, [1, 4, 6], ("wandb",))
    assert [place["step"] for _, place in wandb.rows] == [1, 2, 3, 4, 5, 6]
    assert wandb.rows[3][0] == {
        "train/loss": 13.0,
        "train/learning_rate": RATES[3],
        "dev/F1": 1.0,
        "step": 4,
    }
    options, end = wandb.started
    assert (options["name"], options["project"]) == (tmp_path.name, "ffnlab")
    assert options["config"]["report_to"] == ("wandb",) and end == "finished"


def test_wandb_receives_a_row_per_step_of_a_population(tmp_path, wandb):
    names = [Series("seed 0"), Series("seed 1", 6)]
    track(tmp_path, [4, 6], ("wandb",), names, members=2)
    assert [place["step"] for _, place in wandb.rows] == [1, 2, 3, 4, 5, 6]
    row = wandb.rows[1][0]
    assert row["seed 0/train/loss"] == 11.0 and row["seed 1/train/loss"] == 111.0


def test_wandb_continues_its_run(tmp_path, wandb):
    track(tmp_path, [4], ("wandb",), [Series("seed 1", 6)])
    wandb.first = 11  # a run that has steps up to 10
    track(tmp_path, [5, 6], ("wandb",), [Series("seed 1", 6)])
    assert [place["step"] for _, place in wandb.rows] == [*range(7, 11), 11, 12]
    assert wandb.rows[-1][0]["seed 1/train/loss"] == 15.0
    first, _, second, _ = wandb.started
    assert first["id"] == second["id"] and second["resume"] == "allow"


def test_wandb_receives_the_pictures(tmp_path, wandb):
    (tmp_path / "types.png").write_bytes(b"")
    with trackers.opened(TrackOptions(report_to="wandb"), tmp_path) as one:
        one.pictures(tmp_path)
    path = str(tmp_path / "types.png")
    assert wandb.rows == [({"pictures/types": ("image", path)}, {})]


def test_a_service_that_cannot_begin_is_one_warning(tmp_path, wandb, capfd):
    def init(**_):
        raise RuntimeError("no network\nhere")

    wandb.init = init
    track(tmp_path, [2, 6], ("wandb",))
    (line,) = capfd.readouterr().err.splitlines()
    expected = "warning: report_to: wandb: no network here; the run goes on without it"
    assert line == expected


def test_what_cannot_be_reported_to_is_refused(monkeypatch, wandb):
    trackers.require(["none"])
    trackers.require(["wandb"])  # a module that has no spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "tensorboardX", raising=False)
    with pytest.raises(InputError, match=r"tensorboardX, .* pip install .*\[tensorb"):
        trackers.require(["wandb", "tensorboard"])
    with pytest.raises(InputError, match="none stands alone"):
        trackers.require(["none", "wandb"])
    with pytest.raises(InputError, match="report_to: unknown 'tensorbord'"):
        TrackOptions(report_to="tensorbord")
