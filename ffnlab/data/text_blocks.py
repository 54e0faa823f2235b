"""Text files of any size, cut into parts at line ends and read in blocks.

No more than a block is held in memory. A line ends at a line feed.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from ffnlab.data.files import require_file
from ffnlab.errors import InputError

PARTS = ("train", "valid", "test")
_BLOCK = 2**20  # bytes
_LONGEST = 2**24  # bytes of a line that stays whole
_MARK = b"\xef\xbb\xbf"


class Source(NamedTuple):
    """A text file, and where its parts are.

    Attributes:
      path: The path.
      begin: The byte at which the text begins: 0, or 3 after a byte-order mark.
      ends: The bytes at which the parts train, valid and test end.
      sha256: The digest of the text.
    """

    path: str
    begin: int
    ends: tuple[int, int, int]
    sha256: str

    def span(self, part: int) -> tuple[int, int]:
        """Returns the bytes at which a part begins and ends."""
        return (self.begin, *self.ends)[part], self.ends[part]

    @property
    def size(self) -> int:
        """The number of bytes of the text."""
        return self.ends[-1] - self.begin


def scan(
    path: str,
    valid: float,
    test: float,
    utf8: bool,
    on_progress: Callable[[int], None] | None = None,
) -> Source:
    """Reads a text file once, checks it, and cuts it into parts at line ends.

    The parts follow each other: train, then valid, then test. Each has a line at least.

    Args:
      path: The file.
      valid: The fraction of the text that is the validation part.
      test: The fraction that is the test part.
      utf8: Whether the text must be UTF-8; otherwise it may have any bytes.
      on_progress: A function to call with the number of bytes that are read.

    Raises:
      InputError: There is no such file, it has fewer than three lines, or is not UTF-8.
    """
    size, digest = require_file(path).stat().st_size, hashlib.sha256()
    with open(path, "rb") as file:
        begin = len(_MARK) if file.read(len(_MARK)) == _MARK else 0
    if begin == size:
        raise InputError(f"{path}: the file is empty")
    for place, text in read_blocks(path, begin, size):
        digest.update(text)
        if utf8:
            _check_utf8(path, begin, place, text)
        if on_progress:
            on_progress(place + len(text))
    first = 1 - (valid + test)
    with open(path, "rb") as file:
        ends = _cut(path, file, begin, size, (first, first + valid))
    return Source(str(path), begin, (*ends, size), digest.hexdigest())


def _check_utf8(path: str, begin: int, place: int, text: bytes) -> None:
    """Raises if the block of a text that begins at byte `place` is not UTF-8."""
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        blocks = read_blocks(path, begin, place + error.start)
        line = sum(block.count(b"\n") for _, block in blocks) + 1
        raise InputError(
            f"{path}:{line}: not UTF-8, which a tokenizer needs; bytes need none"
        ) from None


def _cut(
    path: str, file: IO[bytes], begin: int, size: int, shares: tuple[float, float]
) -> tuple[int, int]:
    """Returns the bytes at which train and valid end, each after a whole line."""
    last = _line_start(file, begin, size)
    before = _line_start(file, begin, last)
    if before == begin:
        count = 1 + (last > begin)
        raise InputError(
            f"{path}: {count} lines; at least 3 are needed, one for each part"
        )
    places = [begin + math.ceil(share * (size - begin)) for share in shares]
    first = min(_line_end(file, max(places[0], begin + 1), size), before)
    second = _line_end(file, max(places[1], first + 1), size)
    return first, min(second, last)


def _line_end(file: IO[bytes], place: int, size: int) -> int:
    """Returns the end of the line that holds the byte before a place."""
    file.seek(place - 1)
    while (text := file.readline(_BLOCK)) and not text.endswith(b"\n"):
        pass
    return min(file.tell(), size)


def _line_start(file: IO[bytes], begin: int, end: int) -> int:
    """Returns the start of the line that ends at a byte."""
    stop = end - 1  # the line's own end does not count
    while stop > begin:
        start = max(stop - _BLOCK, begin)
        file.seek(start)
        place = file.read(stop - start).rfind(b"\n")
        if place >= 0:
            return start + place + 1
        stop = start
    return begin


def read_blocks(
    path: str | Path, begin: int, end: int, size: int = _BLOCK
) -> Iterator[tuple[int, bytes]]:
    """Yields a stretch of a file in blocks of whole lines, each with its first byte.

    A line of over 16 MiB is divided, between two characters.

    Args:
      path: The file.
      begin: The first byte.
      end: One past the last byte.
      size: The bytes of a block, which ends with the line that reaches them.

    Raises:
      InputError: The file has become shorter.
    """
    with open(path, "rb") as file:
        while begin < end:
            file.seek(begin)
            text = file.read(min(size, end - begin))
            if not text.endswith(b"\n"):
                left = end - begin - len(text)
                text += file.readline(min(_LONGEST, left))
            if not text:
                raise InputError(f"{path}: the file was cut while it was read")
            if not text.endswith(b"\n") and begin + len(text) < end:
                text = _whole_characters(text)
            yield begin, text
            begin += len(text)


def _whole_characters(text: bytes) -> bytes:
    r"""Returns bytes without the beginning of a character of UTF-8 at their end.

    >>> _whole_characters("aö".encode()[:2]), _whole_characters("aö".encode())
    (b'a', b'a\xc3\xb6')
    """
    for count in range(1, min(4, len(text))):
        if text[-count] >= 0xC0:  # the first byte of a character
            length = 2 + (text[-count] >= 0xE0) + (text[-count] >= 0xF0)
            return text if length == count else text[:-count]
        if text[-count] < 0x80:
            break
    return text
