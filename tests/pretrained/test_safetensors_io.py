"""Arrays in safetensors files, and disks without room."""

import resource
import signal

import numpy as np
import pytest
from safetensors.numpy import load_file

from ffnlab.pretrained.safetensors_io import write_arrays


def test_a_file_without_room_is_an_error_of_the_system(tmp_path):
    arrays = {"kernel": np.ones((64, 64), np.float32)}
    path, before = tmp_path / "a.safetensors", resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large: .*a.safetensors"):
            write_arrays(arrays, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    write_arrays(arrays, path)
    np.testing.assert_array_equal(load_file(path)["kernel"], arrays["kernel"])
