"""What is kept of each user's stream at a step: small enough to be sent for every user of every step. Metrics
(alignxplore/rl/metrics.py) and the rows of held-out users (alignxplore/rl/held_out.py) are made of these."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from alignxplore.rl.chain import BAD_FORMAT, Chain, Group, Rollout


@dataclass
class RolloutRecord:
    """One summary. Times are seconds since the chain began; `reward` is None where its judgement failed, `total` where
    it is not trained on; `by_judge`, `letter_a` and `missing` are those of alignxplore/rl/reward.py; `text` is kept in
    validation only."""

    status: str
    tokens: int
    began: float
    written: float
    judged: float | None = None
    reward: float | None = None
    total: float | None = None
    by_judge: dict[str, list[float]] = field(default_factory=dict)
    letter_a: dict[str, list[float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    judge_seconds: float | None = None
    error: str | None = None
    text: str = ""

    @property
    def bad_format(self) -> bool:
        return self.status == BAD_FORMAT


@dataclass
class GroupRecord:
    """The summaries of one prompt; `dropped` interactions were left out of it."""

    stage: int
    prompt_tokens: int
    dropped: int
    drawn_bonus: float | None
    rollouts: list[RolloutRecord]


@dataclass
class ChainRecord:
    """A user's stream; `problem` says why it ended before its last stage, `lost` how many summaries were therefore
    never written. `failed`: the engine could not run it, and nothing is known of the policy."""

    user: str
    step: int
    problem: str | None
    lost: int
    groups: list[GroupRecord]
    seconds: float | None = None
    baselines: list[float | None] = field(default_factory=list)
    failed: bool = False

    @property
    def rollouts(self) -> list[RolloutRecord]:
        """Of all stages."""
        return [rollout for group in self.groups for rollout in group.rollouts]


def chain_record(chain: Chain, step: int, texts: bool = False) -> ChainRecord:
    """What is kept of a chain (with `texts`: what was written, too)."""
    groups = [_group(group, texts) for group in chain.groups]
    baselines = [reward.value for reward in chain.baseline_rewards]
    return ChainRecord(chain.user, step, chain.problem, chain.lost, groups, chain.seconds, baselines)


def _group(group: Group, texts: bool) -> GroupRecord:
    rollouts = [_rollout(rollout, texts) for rollout in group.rollouts]
    return GroupRecord(group.stage, len(group.prompt.ids), group.prompt.dropped, group.drawn_bonus, rollouts)


def _rollout(rollout: Rollout, texts: bool) -> RolloutRecord:
    record = RolloutRecord(
        rollout.status,
        len(rollout.generation.ids),
        rollout.began,
        rollout.written,
        rollout.judged,
        0.0 if rollout.status == BAD_FORMAT else None,
        rollout.total,
        text=rollout.generation.text if texts else "",
    )
    if reward := rollout.reward:
        record.reward, record.error, record.judge_seconds = reward.value, reward.error, reward.seconds
        record.by_judge, record.letter_a, record.missing = reward.by_judge, reward.letter_a, reward.missing
    return record


def failed_record(user: str, step: int, rows: int, error: Exception) -> ChainRecord:
    """A chain that the engine could not run; `rows` rollouts are lost."""
    return ChainRecord(user, step, f"{type(error).__name__}: {error}"[:500], rows, [], failed=True)


def samples(records: Sequence[ChainRecord], step: int) -> list[dict]:
    """What validation users' summaries read like, one row of samples.jsonl a user."""
    return [
        {
            "step": step,
            "user": record.user,
            "stages": [{"text": r.text, "reward": r.reward, "status": r.status} for r in record.rollouts],
        }
        for record in records
    ]
