"""Small runs that are killed, damaged or without room; `benchmarks.faults` has all."""

import os
import shutil

import numpy as np
import pytest

from ffnlab import io
from tests.faults import damage, full_disk, launchers, malformed, trials
from tests.faults.processes import Fault
from tests.faults.trials import EXACT, REFUSED, SILENT, Workshop

ADAPTED = "finetune classify, two seeds, by ia3"
TUNED = [name for name in malformed.READERS if "run/" in malformed.READERS[name].path]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("faults").resolve())


def check_all(found, *outcomes):
    """Checks that trials ended as they should, and each outcome occurs."""
    wrong = [f"{t.name}: {t.outcome}: {t.note}" for t in found if t.wrong]
    assert not wrong, "\n\n".join(wrong)
    assert {trial.outcome for trial in found} >= set(outcomes)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("judge", 2),
        ("from_scratch", 2),
        ("prepare_text", 2),
        pytest.param("pretrain", 2, marks=pytest.mark.slow),
        pytest.param("compare", 1, marks=pytest.mark.slow),
        pytest.param(ADAPTED, 1, marks=pytest.mark.slow),
    ],
)
def test_killed_runs_resume_exactly(shop, name, count):
    total = shop.whole(name)[1]
    numbers = trials.spread(count + 2, total)[1:-1]
    first = [trials.kill(shop, name, numbers[0], again=total // 3)]
    check_all([*first, *(trials.kill(shop, name, n) for n in numbers[1:])], EXACT)


@pytest.mark.parametrize(
    ("name", "count"),
    [("from_scratch", 3), pytest.param(ADAPTED, 2, marks=pytest.mark.slow)],
)
def test_damage_to_interrupted_runs_is_noticed(shop, name, count):
    state, rng = damage.interrupted(shop, name), np.random.default_rng(0)
    damages = damage.draw(state, (damage.FLIP,), count, rng)
    damages += damage.draw(state, damage.OTHERS, count, rng)
    check_all([damage.resume(shop, name, state, each) for each in damages])


@pytest.mark.parametrize(
    ("name", "count"),
    [("pretrain", 40), pytest.param(ADAPTED, 15, marks=pytest.mark.slow)],
)
def test_damage_to_models_is_noticed(shop, name, count):
    state, rng = shop.whole(name)[0], np.random.default_rng(0)
    damages = damage.draw(state, (damage.FLIP,), count, rng)
    damages += damage.draw(state, damage.OTHERS, count, rng)
    wanted = damage.model_digest(name, state)
    found = [damage.load(shop, name, state, each, wanted) for each in damages]
    check_all(found, EXACT, REFUSED)


def test_full_disks_lose_nothing(shop):
    total = shop.whole("from_scratch")[1]
    faults = [Fault(kill=n * total // 3, error=full_disk.FULL) for n in (1, 2)]
    check_all([full_disk.fill(shop, "from_scratch", each) for each in faults], REFUSED)


@pytest.mark.parametrize("name", [n for n in malformed.READERS if n not in TUNED])
def test_malformed_files_are_read_or_refused(shop, name, tmp_path):
    malformed.write_files(tmp_path / "files", shop.inputs)
    check_all(malformed.read(tmp_path / "files", name, seed=1, count=15))


@pytest.mark.slow
@pytest.mark.parametrize("name", TUNED)
def test_malformed_models_are_read_or_refused(shop, name, tmp_path):
    tuned = shop.whole(ADAPTED)[0]
    malformed.write_files(tmp_path / "files", shop.inputs, tuned)
    check_all(malformed.read(tmp_path / "files", name, seed=1, count=20))


def test_what_differs_is_reported(shop, tmp_path):
    whole = shop.whole("from_scratch")[0]
    for change in ("results", "file"):
        out = tmp_path / change
        shutil.copytree(whole, out)
        ending = shop.resume("from_scratch", out)
        assert ending.clean and "is finished" in ending.text
        if change == "results":
            rows = io.read_lines(out / "results.jsonl")
            rows[3]["loss"] = 1.0
            io.write_lines(out / "results.jsonl", rows)
        else:
            (out / "other.npz").write_bytes(b"")
        assert launchers.compare(out, whole)
        trial = shop.judge("from_scratch", change, out, ending)
        assert trial.outcome == SILENT and trial.wrong
    assert not os.listdir(tmp_path)
