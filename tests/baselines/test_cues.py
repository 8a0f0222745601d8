"""A cue that is written down once stands in every table, or says why not."""

import pytest

from alignxplore.baselines.cues import BASELINES, candidate_scores
from alignxplore.evaluation.conditions import CUES
from alignxplore.records import Interaction, Offer, UserRecord

OFFER = Offer("long item", passed_over=("b", "cc"))
RECORD = UserRecord("u", (Interaction("a", "b"),), OFFER)


def test_every_cue_can_be_asked_for_and_is_known_among_k_items():
    assert CUES == (
        *("popularity", "popularity before", "longer", "shorter"),
        *("first item", "random", "content tally", "chance"),
    ), "the order of the rows"
    assert set(BASELINES) <= set(CUES)
    names = {name for name in BASELINES if candidate_scores(name, RECORD, OFFER, None)}
    assert names == {"longer", "shorter", "random"}, "the others are counts of other users, which are not known here"


def test_a_cue_without_a_score_for_candidates_is_said():
    with pytest.raises(ValueError, match="the cue 'newest' has no score for a choice among k items"):
        candidate_scores("newest", RECORD, OFFER, None)
