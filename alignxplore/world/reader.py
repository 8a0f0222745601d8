"""The ideal reader of the simulated world: what can at best be foreseen from a history, by Bayes' rule. Used by
`files.py`.

It knows how users are drawn, how tastes change and how noisy choices are, sees the same choices as a policy, and
weighs every possible user by how well they explain them. No summary, however good, can do better on average; the
reader of the true preferences (`files.ceilings`) can, since a dozen noisy choices do not give all of them away.

A state is a user's tastes at one time as a vector over the attributes: the strength, positive for the first value of
the attribute. Suffixes of arrays: `S` states, `A` attributes, `N` choices of a history, `I` pairs of items.
"""

import itertools
from collections.abc import Sequence
from functools import cache

import numpy as np

from alignxplore.world.text import ATTRIBUTES
from alignxplore.world.users import CHANGING, SHARPNESS, SHOWN, STRENGTHS, Choice, Values


def _vector(values: Values) -> np.ndarray:
    """An item as +1 or -1 for the attributes that it shows, else 0."""
    return np.array(
        [(values.get(a) == first) - (values.get(a) == second) for a, (first, second) in ATTRIBUTES.items()], float
    )


@cache
def _states() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All states_SA with their prior_S, the change_SS from early to late ones, and how often two drawn items differ in
    utility_S."""
    signed = [(sign * strength, share / 2) for strength, share in STRENGTHS if strength for sign in (1, -1)]
    signed += [(0, share) for strength, share in STRENGTHS if not strength]
    drawn = [
        (tuple(s for s, _ in combination), float(np.prod([p for _, p in combination])))
        for combination in itertools.product(signed, repeat=len(ATTRIBUTES))
    ]
    drawn = [(state, p) for state, p in drawn if np.count_nonzero(state) >= 2]
    # Someone who cares for three attributes may come to care for two, but two never become one: late states are early
    # ones.
    index = {state: i for i, (state, _) in enumerate(drawn)}
    change_SS = np.zeros((len(drawn), len(drawn)))
    for state, i in index.items():
        change_SS[i, i] += 1 - CHANGING
        held = [a for a, s in enumerate(state) if s]
        for a in held:
            fades = 0.5 if len(held) > 2 else 0.0
            for value, share in ((0, fades), (-state[a], 1 - fades)):
                if share:
                    change_SS[i, index[state[:a] + (value,) + state[a + 1 :]]] += CHANGING * share / len(held)
    states_SA = np.array([state for state, _ in drawn], float)
    items = np.array(
        [
            _fill(places, signs)
            for places in itertools.combinations(range(len(ATTRIBUTES)), SHOWN)
            for signs in itertools.product((1, -1), repeat=SHOWN)
        ]
    )
    utilities_SI = states_SA @ items.T
    differ_S = np.array([(row[:, None] != row[None, :]).mean() for row in utilities_SI])
    prior_S = np.array([p for _, p in drawn])
    return states_SA, prior_S / prior_S.sum(), change_SS, differ_S


def _fill(places: Sequence[int], signs: Sequence[int]) -> np.ndarray:
    vector = np.zeros(len(ATTRIBUTES))
    vector[list(places)] = signs
    return vector


def _likelihood(chosen: Values, rejected: Values) -> np.ndarray:
    """How probable each state makes it that these two items are shown and the first is taken, up to a constant:
    [S]."""
    states_SA, _, _, differ_S = _states()
    lead_S = states_SA @ (_vector(chosen) - _vector(rejected))
    # Items that suit a user equally well are never shown to them.
    return np.where(lead_S != 0, 1 / (1 + np.exp(-SHARPNESS * lead_S)), 0.0) / differ_S


def foresee(history: Sequence[Choice], change_at: int, target: Choice) -> float:
    """Probability that the ideal reader of `history` gives to what was chosen in `target`.

    Args:
        change_at: the place in the history from which on late preferences hold.
    """
    _, prior_S, change_SS, _ = _states()
    seen_NS = np.array([_likelihood(choice.chosen, choice.rejected) for choice in history])
    late_S = (prior_S * seen_NS[:change_at].prod(axis=0)) @ change_SS * seen_NS[change_at:].prod(axis=0)
    taken, other = (
        late_S @ _likelihood(target.chosen, target.rejected),
        late_S @ _likelihood(target.rejected, target.chosen),
    )
    return float(taken / (taken + other))
