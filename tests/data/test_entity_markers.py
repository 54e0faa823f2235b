"""Texts with two marked entities: signs in place of marks, and what is wrong."""

import pytest

from ffnlab.data.entity_markers import replace_markers

MARKS = ("e1", "e2")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("<e1>Ada</e1> in <e2>London</e2>", "$ Ada $ in # London #"),
        ("in <e2> New York </e2>,<e1>Ada</e1>.", "in # New York # , $ Ada $ ."),
        ("<e1>a <e2>b</e2> c</e1>", "$ a # b # c $"),
        (r"<e1>\1</e1> <e2>$x</e2>", r"$ \1 $ # $x #"),
    ],
)
def test_signs_stand_for_marks(text, wanted):
    assert replace_markers([text], MARKS) == ([wanted], [None])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Ada <e2>b</e2>", "expected one <e1>…</e1> in it, found 0"),
        ("<e1>a</e1> <e1>b</e1> <e2>c</e2>", "expected one <e1>…</e1> in it, found 2"),
        ("<e1>a</e1> <e2>b", "expected one <e2>…</e2> in it, found 0 and a marker al"),
        ("<e1></e1> <e2>b</e2>", "expected one <e1>…</e1> in it, found 0 and a mark"),
    ],
)
def test_what_is_wrong_is_said(text, message):
    (problem,) = replace_markers([text], MARKS)[1]
    assert problem.startswith(message)
