import pytest

from ffnlab.errors import InputError
from ffnlab.options import to_flags
from ffnlab.train.mesh_config import MeshOptions, as_text, check_divides, parse


def test_axes_without_an_entry_have_one_device():
    assert parse(["model:2", " data:4 "]) == {"replicas": 1, "data": 4, "model": 2}
    assert parse([]) == {}
    assert as_text(parse(["model:2"])) == "model:2"


@pytest.mark.parametrize(
    "entry",
    ["rows:2", "data", "data:", "data:0", "data:-1", "data:2.5", "data:x", ":2"],
)
def test_wrong_entries_are_refused(entry):
    with pytest.raises(InputError, match=r"mesh: .* should be AXIS:N"):
        MeshOptions(mesh=(entry,))


def test_an_axis_is_given_once():
    with pytest.raises(InputError, match="mesh: data is given twice"):
        MeshOptions(mesh=("data:2", "data:4"))


@pytest.mark.parametrize(
    ("size", "count", "near"),
    [
        (3, 8, "model:2 and model:4 do"),
        (16, 8, "model:8 does"),
        (4, 6, "3 and model:6"),
    ],
)
def test_the_nearest_sizes_are_named(size, count, near):
    with pytest.raises(InputError, match=f"model:{size} does not divide x; .*{near}"):
        check_divides("model", size, "x", count)


def test_a_mesh_belongs_to_one_run():
    options = MeshOptions(mesh=("data:2",), fsdp=True)
    assert to_flags(options) == to_flags(MeshOptions())
