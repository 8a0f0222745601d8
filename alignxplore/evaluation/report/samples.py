"""Users of each benchmark with all that is known of them, for the browser in report.html. Written by evaluate.py.

samples.jsonl: one line a user with history, target, the summaries of every policy and setting (stage by stage, with
their prompts), and what each downstream model was asked and made of them. Which users: those with the smallest record
ids, a sample that no result has a say in; and some of each kind that is worth a look (`KINDS`), whose share here says
nothing.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from string import ascii_uppercase

from alignxplore.benchmark_files import target_row
from alignxplore.evaluation.benchmarks import Benchmark, SummarySet, shown_history
from alignxplore.evaluation.fits import FITS, fit_of, stage_slices
from alignxplore.evaluation.worth import Score
from alignxplore.prompts import Messages, PromptSet
from alignxplore.records import Interaction, Offer, UserRecord

SAMPLES = 200  # users of each benchmark
OF_EACH_KIND = 10  # users of each benchmark and kind, where there are as many
HISTORY = 60  # interactions of each, the newest that are shown to a policy
LONGEST_PROMPT = 8000  # characters of a prompt; of a longer one the middle is left out
BY_OUTCOME = {"bad_format": "bad format", "parse_failure": "answer not read", "missing": "missing"}
KINDS = (*BY_OUTCOME.values(), "wrong", "flips with the order", "policies disagree")
STAGE_FIELDS = ("reasoning", "summary", "problem", "dropped")
SCORE_FIELDS = ("policy", "setting", "seed", "judge", "protocol", "value", "outcome", "p", "orders", "unread")
AMONG_K = ("k", "flips")  # more of them where a choice is among k items


@dataclass
class Sample:
    """One line of samples.jsonl. `shown` counts the interactions that a policy may read, from the oldest on, `history`
    holds the newest of them; `prompts` are named by their place in stages and scores."""

    benchmark: str
    record: str
    user: str
    kinds: list[str]
    target: dict
    shown: int = 0
    history: list[dict] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    summaries: list[dict] = field(default_factory=list)
    scores: list[dict] = field(default_factory=list)

    def show(self, history: Sequence[Interaction]) -> None:
        """Hold the newest of these interactions, if they are more than those before."""
        if len(history) > self.shown:
            self.shown, self.history = len(history), [asdict(x) for x in history[-HISTORY:]]

    def prompt(self, messages: Messages) -> int:
        """Place of a rendered prompt among `prompts`, where it stands once."""
        text = "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in messages)
        if len(text) > LONGEST_PROMPT:
            half = LONGEST_PROMPT // 2
            text = f"{text[:half]}\n[… {len(text) - 2 * half} characters left out here …]\n{text[-half:]}"
        if text not in self.prompts:
            self.prompts.append(text)
        return self.prompts.index(text)


def kinds_of(scores: Iterable[Score]) -> dict[tuple[str, str], list[str]]:
    """(benchmark, record) → the kinds of `KINDS` that some policy's own summary shows there."""
    kinds: dict[tuple[str, str], set[str]] = defaultdict(set)
    right: dict[tuple[str, ...], set[bool]] = defaultdict(set)
    for score in scores:
        if score.setting not in ("full", "streaming") or score.policy.startswith("other user's"):
            continue
        own_kinds = kinds[score.benchmark, score.record]
        if score.outcome in BY_OUTCOME:
            own_kinds.add(BY_OUTCOME[score.outcome])
        elif (is_right := decided(score)) is not None:
            right[score.benchmark, score.record, score.setting, score.judge, score.protocol].add(is_right)
            own_kinds.update([] if is_right else ["wrong"])
        own_kinds.update(["flips with the order"] if any(score.flips or ()) else [])
    for (benchmark, record, *_), verdicts in right.items():
        if len(verdicts) > 1:
            kinds[benchmark, record].add("policies disagree")
    return {place: [kind for kind in KINDS if kind in row_kinds] for place, row_kinds in kinds.items()}


def decided(score: Score) -> bool | None:
    """Whether a score is right; None where it says neither. Among k items a tie may be worth less than half."""
    value = score.value
    if value is None:
        return None
    wrong = value < 0.5 if score.of_pair else value == 0
    return True if value > 0.5 else False if wrong else None


