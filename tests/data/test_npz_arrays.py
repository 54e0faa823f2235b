"""npz files whose sizes are not what they declare."""

import io
import struct
import zipfile

import numpy as np
import pytest

from ffnlab.data.npz_arrays import read_arrays
from ffnlab.errors import InputError

HEADER = "{'descr': '%s', 'fortran_order': False, 'shape': %s}"
DATA = bytes(48)


def npy(header, data=DATA):
    """Returns an npy file with any header."""
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + data


def npz(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def test_arrays_are_those_that_were_written(tmp_path):
    arrays = {"a/b": np.arange(6.0).reshape(3, 2).T, "c": np.array(3), "d": np.ones(0)}
    for write in (np.savez, np.savez_compressed):
        write(tmp_path / "a.npz", **arrays)
        read = read_arrays(tmp_path / "a.npz")
        assert read.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(read[name], array)


SIZES = "its header declares"
NO_HEADER = "has no header of a NumPy array"


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (npy(HEADER % ("<f8", "(10**9, 3)")), NO_HEADER),
        (npy(HEADER % ("<f8", "(1000000000000, 3)")), SIZES),
        (npy(HEADER % ("<f8", "(4294967296, 4294967296)")), SIZES),
        (npy(HEADER % ("<f8", "(-2, -3)")), SIZES),
        (npy(HEADER % ("<f8", "(2, 3, True)")), NO_HEADER),
        (npy(HEADER % ("<f8", "(2, 3)"), DATA + b"more"), SIZES),
        (npy(HEADER % ("<f8", "(2, 3)"), DATA[:-1]), SIZES),
        (npy(HEADER % ("|O", "(2, 3)")), "expected numbers, found object"),
        (npy(HEADER % ("<U99", "(2, 3)")), "expected numbers, found <U99"),
        (npy(HEADER % ("|V1000000000", "(2, 3)")), "expected numbers, found .V1000"),
        (npy(HEADER % ("x", "(2, 3)")), NO_HEADER),
        (npy("(" * 9000), NO_HEADER),
        (npy("["), NO_HEADER),
        (npy("{[]: 1}"), NO_HEADER),
        (npy("-" * 9000 + "1"), NO_HEADER),
        (b"", NO_HEADER),
        (b"\x80\x04K\x01.", NO_HEADER),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", NO_HEADER),
    ],
)
def test_headers_are_checked_by_the_bytes_that_are_there(member, message, tmp_path):
    path = npz(tmp_path / "a.npz", {"x.npy": member})
    with pytest.raises(InputError, match=f"a.npz: x: {message}") as caught:
        read_arrays(path)
    assert "\n" not in str(caught.value)


def test_a_small_file_does_not_unpack_to_a_large_one(tmp_path):
    path = tmp_path / "bomb.npz"
    rows = 2**28 // 8 + 1
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
        file.open("x.npy", "w") as stream,
    ):
        stream.write(npy(HEADER % ("<f8", f"({rows},)"), b""))
        for _ in range(64):
            stream.write(bytes(2**22))
        stream.write(bytes(8))
    assert path.stat().st_size < 2**22
    with pytest.raises(InputError, match="bomb.npz: .* bytes that unpack to 268"):
        read_arrays(path)


def test_other_members_and_methods(tmp_path):
    good = io.BytesIO()
    np.save(good, np.ones(3))
    lzma = npz(tmp_path / "l.npz", {"x.npy": good.getvalue()}, zipfile.ZIP_LZMA)
    with pytest.raises(InputError, match="'x' is encrypted or compressed by another"):
        read_arrays(lzma)
    mixed = npz(tmp_path / "m.npz", {"x.npy": good.getvalue(), "y": b"text"})
    assert read_arrays(mixed, ("x",)).keys() == {"x"}
    with pytest.raises(InputError, match=r"y: has no header"):
        read_arrays(mixed)
    with pytest.raises(InputError, match=r"m.npz: key: unknown 'z'"):
        read_arrays(mixed, ("z",), required=("z",))


def test_flipped_bits_are_refused_or_change_nothing(tmp_path):
    rng = np.random.default_rng(0)
    x, path = rng.normal(size=(5, 3)), tmp_path / "a.npz"
    for write in (np.savez, np.savez_compressed):
        write(path, x=x)
        whole = path.read_bytes()
        for place in rng.integers(0, len(whole), 150):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << rng.integers(8)
            path.write_bytes(damaged)
            try:
                for array in read_arrays(path).values():
                    np.testing.assert_array_equal(array, x)
            except InputError as error:
                assert "\n" not in str(error)
