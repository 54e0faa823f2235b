import dataclasses
import json
import multiprocessing
import os

import pytest

from ffnlab import digests, io, options
from ffnlab.errors import InputError
from ffnlab.report import run_directory
from ffnlab.report.run_directory import open_run
from tests.faults.inject import Killed, failing_at


@dataclasses.dataclass(frozen=True)
class Config:
    RENAMED = {"warmup": "warmup_steps"}  # noqa: RUF012

    seed: int = options.option(0, "Random seed.")
    warmup_steps: int | None = options.option(None, "Steps of the warm-up.")
    out: str | None = options.option(None, "Output directory.")
    resume: bool = options.option(False, "Continue.")


def test_a_directory_is_taken_once(tmp_path):
    path = tmp_path / "run"
    with open_run(path, Config(), resume=False) as out:
        assert (out / "flags").read_text() == "--seed=0\n"
        assert json.loads((out / "versions.json").read_text())["jax"]
    with pytest.raises(InputError, match="already holds a run; resume=true continues"):
        run_directory.check_directory(path, resume=False)
    run_directory.check_directory(path, resume=None)  # it has no report
    (path / "report.md").write_text("done")
    with pytest.raises(InputError, match="already holds a run; delete it, or choose"):
        run_directory.check_directory(path, resume=None)
    (path / "report.md").unlink()
    with open_run(path, Config(out="run", resume=True), resume=True):
        pass
    with (
        pytest.raises(InputError, match="has --seed=0, this run has --seed=1"),
        open_run(path, Config(seed=1), resume=True),
    ):
        pass


def test_flags_under_old_names_are_the_same_flags(tmp_path):
    with open_run(tmp_path / "run", Config(warmup_steps=3), resume=False) as path:
        io.write(path / "flags", "--seed=0\n--warmup=3\n")
    with open_run(path, Config(warmup_steps=3), resume=True):
        pass
    wanted = "has --warmup_steps=3, this run has --warmup_steps=4"
    with (
        pytest.raises(InputError, match=wanted),
        open_run(path, Config(warmup_steps=4), resume=True),
    ):
        pass
    wanted = "has --warmup_steps=3, this run has fewer flags"
    with pytest.raises(InputError, match=wanted), open_run(path, Config(), resume=True):
        pass


def test_a_directory_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="holds files of something else"):
        run_directory.check_directory(tmp_path, resume=False)
    for path in ("thesis.tex", "thesis.tex/run"):
        with pytest.raises(InputError, match="is a file"):
            run_directory.check_directory(tmp_path / path, resume=False)
    with pytest.raises(InputError, match="holds no run to continue"):
        run_directory.check_directory(tmp_path / "nothing", resume=True)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_finished_run_is_not_continued(tmp_path):
    path = tmp_path / "run"
    with open_run(path, Config(), resume=False):
        pass
    config = Config(out=str(path), resume=True)
    assert run_directory.choose_unfinished(config, "name") == str(path)
    (path / "report.md").write_text("done")
    with pytest.raises(InputError, match="is finished; its report.md has the results"):
        run_directory.choose_unfinished(config, "name")


def test_a_new_directory_has_the_name_and_the_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = run_directory.choose_directory(None, "compare-wine", resume=False)
    assert path.startswith("runs/compare-wine-2") and not os.listdir(tmp_path)


def test_data_that_changed_is_refused(tmp_path):
    run_directory.check_same_data(tmp_path, "digest")
    run_directory.check_same_data(tmp_path, "digest")
    with pytest.raises(InputError, match="the data has changed since"):
        run_directory.check_same_data(tmp_path, "another digest")


def _hold(directory, ready, release):
    with run_directory.acquire(directory):
        ready.set()
        release.wait(60)


def test_a_directory_has_one_owner(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, ready, release))
    other.start()
    assert ready.wait(60)
    with (
        pytest.raises(InputError, match="another run is writing here"),
        run_directory.acquire(tmp_path),
    ):
        pass
    release.set()
    other.join(60)
    with run_directory.acquire(tmp_path):  # given back when the process ended
        pass


def write_run(path, resume):
    """Stands for a run, whose only result is a line for each of two blocks."""
    config = Config(out=str(path), resume=resume)
    run_directory.choose_unfinished(config, "name")
    with open_run(path, config, resume) as directory:
        run_directory.check_same_data(directory, "digest")
        (directory / "checkpoints").mkdir(exist_ok=True)
        lines = io.read_lines(directory / "results.jsonl")
        for block in range(len(lines), 2):
            lines.append({"block": block})
            io.write_lines(directory / "results.jsonl", lines)
            io.write(directory / "checkpoints" / str(block), "half of a state")
        io.write(directory / "report.md", "done")
        run_directory.finish(directory)


def contents(path):
    return {
        each.relative_to(path).as_posix(): each.read_bytes()
        for each in path.rglob("*")
        if each.is_file()
    }


def test_a_run_that_is_killed_at_any_operation_is_resumed_or_started(tmp_path):
    """Also where it is killed twice, and where it was finished but not cleaned."""
    write_run(tmp_path / "once", resume=False)
    with failing_at(-1, tmp_path) as operations:
        write_run(tmp_path / "twice", resume=False)
    assert contents(tmp_path / "twice") == contents(tmp_path / "once")
    assert operations.count > 40
    for number in range(operations.count):
        path = tmp_path / f"killed{number}"
        with pytest.raises(Killed), failing_at(number, path):
            write_run(path, resume=False)
        for again in (number // 2, -1):
            finished = (path / "report.md").exists()
            try:
                with failing_at(again, path):
                    write_run(path, resume=path.exists() and bool(os.listdir(path)))
            except InputError as error:
                assert "is finished" in str(error) and finished
            except Killed:
                pass
        assert contents(path) == contents(tmp_path / "once")
        assert sorted(os.listdir(path)) == sorted(os.listdir(tmp_path / "once"))


def test_a_run_of_an_earlier_version_gets_a_manifest(tmp_path):
    with open_run(tmp_path / "run", Config(), resume=False) as path:
        (path / digests.NAME).unlink()
    with open_run(path, Config(), resume=True):
        assert set(digests.read(path / digests.NAME)) == {"flags", "versions.json"}


def test_a_damaged_file_is_found_before_the_run_goes_on(tmp_path):
    with open_run(tmp_path / "run", Config(), resume=False) as path:
        io.write(path / "report.md", "done")
    (path / "report.md").write_text("dome")
    with (
        pytest.raises(InputError, match=r"report.md: the file was changed or is damag"),
        open_run(path, Config(), resume=True),
    ):
        pass


@pytest.mark.parametrize("function", ["options.to_flags", "versions"])
def test_a_run_can_be_continued_as_soon_as_it_has_its_flags(
    tmp_path, monkeypatch, function
):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) as caught:
        patch.setattr(f"ffnlab.report.run_directory.{function}", stop)
        with open_run(tmp_path / "run", Config(), resume=False):
            pass
    begun = (tmp_path / "run" / "flags").exists()
    assert begun == (function == "versions")
    assert begun == bool(getattr(caught.value, "__notes__", []))
    with open_run(tmp_path / "run", Config(), resume=begun) as out:
        assert (out / "versions.json").exists()