def _picked(records: Sequence[UserRecord], kinds: dict[str, list[str]]) -> list[UserRecord]:
    """A sample by id, then some of each kind."""
    groups: list[tuple[int, Iterable[UserRecord]]] = [(SAMPLES, records)]
    groups += [(OF_EACH_KIND, [r for r in records if kind in kinds[r.id]]) for kind in KINDS]
    picks = {r.id: r for count, group in groups for r in heapq.nsmallest(count, group, key=lambda r: r.id)}
    return list(picks.values())


def sample_rows(
    benchmarks: Iterable[Benchmark], sets: Iterable[SummarySet], scores: Iterable[Score], prompts: PromptSet
) -> list[dict]:
    """The lines of samples.jsonl.

    Args:
        prompts: the set that the downstream models were asked with.
    """
    scores, places_of = list(scores), {}
    kinds = kinds_of(scores)
    for benchmark in benchmarks:
        kinds_by_id = {record.id: kinds.get((benchmark.name, record.id), []) for record in benchmark.records}
        for record in _picked(benchmark.records, kinds_by_id):
            target, kinds_here = target_row(record.target), kinds_by_id[record.id]
            sample = Sample(benchmark.name, record.id, record.user, kinds_here, target)
            sample.show(shown_history(benchmark, record))
            places_of[benchmark.name, record.id] = benchmark, record, sample
    for summaries in sets:
        _add_summaries(summaries, [place for place in places_of.values() if place[0].name == summaries.benchmark])
    for score in scores:
        if place := places_of.get((score.benchmark, score.record)):
            _add_score(score, *place, prompts)
    return [asdict(sample) for _, _, sample in places_of.values()]


def _add_summaries(summaries: SummarySet, places: list[tuple[Benchmark, UserRecord, Sample]]) -> None:
    rows, meta = summaries.by_record() if places else {}, summaries.meta() or {}
    prompts, form = _infer_prompts(meta), meta.get("sampling", {}).get("form", "think")
    for benchmark, record, sample in places:
        if row := rows.get(record.id):
            stages, past, drop_counts = [], "", [stage["dropped"] for stage in row["stages"]]
            slices = stage_slices(fit_of(meta), benchmark.task, record.history, drop_counts)
            # The published fit may reach beyond what is shown of a whole history.
            sample.show(record.history[: sum(map(len, slices))])
            for part, stage in zip(slices, row["stages"]):
                fields = {key: stage[key] for key in STAGE_FIELDS}
                if stage["problem"]:  # else the answer is what was read from it
                    fields["text"] = stage["text"]
                if prompts:
                    fields["prompt"] = sample.prompt(prompts.infer(part[stage["dropped"] :], past, form))
                stages.append(fields)
                past = stage["summary"]
            about = {"policy": summaries.policy, "setting": summaries.setting, "seed": summaries.seed}
            sample.summaries.append(about | {"error": row["error"], "stages": stages})


def _infer_prompts(meta: dict) -> PromptSet | None:
    """The prompts of a policy; None where its templates are not at hand as they were."""
    try:
        prompts = PromptSet(meta["prompt_set"], meta.get("summary_tokens"))
        is_same = prompts.hash("infer") == meta["prompt_hash"] and fit_of(meta) == FITS[0]
        return prompts if is_same else None
    except (KeyError, OSError, ValueError):
        return None


def _question(prompts: PromptSet, summary: str | None, target: Interaction) -> Messages:
    """What a downstream model is asked, with what was chosen first; of more items than there are letters the first."""
    if isinstance(target, Offer):
        return prompts.choose(summary, None, target.query, list(zip(ascii_uppercase, target.candidates)))
    return prompts.judge(summary, target.query, *target.items)


def _add_score(score: Score, benchmark: Benchmark, record: UserRecord, sample: Sample, prompts: PromptSet) -> None:
    names = SCORE_FIELDS if score.of_pair else (*SCORE_FIELDS, *AMONG_K)
    row = {key: getattr(score, key) for key in names} | ({} if score.orders else {"orders": None})
    if score.policy == "no summary":
        row["prompt"] = sample.prompt(_question(prompts, None, record.target))
    elif score.setting in ("full", "streaming") and score.outcome in ("ok", "parse_failure"):
        key = (score.policy, score.setting, score.seed)
        own_summary = next((s for s in sample.summaries if (s["policy"], s["setting"], s["seed"]) == key), None)
        if own_summary and own_summary["stages"]:
            row["prompt"] = sample.prompt(_question(prompts, own_summary["stages"][-1]["summary"], record.target))
    sample.scores.append(row)
