"""Chains with a scripted policy and judge: what starts when, what is drawn, what is judged, what is left out."""

import asyncio
import math
import random

import pytest

from alignxplore.history import HistoryError
from alignxplore.journal import OK, TRANSPORT_ERROR
from alignxplore.records import Interaction
from alignxplore.rl.chain import BAD_FORMAT, ChainRunner, Generation, Prompt
from alignxplore.rl.credit import draw_order
from alignxplore.rl.dataset import cut_stages
from alignxplore.rl.held_out import held_out_metrics, held_out_rows
from alignxplore.rl.metrics import constant_judge, losses, stage_metrics
from alignxplore.rl.reward import Reward
from alignxplore.rl.settings import Streaming
from alignxplore.rl.step_records import chain_record

HISTORY = [Interaction(f"chosen {i}", f"passed {i}") for i in range(9)]


class Policy:
    """Writes `<think>r</think>summary <stage>.<n>` after `delays[stage][n]`; members in `bad` have no think block."""

    def __init__(self, bad=(), delays=None, too_long=(), broken=()):
        self.bad, self.delays, self.too_long, self.broken = set(bad), delays or {}, too_long, set(broken)
        self.prompts, self.events, self.counts, self.seeds = [], [], {}, {}

    async def prompt(self, interactions, past_summary):
        stage = len(self.prompts)
        if stage in self.too_long:
            raise HistoryError("does not fit")
        self.prompts.append((tuple(interactions), past_summary))
        self.events.append(f"open {stage}")
        return Prompt([stage], 0)

    async def write(self, prompt, seed):
        stage = prompt.ids[0]
        n = self.counts[stage] = self.counts.get(stage, -1) + 1
        self.seeds[stage, n] = seed
        await asyncio.sleep(self.delays.get((stage, n), 0))
        if (stage, n) in self.broken:
            raise RuntimeError("engine died")
        self.events.append(f"wrote {stage}.{n}")
        text = f"summary {stage}.{n}" if (stage, n) in self.bad else f"<think>r</think>summary {stage}.{n}"
        return Generation([1, 2, 3], [-1.0] * 3, text, ())


class Judges:
    """Scores `values[summary]` (default 0.5) after a delay; None fails."""

    def __init__(self, values=None, delay=0.0, events=None):
        self.values, self.delay, self.asked, self.events = (
            values or {},
            delay,
            [],
            events if events is not None else [],
        )

    async def score(self, summary, target, group, rollout=0):
        self.asked.append((summary, target.chosen, tuple(group), rollout))
        await asyncio.sleep(self.delay)
        self.events.append(f"judged {summary}")
        value = self.values.get(summary, 0.5)
        return Reward(
            value, OK if value is not None else TRANSPORT_ERROR, by_judge={} if value is None else {"j": [value]}
        )


def run(policy, judges, training=True, stages=(4, 8), rollouts=4, **settings):
    settings = Streaming(judges="j=http://x/v1", stages=len(stages), rollouts=rollouts, **settings)
    runner = ChainRunner(
        "user",
        cut_stages(HISTORY, list(stages), settings.targets),
        policy,
        judges,
        settings,
        3,
        rollouts if training else 1,
    )
    return asyncio.run(runner.run(training))


def test_stages_hold_what_lies_between_the_targets():
    first, second, third = cut_stages(HISTORY, [2, 5, 8])
    assert [[x.chosen for x in stage.targets] for stage in (first, second, third)] == [
        ["chosen 2"],
        ["chosen 5"],
        ["chosen 8"],
    ]
    assert [x.chosen for x in first.interactions] == ["chosen 0", "chosen 1"]
    assert [x.chosen for x in second.interactions] == [
        "chosen 2",
        "chosen 3",
        "chosen 4",
    ]
    assert [x.chosen for x in third.interactions] == [
        "chosen 5",
        "chosen 6",
        "chosen 7",
    ]


