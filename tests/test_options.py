import dataclasses
import pathlib
import re
import sys

import numpy as np
import pytest

from ffnlab import data, options
from ffnlab.errors import InputError
from ffnlab.nn import ffn
from ffnlab.options import option


def test_tables_are_read_without_importing():
    source = options.names_in("ffnlab.nn.ffn", "BLOCKS")
    assert source() == list(ffn.BLOCKS)
    kept = sys.modules.pop("ffnlab.nn.ffn")
    try:
        assert source() == list(ffn.BLOCKS)
        assert "ffnlab.nn.ffn" not in sys.modules
    finally:
        sys.modules["ffnlab.nn.ffn"] = kept
    assert options.names_in("ffnlab.data.builtin", "DATASETS")() == list(data.DATASETS)


def test_rows_that_a_user_added_are_known(monkeypatch):
    monkeypatch.setitem(ffn.BLOCKS, "sine", ffn.BLOCKS["mlp"])
    assert "sine" in options.names_in("ffnlab.nn.ffn", "BLOCKS")()


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("--length=64", "--max_seq_length=64"),
        ("-length=64", "-max_seq_length=64"),
        ("--length", "--max_seq_length"),  # its value is the next word
        ("--remat", "--gradient_checkpointing"),
        ("--noremat", "--nogradient_checkpointing"),
        ("--noremat=1", "--noremat=1"),
        ("--lengths=64", "--lengths=64"),
        ("--out=length", "--out=length"),
        ("--text=--length=64", "--text=--length=64"),
        ("length=64", "length=64"),
        ("--", "--"),
    ],
)
def test_old_names_of_flags_become_todays(given, wanted):
    renamed = {"length": "max_seq_length", "remat": "gradient_checkpointing"}
    assert options.rename_flag(given, renamed) == wanted


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({}, ""),
        ({"least": 0}, "at least 0"),
        ({"above": 0}, "above 0"),
        ({"below": 2**31}, "below 2147483648"),
        ({"least": 1, "below": 10}, "at least 1 and below 10"),
        ({"above": 0.5, "below": 1e-6}, "above 0.5 and below 1e-06"),
    ],
)
def test_limits_in_words(bounds, words):
    assert options.limits(option(1, "A number.", **bounds)) == words


@pytest.mark.parametrize(
    ("bounds", "good", "bad"),
    [
        ({"least": 1}, (1, 2), (0, -1)),
        ({"above": 0}, (0.5, 1), (0, 0.0, -1)),
        ({"below": 1}, (0, 0.5, -3), (1, 2)),
        ({}, (0, -1e30), (float("nan"), float("inf"), -float("inf"), 10**400)),
    ],
)
def test_limits_of_numbers(bounds, good, bad):
    @dataclasses.dataclass(frozen=True)
    class Config:
        size: float = option(0.5, "A size.", **bounds)

    for value in good:
        options.check(Config(value))
    for value in bad:
        with pytest.raises(InputError, match=f"^size: {value} should be a number"):
            options.check(Config(value))


def test_lists_have_entries_once_unless_it_is_allowed():
    @dataclasses.dataclass(frozen=True)
    class Config:
        one: tuple[str, ...] = option(("a",), "Names.", known=lambda: ("a", "b"))
        two: tuple[int, ...] = option((1, 1), "Numbers.", empty=True, repeats=True)

    options.check(Config())
    options.check(Config(two=()))
    config = Config(one=["a", "b"])
    options.check(config)
    assert config.one == ("a", "b")  # a list becomes a tuple
    for value, wanted in (
        ((), "one: at least one is needed"),
        (("a", "a"), "one: a,a has an entry twice"),
        (("a", "c"), "one: unknown 'c'"),
    ):
        with pytest.raises(InputError, match=wanted):
            options.check(Config(one=value))


def test_true_and_false_are_not_numbers():
    @dataclasses.dataclass(frozen=True)
    class Config:
        loud: bool = option(False, "Whether.", least=1)

    options.check(Config())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((1.0, 2e-3), "1.0,0.002"),
        (True, "true"),
        ((), ""),
        ("plain text", "plain text"),
        (" a", '" a"'),
        ("a\nb", '"a\\nb"'),
        ('say "ü"', '"say \\"ü\\""'),
    ],
)
def test_values_as_a_flag_file_holds_them(value, text):
    assert options.as_text(value) == text


