import pytest

from ffnlab.errors import InputError
from ffnlab.finetune.predict_options import PredictOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_p": 1.5}, "top_p: 1.5 should be at most 1"),
        ({"top_p": 0.0}, "top_p: 0.0 should be a number above 0"),
        ({"temperature": -1.0}, "temperature: -1.0 should be a number at least 0"),
        ({"num_beams": 0}, "num_beams: 0 should be a number at least 1"),
    ],
)
def test_values_are_checked(options, message):
    with pytest.raises(InputError, match=f"^{message}"):
        PredictOptions(**options)


def test_a_beam_search_does_not_sample():
    options = PredictOptions(num_beams=2, temperature=0.5)
    with pytest.raises(InputError, match="^num_beams: a beam search does not sample"):
        options.check_task("generate")
    PredictOptions(num_beams=2).check_task("generate")


def test_options_sample_if_one_of_sampling_is_given():
    assert not PredictOptions(num_beams=2, seed=3).samples
    assert all(
        PredictOptions(**{name: 1}).samples
        for name in ("top_k", "top_p", "temperature")
    )