def test_a_stage_may_have_the_choices_after_its_target_as_targets_too():
    history = [*HISTORY]
    history[6] = Interaction("chosen 6", None, "ask 6")  # nothing to tell it from
    early, late = cut_stages(history, [4, 7], targets=3)
    assert [x.chosen for x in early.targets] == ["chosen 4", "chosen 5", "chosen 7"]
    assert [x.chosen for x in late.targets] == ["chosen 7", "chosen 8"], "as far as the history goes"
    assert [x.chosen for x in late.interactions] == ["chosen 4", "chosen 5", "chosen 6"], "what it reads stays"


def test_a_reward_is_the_mean_over_the_targets_and_fails_with_any_of_them():
    class ByTarget(Judges):
        async def score(self, summary, target, group, rollout=0):
            self.asked.append((summary, target.chosen, tuple(group), rollout))
            value = {"chosen 4": 0.9, "chosen 5": 0.6, "chosen 6": None if summary == "summary 0.1" else 0.3}
            confidence = value.get(target.chosen, 0.5)
            return Reward(
                confidence,
                OK if confidence is not None else TRANSPORT_ERROR,
                by_judge={"j": [confidence]} if confidence else {},
            )

    judges = ByTarget()
    first, second = run(Policy(), judges, stages=(4, 8), targets=3, discount=0.0).groups
    rewards = [rollout.reward for rollout in first.rollouts]
    assert [r.value for r in rewards] == [pytest.approx(0.6), None, pytest.approx(0.6), pytest.approx(0.6)]
    assert rewards[0].by_judge == {"j": [0.9, 0.6, 0.3]} and rewards[1].by_judge == {}
    assert first.rollouts[1].status == TRANSPORT_ERROR and first.rollouts[1].total is None, "masked, never scored 0"
    assert [rollout.reward.value for rollout in second.rollouts] == [0.5] * 4
    keys = {(target, key) for _, target, key, _ in judges.asked if target in ("chosen 4", "chosen 5")}
    assert keys == {("chosen 4", ("user", 0)), ("chosen 5", ("user", 0, 1))}, "one order of a target for a whole group"


def test_the_drawn_summary_is_the_past_of_the_next_stage_and_gets_its_mean():
    policy, judges = Policy(), Judges({"summary 1.0": 0.9})
    chain = run(policy, judges)
    drawn = draw_order(4, 0, 3, "user", 0)[0]
    assert chain.groups[0].drawn == drawn and chain.groups[1].parent == drawn
    assert policy.prompts[1][1] == f"summary 0.{drawn}"
    totals = [rollout.total for rollout in chain.groups[0].rollouts]
    assert totals[drawn] == pytest.approx(0.5 + 0.9 * 0.6) and all(
        t == pytest.approx(0.95) for i, t in enumerate(totals) if i != drawn
    )
    assert [rollout.total for rollout in chain.groups[1].rollouts] == [0.9, 0.5, 0.5, 0.5]
    assert {target for _, target, _, _ in judges.asked} == {"chosen 4", "chosen 8"}


def test_each_rollout_is_sampled_with_a_seed_of_its_own_that_a_second_run_has_again():
    first, late, other = Policy(), Policy(delays={(0, 0): 0.05}), Policy()
    for policy, seed in (first, 0), (late, 0), (other, 1):
        run(policy, Judges(), seed=seed)
    seeds = sorted(first.seeds.values())
    assert len(set(seeds)) == len(seeds) == 8
    assert sorted(late.seeds.values()) == seeds and not set(seeds) & set(other.seeds.values())


def test_validation_samples_alike_at_every_step():
    def seeds(training, step):
        policy = Policy()
        runner = ChainRunner(
            "user", cut_stages(HISTORY, [4, 8]), policy, Judges(), Streaming(judges="j=http://x/v1"), step, 1
        )
        asyncio.run(runner.run(training))
        return policy.seeds

    assert seeds(False, 3) == seeds(False, 7) != seeds(True, 3) and seeds(True, 3) != seeds(True, 7)


def test_a_stage_waits_neither_for_rewards_nor_for_the_rest_of_its_group():
    order = draw_order(4, 0, 3, "user", 0)
    policy = Policy(delays={(0, order[-1]): 0.2})
    judges = Judges(delay=0.1, events=policy.events)
    run(policy, judges)
    events = policy.events
    assert events.index("open 1") < events.index(f"judged summary 0.{order[0]}")
    assert events.index("open 1") < events.index(f"wrote 0.{order[-1]}")
    assert events.index(f"judged summary 0.{order[0]}") < events.index(f"wrote 0.{order[-1]}")


