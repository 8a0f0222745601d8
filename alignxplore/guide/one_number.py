"""One number of a table, end to end: the page docs/one-number.md, from a finished quick start.

    python -m alignxplore.guide.one_number --run runs/quickstart --out docs/one-number.md

Each step is shown with what really stands in the run's files, and with the function that made it. RL keeps no single
rollouts, so one group is written and judged anew: by the run's models and the code of training (group.py).
"""

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils.logging import disable_progress_bar

from alignxplore.benchmark_files import parse_interaction
from alignxplore.command import option, run
from alignxplore.environment import ROOT
from alignxplore.errors import UserError
from alignxplore.evaluation.benchmarks import Benchmark, find_sets, load_benchmarks, shown_history
from alignxplore.evaluation.results import result_rows, values_by_record
from alignxplore.evaluation.rows import Result, read_results, read_scores
from alignxplore.evaluation.scores import score_rows
from alignxplore.evaluation.worth import Key, Score
from alignxplore.films.example import film
from alignxplore.guide import group as one_group
from alignxplore.judging.judgement import Judgement, correctness
from alignxplore.judging.letters import Judge
from alignxplore.prompts import PromptSet, parse_answer
from alignxplore.records import Interaction, UserRecord, write_text
from alignxplore.rl.chain import Chain, Group
from alignxplore.rl.credit import stream_returns
from alignxplore.rl.dataset import Stage, cut_stages
from alignxplore.rl.reward import Judges, mean_reward
from alignxplore.rl.rows import read_rows
from alignxplore.rl.settings import Streaming
from alignxplore.statistics import estimate

POLICY, SETTING, JUDGE, PROTOCOL = "sft+rl", "full", "judge", "choice"
TOKENS = 112  # of an answer in the quick start


@dataclass(kw_only=True)
class OneNumberOptions:
    """Of which run and person."""

    run: Path = option("folder of a finished quick start on films", ROOT / "runs/quickstart")
    person: str = option("test person (user id) whose row is followed", "331#7")
    user: str | None = option("training user whose group is shown; default: the first row of rl_train.jsonl", None)
    out: Path = option("Markdown file")


def place(function: Callable[..., Any] | type) -> str:
    """file:name of a function of ours, from the function itself, so that it cannot be wrong."""
    path = Path(inspect.getsourcefile(function) or "").resolve().relative_to(ROOT)
    return f"`{path}:{function.__qualname__}`"


def write_one_number(options: OneNumberOptions) -> str:
    """Write the page."""
    disable_progress_bar()
    (benchmark,) = load_benchmarks([str(options.run / "data/movielens_upi.jsonl")])
    record = next((candidate for candidate in benchmark.records if candidate.user == options.person), None)
    if record is None:
        raise UserError(f"{benchmark.path}: no person '{options.person}'")
    parts = [
        _head(options),
        *_training(options),
        _row(benchmark, record),
        _prompt(benchmark, record),
        _answer(options, benchmark, record),
        *_numbers(options, benchmark, record),
    ]
    write_text(options.out, "\n\n".join(parts) + "\n")
    return f"{options.out} is written"


def _head(options: OneNumberOptions) -> str:
    return """# One number, end to end

A number of a table begins as a choice that somebody made. This page follows one through all that happens to it.

Everything on it was read from a finished quick start (seed 1) by a script, or computed anew by the code of training:

```bash
# after lesson 2
python -m alignxplore.guide.one_number --run runs/quickstart --out docs/one-number.md
```

Each step names the file and the function that did it. A test checks that all of them exist.
The first half is training: how a summary earns an *advantage*.
The second half is evaluation: how a summary becomes a *cell*."""


def _training(options: OneNumberOptions) -> list[str]:
    """Row, prompt, rollouts, rewards, returns and advantages of one user."""
    path = options.run / "data/rl_train.jsonl"
    row = next((row for row, _ in read_rows(path, 2) if options.user in (None, row["user"])), None)
    if row is None:
        raise UserError(f"{path}: no user '{options.user}'" if options.user else f"{path}: no row in it")
    settings = Streaming(rollouts=8, targets=8, seed=0, judges="judge=http://localhost")
    stages = cut_stages(_interactions(row), row["positions"], settings.targets)
    chain = one_group.run_chain(_interactions(row), row["positions"], row["user"], settings, options.run, TOKENS)
    group = chain.groups[0]
    return [
        f"""## 1 · A row of training

Line 1 of `data/rl_train.jsonl`: user `{row["user"]}`, {len(row["history"])} interactions, targets at
{row["positions"]}. Read by {place(read_rows)}, cut by {place(cut_stages)}:

| stage | reads | is judged by |
|---|---|---|
{_stage_lines(stages)}""",
        f"""## 2 · Its prompt

Rendered by {place(PromptSet.infer)} from `alignxplore/prompts/default/infer.jinja`.
In stage 1 it has {len(group.prompt.ids)} tokens and begins:

```text
{_beginning(PromptSet().infer(stages[0].interactions)[-1]["content"], 9)}
```""",
        _rollouts(group),
        _returns(chain, settings),
        _advantages(group),
    ]


