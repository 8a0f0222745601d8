"""A few users of each benchmark with all that is known of them, for the browser in report.html. Written by
evaluate.py.

samples.jsonl: one line a user with history, target, the summaries of every policy and setting (stage by stage), and
what each downstream model made of them. Which users: those with the smallest record ids, a sample that no result has a
say in, and beside them a few of whom an answer could not be parsed.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict

from alignxplore.evaluation.benchmarks import Benchmark, SummarySet, shown_history
from alignxplore.records import UserRecord

SAMPLES = 12  # users of each benchmark
UNREAD = 4  # more users of each benchmark, with answers that could not be parsed
HISTORY = 60  # interactions of each, the newest that are shown to a policy
STAGE_FIELDS = ("reasoning", "summary", "problem", "dropped")
SCORE_FIELDS = ("policy", "setting", "seed", "judge", "protocol", "value", "outcome", "p", "orders", "unread")


def _smallest(count: int, records: Iterable[UserRecord]) -> list[UserRecord]:
    return heapq.nsmallest(count, records, key=lambda record: record.id)


def sample_rows(benchmarks: Iterable[Benchmark], sets: Iterable[SummarySet], scores: Iterable[dict]) -> list[dict]:
    """The lines of samples.jsonl."""
    rows: dict[tuple[str, str], dict] = {}
    scores = list(scores)
    failed = {(score["benchmark"], score["record"]) for score in scores if score["outcome"] == "parse_failure"}
    for benchmark in benchmarks:
        unread = [record for record in benchmark.records if (benchmark.name, record.id) in failed]
        for record in [*_smallest(SAMPLES, benchmark.records), *_smallest(UNREAD, unread)]:
            shown = shown_history(benchmark, record)
            rows[benchmark.name, record.id] = {
                "benchmark": benchmark.name,
                "record": record.id,
                "user": record.user,
                "target": asdict(record.target),
                "shown": len(shown),
                "history": [asdict(x) for x in shown[-HISTORY:]],
                "summaries": [],
                "scores": [],
            }
    picked: dict[str, set[str]] = defaultdict(set)
    for benchmark_name, record_id in rows:
        picked[benchmark_name].add(record_id)
    for found in sets:
        written = found.by_record() if found.benchmark in picked else {}
        for record_id in sorted(picked[found.benchmark] & written.keys()):
            row = written[record_id]
            rows[found.benchmark, record_id]["summaries"].append(
                {
                    "policy": found.policy,
                    "setting": found.setting,
                    "seed": found.seed,
                    "error": row["error"],
                    "stages": [{key: stage[key] for key in STAGE_FIELDS} for stage in row["stages"]],
                }
            )
    for score in scores:
        if sample := rows.get((score["benchmark"], score["record"])):
            sample["scores"].append({key: score.get(key) for key in SCORE_FIELDS})
    return list(rows.values())