def test_bad_format_is_not_judged_not_drawn_and_earns_nothing():
    order = draw_order(4, 0, 3, "user", 0)
    policy, judges = Policy(bad=[(0, order[0]), (1, 2)]), Judges()
    chain = run(policy, judges)
    assert chain.groups[0].drawn == order[1]
    assert chain.groups[0].rollouts[order[0]].total == 0.0 and chain.groups[0].rollouts[order[0]].status == BAD_FORMAT
    assert len(judges.asked) == 6
    assert chain.groups[1].rollouts[2].total == 0.0
    assert chain.groups[0].rollouts[order[1]].total == pytest.approx(0.5 + 0.9 * 0.375)


def test_with_shuffled_rewards_bad_format_may_be_paid_and_the_rewards_on_record_stay_true():
    order = draw_order(4, 0, 3, "user", 0)
    values = {f"summary {stage}.{n}": 0.1 + 0.2 * n for stage in (0, 1) for n in range(4)}
    plain, control = (
        run(Policy(bad=[(0, order[0]), (1, 2)]), Judges(values), shuffle_rewards=shuffle) for shuffle in (False, True)
    )
    paid = 0
    for true, dealt in zip(plain.groups, control.groups, strict=True):
        totals, dealt_totals = ([rollout.total for rollout in group.rollouts] for group in (true, dealt))
        assert sorted(totals) == sorted(dealt_totals) and totals != dealt_totals and dealt.drawn == true.drawn
        assert dealt.scored() == true.scored()
        paid += sum(rollout.total for rollout in dealt.rollouts if rollout.status == BAD_FORMAT)
    assert paid > 0
    assert control.groups[0].drawn_bonus is None


def test_without_any_well_formed_summary_the_stream_goes_on_with_none():
    policy = Policy(bad=[(0, n) for n in range(4)])
    chain = run(policy, Judges())
    assert chain.groups[0].drawn is None and policy.prompts[1][1] is None
    assert [rollout.total for rollout in chain.groups[0].rollouts] == [0.0] * 4
    assert [rollout.total for rollout in chain.groups[1].rollouts] == [0.5] * 4


def test_failed_and_nan_judgements_are_left_out_and_counted():
    chain = run(Policy(), Judges({"summary 1.0": None, "summary 1.1": math.nan, "summary 0.3": None}))
    assert [rollout.total for rollout in chain.groups[1].rollouts] == [None, None, 0.5, 0.5]
    assert chain.groups[0].rollouts[3].total is None
    share, reasons = losses([chain_record(chain, 3)])
    assert share == pytest.approx(2 / 8) and list(reasons)[0].startswith(TRANSPORT_ERROR)


def test_a_group_left_with_one_row_is_dropped():
    chain = run(Policy(), Judges({f"summary 1.{n}": None for n in range(3)}))
    assert [rollout.total for rollout in chain.groups[1].rollouts] == [None] * 4


def test_centered_asks_for_a_baseline_that_does_not_hold_up_the_stream():
    judges = Judges({None: 0.7})
    chain = run(Policy(), judges, credit="centered")
    assert [reward.value for reward in chain.baseline_rewards] == [0.7], "no return of stage 1 or 2 holds stage 1's"
    assert sum(summary is None for summary, *_ in judges.asked) == 1
    other_totals = [r.total for i, r in enumerate(chain.groups[0].rollouts) if i != chain.groups[0].drawn]
    assert other_totals == pytest.approx([0.5 + 0.9 * 0.7] * 3)
    metrics = stage_metrics([chain_record(chain, 3)])
    assert metrics["stage2/baseline"] == pytest.approx(0.7) and metrics["stage2/baselines_failed"] == 0