def _interactions(row: dict) -> list[Interaction]:
    return [parse_interaction(interaction) for interaction in row["history"]]


def _stage_lines(stages: Sequence[Stage]) -> str:
    return "\n".join(
        f"| {k} | {len(stage.interactions)} interactions | {len(stage.targets)} that follow, "
        f"the first: *{film(stage.targets[0].chosen)}*, not *{film(stage.targets[0].rejected or '')}* |"
        for k, stage in enumerate(stages, 1)
    )


def _beginning(text: str, lines: int) -> str:
    return "\n".join([*text.splitlines()[:lines], "..."])


def _summary(group: Group, i: int) -> str:
    answer = group.rollouts[i].answer
    return " ".join(answer.summary.split()) if answer.well_formed else f"bad format: {answer.problem}"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _rollouts(group: Group) -> str:
    lines = "\n".join(
        f"| {i + 1} | {_summary(group, i)} | {_number(reward)} |" for i, reward in enumerate(group.earned())
    )
    return f"""## 3 · Eight rollouts, eight rewards

The policy writes eight answers ({place(one_group.ChainRunner)}); {place(parse_answer)} takes each apart.
The judge is asked about each target in both orders ({place(Judges.score)}). The reward is the mean of its confidences
({place(mean_reward)}). Bad format earns 0 and is not judged.

| rollout | summary of stage 1 | reward r |
|---|---|---|
{lines}

These eight were written anew by transformers, since a run keeps no single rollouts. vLLM would draw others."""


def _returns(chain: Chain, settings: Streaming) -> str:
    first_group, last_group = chain.groups[0], chain.groups[-1]
    totals = [rollout.total for rollout in last_group.rollouts if rollout.total is not None]
    mean = sum(totals) / len(totals)
    number = "none" if first_group.drawn is None else str(first_group.drawn + 1)
    return f"""## 4 · The drawn one answers for what was built on it

Rollout {number} was drawn by a hash. Its summary is what stage 2 was told of the past.
Stage 2 earned {mean:.4f} on average. {place(stream_returns)} adds
a part of it, with λ = {settings.discount} and credit `{settings.credit}`:

```text
drawn       R = r + λ · mean(stage 2) = r + {settings.discount * mean:.4f}
others      R = r + λ · 0.5           = r + {settings.discount * 0.5:.4f}
bad format  R = 0
```"""


def _advantages(group: Group) -> str:
    lines = "\n".join(
        f"| {i + 1}{' (drawn)' if i == group.drawn else ''} | {_number(reward)} | {_number(rollout.total)} "
        f"| {_number(advantage)} |"
        for i, (reward, rollout, advantage) in enumerate(
            zip(group.earned(), group.rollouts, one_group.advantages(group))
        )
    )
    totals = [rollout.total for rollout in group.rollouts if rollout.total is not None]
    mean = sum(totals) / len(totals)
    spread = (sum((total - mean) ** 2 for total in totals) / (len(totals) - 1)) ** 0.5
    return f"""## 5 · The advantage

verl compares within the group (`compute_grpo_outcome_advantage` of verl 0.9.1):

```text
A = (R - mean(R)) / (std(R) + 0.000001)        mean {mean:.4f}, std {spread:.4f} (n - 1)
```

| rollout | reward r | return R | advantage A |
|---|---|---|---|
{lines}

Every token of a rollout gets its advantage. What is above 0 becomes more probable, what is below 0 less.
Beyond this the update is verl's own: clipped policy gradient, no KL, no entropy bonus."""


def _row(benchmark: Benchmark, record: UserRecord) -> str:
    interactions = shown_history(benchmark, record)
    chosen, rejected = map(film, record.target.items)
    line = record.source.rpartition(":")[2]
    return f"""## 6 · A row of the test

After 40 such updates the policy writes about people whom it has never seen.
User `{record.user}` stands in line {line} of `data/movielens_upi.jsonl`.
The row's id is the hash of its content, `{record.id}` ({place(UserRecord)}).
Of {len(record.history)} interactions {len(interactions)} are shown
({place(shown_history)}). The target: *{chosen}* was taken, *{rejected}* was not."""


