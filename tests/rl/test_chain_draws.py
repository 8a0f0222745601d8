"""What of a chain is drawn by a hash, what of its key each draw depends on, and what a chain leaves behind."""

import asyncio

import pytest

from alignxplore.rl.chain import ChainRunner
from alignxplore.rl.credit import draw_order
from alignxplore.rl.dataset import cut_stages
from alignxplore.rl.settings import Streaming
from tests.rl.test_chain import HISTORY, Judges, Policy, run

ORDER = draw_order(4, 0, 3, "user", 0)


def test_a_stage_without_a_well_formed_summary_hands_on_none_of_an_earlier_one():
    policy = Policy(bad=[(1, n) for n in range(4)])
    chain = run(policy, Judges(), stages=(2, 5, 8))
    assert policy.prompts[1][1] == f"summary 0.{ORDER[0]}" and chain.groups[1].parent == ORDER[0]
    assert policy.prompts[2][1] is None and chain.groups[2].parent is None and chain.groups[1].drawn is None


def test_summaries_upon_another_one_are_sampled_with_other_seeds():
    first, second = Policy(), Policy(bad=[(0, ORDER[0])])
    for policy in (first, second):
        run(policy, Judges())
    same, other = ({first.seeds[k, n] == second.seeds[k, n] for n in range(4)} for k in range(2))
    assert same == {True} and other == {False}


def permutations(user, step, rollouts=8):
    """Of each stage, where the summary stood whose return each one got."""
    values = {f"summary {k}.{n}": 0.1 * n for k in range(2) for n in range(rollouts)}
    settings = Streaming(judges="j=http://x/v1", rollouts=rollouts, discount=0.0, shuffle_rewards=True)
    stages = cut_stages(HISTORY, [4, 8])
    chain = asyncio.run(ChainRunner(user, stages, Policy(), Judges(values), settings, step, rollouts).run())
    return [tuple(round(10 * rollout.total) for rollout in group.rollouts) for group in chain.groups]


def test_shuffled_rewards_are_dealt_out_anew_in_each_stage_of_each_user_at_each_step():
    """One deal for all would pay the same places again and again."""
    deals = [deal for user in ("u", "v") for step in (3, 4) for deal in permutations(user, step)]
    assert {tuple(sorted(deal)) for deal in deals} == {tuple(range(8))} and len(set(deals)) == len(deals) == 8
    assert permutations("u", 3) == deals[:2], "a second run deals alike"


@pytest.mark.parametrize("credit", ["paper", "centered"])
async def test_an_engine_error_leaves_nobody_at_work(credit):
    """Neither what is being written and judged nor the baselines, which would go on into the next step."""
    broken, judged, *others = ORDER
    policy = Policy(broken=[(0, broken)], delays={(0, broken): 0.05} | {(0, n): 60.0 for n in others})
    judges = Judges(delay=60.0)
    settings = Streaming(judges="j=http://x/v1", credit=credit)
    before = asyncio.all_tasks()
    with pytest.raises(RuntimeError, match="engine died"):
        await ChainRunner("user", cut_stages(HISTORY, [4, 8]), policy, judges, settings, 3, 4).run()
    assert f"summary 0.{judged}" in [summary for summary, *_ in judges.asked], "one was being judged"
    await asyncio.sleep(0.01)
    assert asyncio.all_tasks() == before