def test_baselines_that_failed_are_counted_and_stand_at_half():
    failed, sound = (
        run(Policy(), Judges({None: None}), credit="centered"),
        run(Policy(), Judges({None: 0.8}), credit="centered"),
    )
    other_totals = [r.total for i, r in enumerate(failed.groups[0].rollouts) if i != failed.groups[0].drawn]
    assert other_totals == pytest.approx([0.5 + 0.9 * 0.5] * 3)
    metrics = stage_metrics([chain_record(failed, 3), chain_record(sound, 3)])
    assert metrics["stage2/baselines_failed"] == 1 and metrics["stage2/baseline"] == 0.8
    assert {"stage1/baseline", "stage1/baselines_failed"}.isdisjoint(metrics), "nobody asked for it"
    assert "stage2/baseline" not in stage_metrics([chain_record(run(Policy(), Judges()), 3)])


def test_three_stages():
    policy = Policy()
    chain = run(policy, Judges(), stages=(2, 5, 8), rollouts=2)
    assert [group.stage for group in chain.groups] == [0, 1, 2]
    assert policy.prompts[2][1] == f"summary 1.{chain.groups[1].drawn}"


def test_a_prompt_that_cannot_fit_ends_the_chain_and_says_so():
    chain = run(Policy(too_long=[1]), Judges())
    assert len(chain.groups) == 1 and chain.problem.startswith("too_long: stage 2")
    assert [rollout.total for rollout in chain.groups[0].rollouts] == [0.5] * 4


def test_without_thinking_the_whole_answer_is_the_summary():
    chain = run(Policy(bad=[(k, n) for k in range(2) for n in range(4)]), Judges(), thinking=False)
    assert [r.answer.summary for r in chain.groups[0].rollouts] == [f"summary 0.{n}" for n in range(4)]
    assert all(r.status == OK and r.total is not None for group in chain.groups for r in group.rollouts)
    thinking = run(Policy(), Judges(), thinking=False)  # a block that nobody asked for
    assert {r.status for r in thinking.groups[0].rollouts} == {BAD_FORMAT}


@pytest.mark.parametrize(
    ("too_long", "settings", "lost"), [([0], {}, 8), ([1], {}, 4), ([1], {"stages": (2, 5, 8)}, 8)]
)
def test_what_is_never_written_is_lost(too_long, settings, lost):
    chain = run(Policy(too_long=too_long), Judges(), **settings)
    count = sum(len(group.rollouts) for group in chain.groups)
    share, reasons = losses([chain_record(chain, 3)])
    assert chain.lost == lost and share == lost / (lost + count)
    assert all(reason.startswith("too_long: stage") for reason in reasons)
    assert stage_metrics([chain_record(chain, 3)])["lost/unwritten"] == lost


def test_a_stage_of_validation_that_is_never_written_counts_nothing():
    full, cut, none = (
        chain_record(run(Policy(too_long=too_long), Judges(), training=False), 0, texts=True)
        for too_long in ([], [1], [0])
    )
    metrics = held_out_metrics(held_out_rows([full, cut], 0, 2), [], ["j"])
    assert (metrics["val/stage1/reward"], metrics["val/stage2/reward"], metrics["val/reward"]) == (0.5, 0.25, 0.375)
    assert held_out_metrics(held_out_rows([none, none], 0, 2), [], ["j"])["val/reward"] == 0
    assert stage_metrics([none, none], "val/")["val/lost_share"] == 1


def test_an_engine_error_ends_the_chain_with_that_error():
    with pytest.raises(RuntimeError, match="engine died"):
        run(Policy(broken=[(1, 1)]), Judges())


def test_validation_writes_one_summary_a_stage_and_credits_nothing():
    chain = run(Policy(), Judges({"summary 1.0": 0.8}), training=False)
    assert [len(group.rollouts) for group in chain.groups] == [1, 1]
    assert all(r.total is None for group in chain.groups for r in group.rollouts)
    metrics = stage_metrics([chain_record(chain, 0, texts=True)], "val/")
    assert metrics["val/stage2/confidence/j"] == 0.8