def test_the_options_of_a_run_come_last_and_stay_out_of_its_flags():
    @dataclasses.dataclass(frozen=True)
    class Config(options.RunOptions):
        """What to run."""

        steps: int = option(3, "Steps.", least=1)

    assert Config(5, out="a", resume=True).steps == 5
    assert options.to_flags(Config(out="a", resume=True)) == "--steps=3\n"
    with pytest.raises(InputError, match="resume: out=DIRECTORY must name the run"):
        Config(resume=True)
    with pytest.raises(InputError, match="steps: 0"):
        Config(0)


@dataclasses.dataclass(frozen=True)
class Typed:
    steps: int = option(3, "Steps.", least=1)
    rate: float = option(0.1, "A rate.", above=0)
    loud: bool = option(False, "Whether.")
    name: str = option("a", "A name.", known=lambda: ("a", "b"))
    most: int | None = option(None, "A number, or none.", least=1)
    rates: tuple[float, ...] = option((0.1,), "Rates.", above=0)
    names: tuple[str, ...] = option(("a",), "Names.", empty=True)

    def __post_init__(self):
        options.check(self)


@pytest.mark.parametrize(
    ("field", "given", "wanted"),
    [
        ("steps", "100", 100),
        ("steps", 100.0, 100),
        ("steps", np.int64(5), 5),
        ("rate", "1e-3", 1e-3),
        ("rate", np.float32(0.01), 0.01),
        ("rate", 2, 2),
        ("loud", "True", True),
        ("loud", np.bool_(True), True),
        ("loud", 0, False),
        ("most", None, None),
        ("most", "7", 7),
        ("name", "b", "b"),
        ("rates", 0.01, (0.01,)),
        ("rates", np.array([0.01, 0.1]), (0.01, 0.1)),
        ("rates", np.float64(0.01), (0.01,)),
        ("rates", "0.01,0.1", (0.01, 0.1)),
        ("rates", ["0.01", 1], (0.01, 1)),
        ("names", "swiglu", ("swiglu",)),
        ("names", "mlp, swiglu", ("mlp", "swiglu")),
        ("names", "", ()),
        ("names", (name for name in "ab"), ("a", "b")),
        ("names", pathlib.Path("a"), ("a",)),
    ],
)
def test_values_are_converted_where_that_is_unambiguous(field, given, wanted):
    value = getattr(Typed(**{field: given}), field)
    assert value == wanted and type(value) is type(wanted)
    if isinstance(wanted, tuple):
        assert [*map(type, value)] == [*map(type, wanted)]


@pytest.mark.parametrize(
    ("field", "given", "wanted"),
    [
        ("steps", [1, 2], "steps: [1, 2] should be an integer at least 1"),
        ("steps", 1.5, "steps: 1.5 should be an integer"),
        ("steps", "many", "steps: 'many' should be an integer"),
        ("steps", True, "steps: True should be an integer"),
        ("steps", None, "steps: None should be an integer"),
        ("steps", float("nan"), "steps: nan should be an integer"),
        ("steps", "0", "steps: 0 should be a number at least 1"),
        ("rate", "fast", "rate: 'fast' should be a number above 0"),
        ("rate", False, "rate: False should be a number"),
        ("rate", (0.1,), "rate: (0.1,) should be a number"),
        ("loud", 2, "loud: 2 should be true or false"),
        ("loud", None, "loud: None should be true or false"),
        ("name", 3, "name: 3 should be text"),
        ("name", ["a"], "name: ['a'] should be text"),
        ("rates", None, "rates: None should be a number"),
        ("rates", {0.1, 0.2}, "should be a list"),
        ("rates", {"a": 0.1}, "rates: {'a': 0.1} should be a list"),
        ("rates", [[0.1]], "rates: [0.1] should be a number"),
        ("names", [3], "names: 3 should be text"),
        ("names", b"ab", "names: b'ab' should be a list"),
        ("steps", ["x" * 100], "steps: list should be an integer"),
    ],
)
def test_values_of_another_type_are_refused_by_name(field, given, wanted):
    with pytest.raises(InputError, match=re.escape(wanted)):
        Typed(**{field: given})
