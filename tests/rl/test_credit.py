"""Credit in a stream: every number here was worked out by hand; the last tests run verl's own advantage code on
them."""

import math

import pytest

from alignxplore.rl.credit import Scored, StageReturns, draw_order, propagate, shuffled, stream_returns

FORMED = [True] * 4


def close(actual, expected):
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected):
        assert (a is None) == (e is None) and (e is None or math.isclose(a, e, abs_tol=1e-12)), (actual, expected)


def two_stages(r1, r2, drawn=1, formed1=FORMED, formed2=FORMED, **kwargs):
    return stream_returns(
        [Scored(r1, formed1), Scored(r2, formed2)], [drawn, None], kwargs.pop("credit", "paper"), 0.9, **kwargs
    )


def test_paper_pays_the_drawn_one_its_future_and_the_others_a_constant():
    first, second = two_stages([0.6, 0.2, 0.4, 0.8], [0.9, 0.7, 0.5, 0.7])
    close(first.returns, [0.6 + 0.45, 0.2 + 0.9 * 0.7, 0.4 + 0.45, 0.8 + 0.45])
    close(second.returns, [0.9, 0.7, 0.5, 0.7])
    close([first.drawn_bonus], [0.9 * 0.7 - 0.45])
    assert second.drawn_bonus is None


def test_centered_pays_the_others_the_users_own_baseline():
    first, second = two_stages([0.6, 0.2, 0.4, 0.8], [0.9, 0.7, 0.5, 0.7], credit="centered", baselines=[0.6])
    close(first.returns, [0.6 + 0.54, 0.2 + 0.63, 0.4 + 0.54, 0.8 + 0.54])
    close([first.drawn_bonus], [0.9 * (0.7 - 0.6)])
    close(second.returns, [0.9, 0.7, 0.5, 0.7])


@pytest.mark.parametrize(
    ("stages", "credit", "bonus"),
    [(2, "paper", 0.108), (2, "centered", 0.1053), (3, "paper", 0.5373), (3, "centered", 0.12899)],
)
def test_what_summaries_add_is_paid_to_the_drawn_one_by_both_credits(stages, credit, bonus):
    """All summaries are worth the same, more than none: `centered` takes out what the judge says without one alone."""
    drawn = [0] * (stages - 1) + [None]
    first, *_ = stream_returns([Scored([0.62] * 4, FORMED)] * stages, drawn, credit, 0.9, [0.503] * (stages - 1))
    assert first.drawn_bonus == pytest.approx(bonus, abs=5e-6)
    first, *_ = stream_returns([Scored([0.503] * 4, FORMED)] * stages, drawn, "centered", 0.9, [0.503] * (stages - 1))
    assert first.drawn_bonus == pytest.approx(0), "summaries that add nothing"


def test_a_credit_that_nobody_wrote_is_never_taken_for_another():
    with pytest.raises(ValueError, match="credit 'mine' has no returns; known: paper, centered"):
        two_stages([0.6, 0.2, 0.4, 0.8], [0.9, 0.7, 0.5, 0.7], credit="mine")


def test_three_stages_pass_returns_on_not_rewards():
    stages = [Scored([0.4, 0.6], [True] * 2), Scored([0.5, 0.7], [True] * 2), Scored([0.8, 0.6], [True] * 2)]
    first, second, third = stream_returns(stages, [0, 1, None], "paper", 0.9)
    close(third.returns, [0.8, 0.6])
    close(second.returns, [0.5 + 0.45, 0.7 + 0.9 * 0.7])  # 0.95, 1.33
    close(first.returns, [0.4 + 0.9 * (0.95 + 1.33) / 2, 0.6 + 0.45])
    first, second, third = stream_returns(stages, [0, 1, None], "centered", 0.9, [0.6, 0.55])
    close(second.returns, [0.5 + 0.9 * 0.55, 0.7 + 0.9 * 0.7])  # 0.995, 1.33
    close(first.returns, [0.4 + 0.9 * 1.1625, 0.6 + 0.9 * (0.6 + 0.9 * 0.55)])


def test_shuffled_returns_are_the_same_ones_and_know_nothing_of_whose_they_were():
    returns = StageReturns([0.0, 0.4, None, 1.4], 0.9)
    dealt = [shuffled(returns, 0, step, "ann", 0) for step in range(4000)]
    assert all(sorted(map(str, deal.returns)) == sorted(map(str, returns.returns)) for deal in dealt)
    assert {deal.drawn_bonus for deal in dealt} == {None}
    for place in range(4):  # each has each of them as often: 1000 times, give or take five standard deviations
        for value in returns.returns:
            assert abs(sum(deal.returns[place] == value for deal in dealt) - 1000) < 5 * (4000 * 3 / 16) ** 0.5
    assert shuffled(returns, 0, 7, "ann", 0) == dealt[7]
    orders = {tuple(shuffled(returns, *key).returns) for key in ((1, 7, "ann", 0), (0, 7, "bob", 0), (0, 7, "ann", 1))}
    assert len(orders | {tuple(dealt[7].returns)}) > 1


def test_baselines_are_propagated_like_returns():
    close(propagate([0.5, 0.6, 0.55], 0.9), [0.5 + 0.9 * (0.6 + 0.9 * 0.55), 0.6 + 0.9 * 0.55, 0.55])
    for baselines in (None, [0.5, 0.6]):
        with pytest.raises(ValueError, match="one baseline for each of the 1 stages after the first"):
            two_stages([0.5] * 4, [0.5] * 4, credit="centered", baselines=baselines)


