"""Folders of arrays, and the errors of the library that writes them."""

import logging
import sys
import types

import numpy as np
import pytest

from ffnlab.train import array_folder


def test_arrays_come_back_with_their_types(tmp_path):
    leaves = {"a/b": np.arange(6.0).reshape(2, 3), "step": np.int64(3)}
    leaves |= {"half": np.array([1.5], np.float16), "flag": np.array([True])}
    leaves = {name: np.asarray(leaf) for name, leaf in leaves.items()}
    array_folder.write(tmp_path / "7", leaves)
    read = array_folder.read(tmp_path / "7")
    assert read.keys() == leaves.keys()
    for name, leaf in leaves.items():
        assert isinstance(read[name], np.ndarray) and read[name].dtype == leaf.dtype
        np.testing.assert_array_equal(read[name], leaf)


def test_what_cannot_be_read_or_written_is_an_os_error(tmp_path):
    with pytest.raises(OSError):
        array_folder.read(tmp_path / "absent")
    array_folder.write(tmp_path / "7", {"a": np.zeros(2)})
    with pytest.raises(OSError):
        array_folder.write(tmp_path / "7", {"a": np.ones(2)})
    assert array_folder.read(tmp_path / "7")["a"].tolist() == [0.0, 0.0]


def test_other_errors_are_logged_and_shown(monkeypatch, caplog):
    shown = []
    monkeypatch.setattr(sys, "unraisablehook", shown.append)
    with array_folder._quiet(), array_folder._quiet():
        logging.getLogger("absl").error("inside")
        logging.getLogger("another").error("another")
    logging.getLogger("absl").error("outside")
    for text in ("Event loop is closed", "another"):
        sys.unraisablehook(types.SimpleNamespace(exc_value=RuntimeError(text)))
    assert [str(each.exc_value) for each in shown] == ["another"]
    assert caplog.messages == ["another", "outside"]