def _prompt(benchmark: Benchmark, record: UserRecord) -> str:
    prompts = PromptSet()
    text = prompts.infer(shown_history(benchmark, record))[-1]["content"]
    return f"""## 7 · The same prompt

The same template through the same function ({place(PromptSet.infer)}), hash `{prompts.hash("infer")}`:

```text
{_beginning(text, 9)}
```"""


def _answer(options: OneNumberOptions, benchmark: Benchmark, record: UserRecord) -> str:
    stage = _stage(options, benchmark, record)
    return f"""## 8 · Its summary

A line of `eval/summaries/{POLICY}/movielens.{SETTING}.s0.jsonl`: {stage["prompt_tokens"]} tokens of prompt,
{stage["tokens"]} of answer. The policy is told nothing of the target.

```text
{stage["text"]}
```"""


def _stage(options: OneNumberOptions, benchmark: Benchmark, record: UserRecord) -> dict:
    for summaries in find_sets(options.run / "eval", [POLICY]):
        if summaries.benchmark == benchmark.name and summaries.setting == SETTING:
            return summaries.by_record()[record.id]["stages"][-1]
    raise UserError(f"{options.run}/eval: no summaries of {POLICY}; let the quick start finish")


def _numbers(options: OneNumberOptions, benchmark: Benchmark, record: UserRecord) -> list[str]:
    scores, own_score, result = numbers_of(options.run, benchmark, record)
    judge = one_group.LocalJudge(options.run / "models" / JUDGE)
    p_again = judge.p_chosen(_stage(options, benchmark, record)["summary"], record.target)
    return [_judgement(own_score, record, p_again), _interval(scores, result), _cell(result)]


def numbers_of(run: Path, benchmark: Benchmark, record: UserRecord) -> tuple[list[Score], Score, Result]:
    """All scores of the cell, the one of the person, and the cell.

    Raises:
        UserError: the run is not as far.
    """
    key = Key(POLICY, SETTING, benchmark.name, JUDGE, PROTOCOL)
    scores = [score for score in read_scores(run / "eval") if score.key == key]
    own_score = next((score for score in scores if score.record == record.id), None)
    results = read_results(run / "eval/results.json")
    result = next((candidate for candidate in results if candidate.key == key), None)
    if own_score is None or result is None:
        raise UserError(f"{run}/eval: no score of {POLICY} by {JUDGE} for '{record.user}'; let the quick start finish")
    return scores, own_score, result


def _judgement(score: Score, record: UserRecord, p_again: float) -> str:
    ((p_when_first, p_when_second),) = score.orders
    judgement = Judgement(p_chosen_first=p_when_first, p_chosen_second=p_when_second)
    chosen, rejected = map(film, record.target.items)
    outcome = "right" if judgement.correct == 1 else "wrong" if judgement.correct == 0 else "undecided"
    return f"""## 9 · The judgement

The judge reads that summary and no history ({place(Judge.score)}). It is asked in both orders:

| Item A | Item B | P(chosen) |
|---|---|---|
| {chosen} | {rejected} | {p_when_first:.4f} |
| {rejected} | {chosen} | {p_when_second:.4f} |

The mean is p = {judgement.p:.4f} ({place(Judgement)}). Above 0.5 is right ({place(correctness)}).
So this row is {outcome}: score {score.value}. Asked anew in this process, without vLLM, p is {p_again:.4f}.
It is a line of `eval/scores.jsonl`, made by {place(score_rows)}."""


def _interval(scores: list[Score], result: Result) -> str:
    values = values_by_record(scores)
    hits, halves = (sum(score == value for score in values.values()) for value in (1, 0.5))
    return f"""## 10 · The interval

Of {result.n} such rows {hits} are right. {halves} count one half: a tie, or a summary in bad format.
The mean is {result.accuracy:.6f}.

The rows are of {result.clusters} persons. Rows of one person, or of one film, depend on each other.
{place(estimate)} draws persons anew 4,000 times.
It also computes the variance by persons and films. The wider of both intervals counts.
They are worth {result.n / result.design_effect:.0f} independent rows (design effect {result.design_effect:.2f})."""


def _cell(result: Result) -> str:
    entry = json.dumps({name: result.row()[name] for name in ("policy", "setting", "judge", "n", "accuracy")})
    low, high = result.ci_low or 0.0, result.ci_high or 0.0
    return f"""## 11 · The cell

{place(result_rows)} makes one entry of `eval/results.json` of it:

```json
{entry}
```

And the table says: **{100 * (result.accuracy or 0):.1f} [{100 * low:.1f}, {100 * high:.1f}]**."""


if __name__ == "__main__":
    run(write_one_number, OneNumberOptions, __doc__)