def test_a_single_stage_has_no_baseline():
    (only,) = stream_returns([Scored([0.4, 0.6], [True] * 2)], [None], "centered", 0.9, [])
    close(only.returns, [0.4, 0.6])


def test_bad_format_is_zero_in_all_and_counts_in_the_mean_of_the_next_stage():
    first, second = two_stages(
        [0.6, 0.2, None, 0.8],
        [0.9, None, 0.5, 0.7],
        formed1=[True, True, False, True],
        formed2=[True, False, True, True],
    )
    close(second.returns, [0.9, 0.0, 0.5, 0.7])
    close(first.returns, [1.05, 0.2 + 0.9 * 2.1 / 4, 0.0, 1.25])


def test_nothing_well_formed_to_draw_gives_no_bonus():
    first, second = two_stages([None] * 4, [0.9, 0.7, 0.5, 0.7], drawn=None, formed1=[False] * 4)
    close(first.returns, [0.0] * 4)
    assert first.drawn_bonus is None
    close(second.returns, [0.9, 0.7, 0.5, 0.7])


def test_failed_judgements_are_left_out_not_scored_zero():
    first, second = two_stages([0.6, 0.2, None, 0.8], [None, 0.7, 0.5, float("nan")])
    close(second.returns, [None, 0.7, 0.5, None])
    close(first.returns, [1.05, 0.2 + 0.9 * 0.6, None, 1.25])


def test_a_group_of_one_is_dropped_but_its_reward_still_informs_the_drawn_one():
    first, second = two_stages([0.6, 0.2, 0.4, 0.8], [None, 0.7, None, None])
    close(second.returns, [None] * 4)
    close(first.returns, [1.05, 0.2 + 0.9 * 0.7, 0.85, 1.25])


def test_when_all_later_judgements_failed_the_drawn_one_gets_what_the_others_get():
    close(two_stages([0.6, 0.2, 0.4, 0.8], [None] * 4)[0].returns, [1.05, 0.65, 0.85, 1.25])
    first, _ = two_stages([0.6, 0.2, 0.4, 0.8], [None] * 4, credit="centered", baselines=[0.6])
    close(first.returns, [0.6 + 0.54, 0.2 + 0.54, 0.4 + 0.54, 0.8 + 0.54])


def test_the_draw_is_a_permutation_by_hash():
    orders = [draw_order(4, 0, step, f"user{u}", 0) for step in range(20) for u in range(50)]
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    assert draw_order(4, 0, 3, "user7", 0) == draw_order(4, 0, 3, "user7", 0)
    first = [order[0] for order in orders]
    assert all(200 <= first.count(i) <= 300 for i in range(4))  # 250 expected, standard deviation 14


def verl_advantages(groups):
    """verl's advantages of groups given as {uid: rewards}, in the same form."""
    np, torch = pytest.importorskip("numpy"), pytest.importorskip("torch")
    from tensordict import TensorDict
    from verl.protocol import DataProto
    from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories

    uids = [uid for uid, rewards in groups.items() for _ in rewards]
    keys = [f"{uid}_{i}_0" for uid, rewards in groups.items() for i in range(len(rewards))]
    rewards = torch.zeros(len(uids), 3)
    rewards[:, -1] = torch.tensor([r for rewards in groups.values() for r in rewards])
    batch = TensorDict(
        {"token_level_rewards": rewards, "response_mask": torch.ones(len(uids), 3)}, batch_size=len(uids)
    )
    data = DataProto(batch=batch, non_tensor_batch={"uid": np.array(uids, dtype=object)})
    values = compute_advantage_for_multi_trajectories(data, keys, "grpo").batch["advantages"]
    assert (values[:, 0] == values[:, 2]).all()
    queue = iter(values[:, 0].tolist())
    return {uid: [next(queue) for _ in rewards] for uid, rewards in groups.items()}


def test_advantages_of_verl_stage_by_stage():
    first, second = two_stages([0.6, 0.2, 0.4, 0.8], [0.9, 0.7, 0.5, 0.7])
    advantages = verl_advantages({"u_s1": first.returns, "u_s2": second.returns})
    # Stage 1: 1.05, 0.83, 0.85, 1.25; mean 0.995, squares sum 0.1163, sample deviation sqrt(0.1163 / 3) = 0.196893.
    assert advantages["u_s1"] == pytest.approx([0.279341, -0.838020, -0.736441, 1.295120], abs=1e-4)
    # Stage 2: mean 0.7, sample deviation sqrt(0.08 / 3) = 0.163299.
    assert advantages["u_s2"] == pytest.approx([1.224745, 0.0, -1.224745, 0.0], abs=1e-4)


def test_advantages_of_verl_for_centered():
    first, _ = two_stages([0.6, 0.2, 0.4, 0.8], [0.9, 0.7, 0.5, 0.7], credit="centered", baselines=[0.6])
    # 1.14, 0.83, 0.94, 1.34; mean 1.0625, squares sum 0.152075, sample deviation 0.225149.
    assert verl_advantages({"u_s1": first.returns})["u_s1"] == pytest.approx(
        [0.344216, -1.032648, -0.544085, 1.232516], abs=1e-4
    )