def test_metrics_by_stage():
    policy = Policy(bad=[(1, 0)])
    chain = run(policy, Judges({"summary 1.1": None, "summary 1.2": 0.9}))
    metrics = stage_metrics([chain_record(chain, 3)])
    assert (
        metrics["generated_tokens"] == 3 * 8 and metrics["stage2/bad_format"] == 0.25 and metrics["stage2/failed"] == 1
    )
    assert metrics["stage2/reward"] == pytest.approx((0.0 + 0.9 + 0.5) / 3)
    assert metrics["stage1/drawn_bonus"] == pytest.approx(0.9 * (1.4 / 3) - 0.45)
    assert metrics["lost_share"] == pytest.approx(1 / 8) and metrics["lost/transport_error"] == 1
    assert (
        metrics["stage1/all_bad_groups"] == metrics["stage2/all_bad_groups"] == metrics["stage2/dropped_groups"] == 0
    )


def test_groups_without_signal_are_counted():
    dropped = run(Policy(), Judges({f"summary 1.{n}": None for n in range(3)}))
    bad = run(Policy(bad=[(0, n) for n in range(4)]), Judges())
    metrics = stage_metrics([chain_record(dropped, 3), chain_record(bad, 3)])
    assert metrics["stage2/dropped_groups"] == 1 and metrics["stage1/dropped_groups"] == 0
    assert metrics["stage1/all_bad_groups"] == 1 and metrics["stage2/all_bad_groups"] == 0
    assert "val/stage1/dropped_groups" not in stage_metrics([chain_record(dropped, 3)], "val/")


@pytest.mark.parametrize("credit", ["paper", "centered"])
def test_groups_whose_rewards_are_too_alike_are_not_trained_on(credit):
    """Of stage 1 they differ by 0.0001 and by the bonus of the draw, of stage 2 by 0.3."""
    values = {"summary 0.0": 0.5001, "summary 1.1": 0.8}
    every = run(Policy(), Judges(values), credit=credit)
    some = run(Policy(), Judges(values), credit=credit, least_spread=0.01)
    assert [r.total for r in some.groups[0].rollouts] == [None] * 4
    assert [r.total for r in some.groups[1].rollouts] == [r.total for r in every.groups[1].rollouts]
    metrics = stage_metrics([chain_record(some, 3)])
    assert (metrics["stage1/dropped_groups"], metrics["stage2/dropped_groups"], metrics["lost_share"]) == (1, 0, 0)
    bad = run(Policy(bad=[(0, 1)]), Judges({}), credit=credit, least_spread=0.01)
    assert bad.groups[0].rollouts[1].total == 0, "bad format is a reward of 0"


class Leaning(Judges):
    """Gives the letter A what `p_a(question, chosen first)` says, in both orders."""

    def __init__(self, p_a):
        super().__init__()
        self.p_a = p_a

    async def score(self, summary, target, group, rollout=0):
        return Reward(0.5, by_judge={"j": [0.5]}, letter_a={"j": [self.p_a(first) for first in (True, False)]})


@pytest.mark.parametrize(
    ("p_a", "named"),
    [
        (lambda first: 0.99, "between 0.9900 and 0.9900 in all 128 questions"),
        (lambda first: random.uniform(0.95, 0.999), "between 0.95"),
        (lambda first: random.uniform(0.001, 0.05), "between 0.00"),
        (lambda first: 0.85, "between 0.8500"),
        (lambda first: random.uniform(0.6, 0.65), None),  # a summary that tells nothing, and a slight habit
        (lambda first: 0.9 if first else 0.1, None),
        (lambda first: 0.99 if first else random.uniform(0.4, 0.9), None),  # leans far, and yet reads
    ],
)
def test_a_judge_that_goes_by_the_place_is_named(p_a, named):
    random.seed(0)
    few = [chain_record(run(Policy(), Leaning(p_a)), 3) for _ in range(7)]
    assert constant_judge(few) is None  # 14 groups are too few to say so
    fault = constant_judge([*few, chain_record(run(Policy(), Leaning(p_a)), 3)])
    assert fault is None if named is None else fault.startswith("judge j gives the letter A a probability " + named)


def test_the_habit_of_a_judge_is_a_metric():
    assert stage_metrics([chain_record(run(Policy(), Leaning(lambda first: 0.99)), 3)])[
        "stage1/position_bias/j"
    ] == pytest.approx(0.49)
