"""Numbers that no synthesis can be meant with are refused before anything is read or served."""

import dataclasses

import pytest

from alignxplore.baselines.tallrec import TallrecOptions
from alignxplore.sft.tokenised_set import PrepareOptions
from alignxplore.synthesis.pipeline import SynthesisOptions
from alignxplore.synthesis.selection import SelectionOptions
from alignxplore.synthesis.signal_model import ScoreOptions

NAN, INFINITE = float("nan"), float("inf")
OF_SYNTHESIS = {
    "signal": (-0.1, 1.1, NAN),
    "min_targets": (0, -1, 6),
    "max_targets": (0, -1, 3),
    "min_verified": (0, -1, 6),
    "merged_accuracy": (-0.1, 1.1, NAN),
    "temperature": (-0.1, 2.1, NAN, INFINITE),
    "max_tokens": (0, -1),
    "max_model_len": (0, -1),
    "concurrency": (0, -1),
    "requests": (0, -1),
    "timeout": (0, -1, NAN, INFINITE),
    "max_error_rate": (-0.1, 1.1, NAN),
}
IMPOSSIBLE = {
    SynthesisOptions: OF_SYNTHESIS,
    ScoreOptions: {"max_length": (0, -1)},
    PrepareOptions: {"max_length": (0, -1), "held_out": (-0.1, 1, NAN), "show": (-1,)},
    TallrecOptions: {"max_length": (0, -1), "per_user": (0, -1), "least_history": (0, -1), "last": (0, -1)},
    SelectionOptions: {
        **dict.fromkeys(("signal_share", "least_strong", "strong_quantile"), (-0.1, 1.1, NAN)),
        **dict.fromkeys(("stages", "least_slice"), (0, -1)),
    },
}
CASES = [
    (kind, name, value)
    for kind, values_of in IMPOSSIBLE.items()
    for name, values in values_of.items()
    for value in values
]


def made(kind: type, **options: object) -> object:
    texts = {field.name: "x" for field in dataclasses.fields(kind) if field.default is field.default_factory}
    return kind(**texts | options)


@pytest.mark.parametrize(("kind", "name", "value"), CASES)
def test_a_number_that_cannot_be_meant_is_refused_with_the_options_name(kind, name, value):
    made(kind)
    with pytest.raises(ValueError, match=f"--{name} {value}"):
        made(kind, **{name: value})


@pytest.mark.parametrize("kind", IMPOSSIBLE)
def test_every_number_has_its_bounds(kind):
    numbers = {
        field.name
        for field in dataclasses.fields(kind)
        if any(word in str(field.type) for word in ("int", "float")) and field.name != "seed"
    }
    assert numbers == set(IMPOSSIBLE[kind])
