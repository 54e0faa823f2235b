import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffnlab.adapt.patterns import match_end
from ffnlab.errors import InputError

NAMES = st.lists(st.sampled_from(["a", "b", "ab", "1", "."]), max_size=6).map("".join)
ATOMS = st.sampled_from(["a", "b", ".", r"\.", r"\d", "[ab]", "[^a-b]", "1"])
PATTERNS = st.recursive(
    st.one_of(
        st.tuples(ATOMS, st.sampled_from(["", "", "*", "+", "?"])).map("".join),
        st.sampled_from(["^", "$"]),
    ),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}|{pair[1]})"),
        inner.map(lambda part: f"(?:{part})?"),
    ),
    max_leaves=6,
)


@given(PATTERNS, NAMES)
def test_patterns_match_as_those_of_python(pattern, name):
    expected = re.fullmatch(rf"(.*\.)?({pattern})", name)
    assert match_end(pattern, name, ".") == bool(expected)


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("(ab)*", "abab", True),
        ("(ab|a)+b", "aabb", True),
        ("(ab)+", "aba", False),
        ("", "a/", True),
        ("", "a", False),
        ("query|value", "layer_0/attention/value", True),
        ("layer_[02]/ffn/.*", "layer_1/ffn/up", False),
        ("layer_[02]/ffn/.*", "layer_2/ffn/up", True),
        ("p", "up", False),
    ],
)
def test_patterns_match_the_end_after_a_separator(pattern, name, matches):
    assert match_end(pattern, name, "/") == matches


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(a+)+", "a group that repeats something cannot be repeated"),
        ("((a|b*)c)*", "a group that repeats something cannot be repeated"),
        ("(", r"missing \)"),
        ("a)", "unbalanced parenthesis"),
        ("*", "nothing to repeat"),
        ("a**", "nothing to repeat"),
        ("^+", "nothing to repeat"),
        ("a{9}", "only sets"),
        (r"(a)\1", "only sets"),
        ("(?=a)", "nothing to repeat"),
        ("[z-a]", "bad character range"),
        ("a" * 201, "over 200 characters"),
    ],
)
def test_other_patterns_are_refused_in_one_line(pattern, message):
    with pytest.raises(InputError, match=f"is no pattern: .*{message}") as caught:
        match_end(pattern, "a", "/")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "pattern", ["(a|a)" * 39 + "b", "a?" * 66 + "a" * 66, ".*" * 99 + "b", "(" * 100]
)
def test_every_pattern_takes_little_time(pattern):
    start = time.monotonic()
    try:
        assert not match_end(pattern, "a" * 60, "/")
    except InputError as error:
        assert "missing )" in str(error)
    assert time.monotonic() - start < 5  # seconds; `re` takes years
