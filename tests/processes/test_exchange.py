import json
import threading

import jax
import numpy as np
import pytest

from ffnlab import InputError, processes
from ffnlab.processes import exchange, runtime, watch


class Store:
    """The client of a coordinator, in the memory of one process."""

    def __init__(self):
        self.texts, self.changed = {}, threading.Condition()

    def key_value_set(self, name, text, allow_overwrite=False):
        with self.changed:
            self.texts[name] = text
            self.changed.notify_all()

    def blocking_key_value_get(self, name, milliseconds):
        with self.changed:
            if self.changed.wait_for(lambda: name in self.texts, milliseconds / 1000):
                return self.texts[name]
        raise RuntimeError("DEADLINE_EXCEEDED")

    def key_value_dir_get(self, folder):
        return [(n, text) for n, text in self.texts.items() if n.startswith(folder)]


class OfOthers(runtime.Runtime):
    """Process 0 of several, whose texts are given."""

    def all_gather(self, text):
        return [text, *others]


others = []


@pytest.fixture
def first(monkeypatch):
    """This process is process 0 of three."""
    run = OfOthers(Store(), 0, 3, "node0:1234")
    monkeypatch.setattr(runtime._state, "runtime", run)
    return run


def check(monkeypatch, *values):
    monkeypatch.setitem(globals(), "others", [json.dumps(each) for each in values[1:]])
    exchange.check_equal("flags", values[0], "give the same")


def test_equal_values_pass(first, monkeypatch):
    check(monkeypatch, {"seed": "=0"}, {"seed": "=0"}, {"seed": "=0"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            [{"a": "=0"}, {"a": "=0"}, {"a": "=1"}],
            "process 2 has a=1, process 0 has a=0",
        ),
        ([{"a": "=0"}, {}, {"a": "=0"}], "process 1 has no a, process 0 has a=0"),
        ([{}, {"a": "=0"}, {}], "process 1 has a=0, process 0 has no a"),
        ([{"a": "=0", "b": "=0"}, {"a": "=1", "b": "=1"}, {}], "process 1 has a=1"),
    ],
)
def test_the_first_difference_is_named(first, monkeypatch, values, message):
    with pytest.raises(InputError, match=f"different flags: {message}.*give the same"):
        check(monkeypatch, *values)


def test_all_receive_the_text_of_process_0(monkeypatch):
    store, results = Store(), []

    def second():
        results.append(other.broadcast(""))

    one, other = (runtime.Runtime(store, i, 2, "a:1") for i in (0, 1))
    monkeypatch.setattr(runtime._state, "calls", iter([0, 0]))
    thread = threading.Thread(target=second)
    thread.start()
    assert one.broadcast("done") == "done"
    thread.join()
    assert results == ["done"]


def test_an_error_of_process_0_is_raised_there_and_told(first):
    def fail():
        raise InputError("out: it is full")

    with pytest.raises(InputError, match="out: it is full"):
        processes.first_does(fail)
    (message,) = [
        text for name, text in first.client.texts.items() if "/broadcast/" in name
    ]
    assert json.loads(message) == [None, "out: it is full"]


def test_an_error_of_process_0_is_raised_in_the_others(monkeypatch):
    run = runtime.Runtime(Store(), 1, 2, "node0:1234")
    monkeypatch.setattr(runtime._state, "runtime", run)
    monkeypatch.setattr(runtime._state, "calls", iter([7]))
    run.put("broadcast/7", json.dumps([None, "out: it is full"]))
    with pytest.raises(InputError, match="out: it is full"):
        processes.first_does(lambda: pytest.fail("called in process 1"))


class OfProcess:
    """The sharding of batches of six rows, of which this process has two parts."""

    def addressable_devices_indices_map(self, shape):
        steps, parts = slice(None), (slice(4, 6), slice(0, 2), slice(4, 6))
        return {device: (steps, part) for device, part in enumerate(parts)}


def test_a_process_has_the_rows_of_its_devices(first):
    assert processes.own_rows(OfProcess(), 6).tolist() == [0, 1, 4, 5]


def test_rows_are_placed_on_the_devices_that_hold_them(first):
    mesh = jax.sharding.Mesh(jax.devices()[::-1], "data")
    sharding = jax.sharding.NamedSharding(mesh, jax.P(None, "data"))
    batches = np.arange(24).reshape(3, 4, 2)
    placed = processes.place_rows({"x": batches}, sharding, 4)["x"]
    np.testing.assert_array_equal(placed, batches)
    for shard in placed.addressable_shards:
        half = slice(0, 2) if shard.device == jax.devices()[1] else slice(2, 4)
        np.testing.assert_array_equal(shard.data, batches[:, half])


def test_private_files_are_those_of_the_run(monkeypatch, tmp_path):
    monkeypatch.setattr(runtime._state, "directories", None)
    runtime.use_instead(str(tmp_path / "own"), str(tmp_path / "run"))
    path = tmp_path / "own" / "checkpoints" / "0"
    assert processes.shared(path) == tmp_path / "run" / "checkpoints" / "0"
    assert processes.shared(tmp_path / "a") == tmp_path / "a"


def test_a_process_without_a_sign_of_life_is_lost(first, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    watched = watch.Watch.__new__(watch.Watch)
    watched._runtime, watched._beats = first, {}
    watched._suspicion = threading.Event()
    for second in range(0, 80, 2):
        now[0] = float(second)
        first.put("alive/1", str(second))
        first.put("alive/2", str(min(second, 10)))
        watched._find_lost()
        lost = first.below("ended")
        assert set(lost) == ({2} if second > 70 else set()), second
    assert lost[2] == "gave no sign for 60 s"
