"""What a schema accepts, and one line for everything else."""

import dataclasses
import json
import time
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffnlab.errors import InputError
from ffnlab.schema import DEPTH, Field, check, check_object, fields_of, parse_json, show

BIG = 10**30


@pytest.mark.parametrize(
    ("field", "fits", "wrong"),
    [
        (Field(kind=int), [0, -3, 2**63 - 1], [True, 1.0, "1", None, BIG, [], {}]),
        (Field(kind=int, least=1, most=3), [1, 3], [0, 4, -BIG]),
        (Field(kind=float), [0.5, 2, -1e300], [float("nan"), float("inf"), False, BIG]),
        (Field(kind=float, least=0, below=1), [0, 0.9], [1.0, -0.1]),
        (Field(kind=bool), [True, False], [0, 1, "true", None]),
        (Field(kind=str), ["", "ü", "[/b]"], ["\ud83d", 3, ["a"], None]),
        (Field(kind=str, least=1, most=2), ["a", "ab"], ["", "abc"]),
        (Field(kind=str, known=("a", "b")), ["a", "b"], ["c", "", ["a"]]),
        (Field(kind=str, optional=True), [None, "a"], [3]),
        (Field(kind=list, items=Field(kind=int), most=2), [[], [1]], [[1] * 3, [""]]),
        (Field(kind=dict, items=Field(kind=int)), [{}, {"a": 1}], [{"a": "b"}, []]),
        (
            Field(kind=str, either=Field(kind=list, items=Field(kind=str))),
            ["a", ["a"], []],
            [3, [3], None],
        ),
    ],
)
def test_values_fit_or_are_refused(field, fits, wrong):
    for value in fits:
        assert check(value, field, "a.json: key") == value
    for value in wrong:
        with pytest.raises(
            InputError, match=r"^a.json: key: .*should be .*; do"
        ) as hit:
            check(value, field, "a.json: key", "do this")
        assert "\n" not in str(hit.value) and len(str(hit.value)) < 300


def test_entries_are_named():
    rows = Field(kind=list, items=Field(kind=dict, items=Field(kind=int)))
    with pytest.raises(InputError, match=r'^a: entry 2: "x": should be a whole number'):
        check([{}, {"x": "y"}], rows, "a")


def test_objects_are_checked_by_their_keys():
    fields = {"a": Field(kind=int, required=True), "b": Field(kind=str)}
    assert check_object({"a": 1, "z": []}, fields, "f") == {"a": 1}
    with pytest.raises(InputError, match="^f: a is missing; train again$"):
        check_object({"b": ""}, fields, "f", "train again")
    with pytest.raises(InputError, match="^f: should be an object, not a list of 2"):
        check_object([["x" * 99], [[[[1]]]]], fields, "f")


def test_fields_are_those_of_a_dataclass():
    @dataclasses.dataclass
    class Config:
        size: int
        rate: float | None
        kind: Literal["a", "b"]
        names: str | tuple[str, ...]

    fields = fields_of(Config, size=Field(kind=int, least=1))
    good = {"size": 1, "rate": None, "kind": "b", "names": ["x"]}
    assert check_object(good, fields, "f") == good
    for change in ({"size": 0}, {"rate": "x"}, {"kind": "c"}, {"names": [3]}):
        with pytest.raises(InputError, match=f"^f: {next(iter(change))}: "):
            check_object({**good, **change}, fields, "f")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f:1: not JSON"),
        ('{\n"a"', "f:2: not JSON"),
        ("{}{}", "not JSON: Extra data"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "'c' is there twice"),
        ('{"a": ' + "9" * 5000 + "}", "too long a number"),
        ("[" * 100_000 + "]" * 100_000, "goes too deep"),
        ("[" * (DEPTH + 1) + "]" * (DEPTH + 1), "goes too deep"),
        ('{"a":' * 50_000, "goes too deep"),
    ],
)
def test_texts_that_are_not_read(text, message):
    with pytest.raises(InputError, match=message) as caught:
        parse_json(text, "f")
    assert str(caught.value).startswith("f:") and "\n" not in str(caught.value)


def test_nesting_up_to_the_limit_is_read():
    value = parse_json("[" * DEPTH + "]" * DEPTH)
    assert isinstance(value, list)


def test_repeated_keys_are_noticed_in_linear_time():
    """Counting each key in all keys takes minutes here."""
    keys = ",".join(f'"k{number}":1' for number in range(200_000))
    start = time.monotonic()
    assert len(parse_json(f"{{{keys}}}")) == 200_000
    with pytest.raises(InputError, match="'k7' is there twice"):
        parse_json(f'{{{keys},"k7":1}}')
    assert time.monotonic() - start < 20


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_what_is_shown_is_one_short_line(value):
    text = show(value)
    assert len(text) < 100 and "\n" not in text and text.encode()


@given(VALUES, st.sampled_from([bool, int, float, str, list, dict]), st.booleans())
def test_a_value_is_accepted_or_refused(value, kind, optional):
    field = Field(kind=kind, optional=optional)
    try:
        assert check(value, field, "f") is value
    except InputError:
        assert not (optional and value is None)
    else:
        assert type(value) is kind or kind is float or value is None


@given(st.text() | VALUES.map(json.dumps), st.integers(0, 40))
def test_cut_texts_are_read_or_refused(text, end):
    try:
        parse_json(text[:end], "f")
    except InputError as error:
        assert str(error).startswith("f:")
