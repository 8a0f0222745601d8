"""Size of report.html, and time until its first table is shown, for an evaluation of nine benchmarks. Samples that are
packed, and unpacked when they are looked at, stand against plain JSON in the page, read at its start.

    python benchmarks/report_page.py               # needs Chromium on the PATH (Debian: apt-get install chromium)
    python benchmarks/report_page.py --rows 300    # smaller

Rows, summaries and scores are made up; texts are drawn from a word list and have the length of real ones. Goal: below
20 MB and 3 s. The last line is JSON; its ratio is of the seconds.
"""

import json
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from alignxplore.command import option, run
from alignxplore.errors import at_least_one
from alignxplore.evaluation.report import page, samples, writing
from alignxplore.evaluation.results import result_rows
from alignxplore.evaluation.worth import Score
from alignxplore.records import Interaction, UserRecord

BENCHMARKS = ("mind", "amazon", "movielens", "alignx", "personamem", "concise_detail", "student_phd", "a", "b")
POLICIES, JUDGES, SETTINGS = ("sft", "rl"), ("qwen", "gpt"), ("full", "streaming")
INTERACTIONS, ITEM_WORDS, SUMMARY_WORDS = 60, 40, 150
ROUNDS = 3


@dataclass(kw_only=True)
class PageOptions:
    """How large an evaluation."""

    rows: int = option("rows of each of the nine benchmarks", 3000)

    def __post_init__(self) -> None:
        at_least_one(self, "rows")


def words(rng: random.Random, count: int) -> str:
    return " ".join(f"w{int(rng.paretovariate(0.6)) % 20000}" for _ in range(count))


def scores_of(benchmark: str, rows: int, rng: random.Random) -> list[Score]:
    """Scores of all policies, settings and judges."""
    return [
        Score(
            policy=policy,
            setting=setting,
            benchmark=benchmark,
            judge=judge,
            protocol="choice",
            record=f"r{i}",
            user=f"u{i}",
            target=f"t{i}",
            item=f"t{i}",
            value=float(rng.random() < 0.6),
            outcome="ok",
            p=0.6,
            orders=((rng.random(), rng.random()),),
        )
        for policy in POLICIES
        for setting in SETTINGS
        for judge in JUDGES
        for i in range(rows)
    ]


def sample_of(benchmark: str, place: int, scores: list[Score], rng: random.Random) -> dict:
    """A line of samples.jsonl with texts of real length."""
    history = tuple(Interaction(words(rng, ITEM_WORDS), words(rng, ITEM_WORDS)) for _ in range(INTERACTIONS))
    record = UserRecord(f"u{place}", history, Interaction(words(rng, ITEM_WORDS), words(rng, ITEM_WORDS)))
    interactions = [{"chosen": x.chosen, "rejected": x.rejected, "query": x.query} for x in (*history, record.target)]
    sample = samples.Sample(benchmark, f"r{place}", record.user, [], interactions[-1], len(history), interactions[:-1])
    for policy in POLICIES:
        for setting in SETTINGS:
            stage = {"reasoning": words(rng, 300), "summary": words(rng, SUMMARY_WORDS), "problem": None, "dropped": 0}
            stage["prompt"] = sample.prompt(
                [{"role": "user", "content": "\n".join(x["chosen"] for x in interactions)}]
            )
            about = {"policy": policy, "setting": setting, "seed": 0, "error": None}
            sample.summaries.append(about | {"stages": [stage]})
    sample.scores = [score.row() for score in scores]
    return vars(sample)


def seconds_to_table(browser, path: Path) -> float:
    """From the request of a page until its first table has been laid out."""
    tab = browser.new_page()
    began = time.perf_counter()
    tab.goto(path.as_uri(), wait_until="commit")
    tab.wait_for_selector("table td")
    seconds = time.perf_counter() - began
    tab.close()
    return seconds


def measure(options: PageOptions) -> str:
    """Make both pages and open them in turns."""
    from playwright.sync_api import sync_playwright

    if (chromium := shutil.which("chromium") or shutil.which("google-chrome")) is None:
        sys.exit("no Chromium on the PATH (Debian: apt-get install chromium)")
    rng = random.Random(0)
    scores, browser_samples = [], []
    for name in BENCHMARKS:
        own_scores = scores_of(name, options.rows, rng)
        scores += own_scores
        for place in range(min(options.rows, samples.SAMPLES)):
            browser_samples.append(
                sample_of(name, place, [row for row in own_scores if row.record == f"r{place}"], rng)
            )
    rows = result_rows(scores)
    run_info = {"benchmarks": {name: {"n": options.rows} for name in BENCHMARKS}, "published_names": {}}
    text = page.page(*writing.all_tables(rows, scores, run_info), rows, scores, browser_samples, "", "")
    samples_json = json.dumps(browser_samples).replace("</", "<\\/")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        ours, theirs = Path(folder) / "ours.html", Path(folder) / "theirs.html"
        ours.write_text(text, encoding="utf-8")
        theirs.write_text(
            text.replace("<body>", f"<body><script>const everything = {samples_json};</script>"), "utf-8"
        )
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        took = [(seconds_to_table(browser, ours), seconds_to_table(browser, theirs)) for _ in range(ROUNDS)]
        browser.close()
        megabytes = ours.stat().st_size / 1e6
    our_seconds, their_seconds = (sorted(column)[ROUNDS // 2] for column in zip(*took))
    counts = f"{len(BENCHMARKS) * options.rows} rows, {len(browser_samples)} samples"
    print(f"{counts}: {megabytes:.1f} MB, {our_seconds:.2f} s")
    result = {
        "name": "report_page",
        "ratio": round(their_seconds / our_seconds, 2),
        "goal": 1,
        "ours": round(our_seconds, 2),
    }
    result |= {"theirs": round(their_seconds, 2), "unit": "s", "n": ROUNDS, "megabytes": round(megabytes, 1)}
    return json.dumps(result)


if __name__ == "__main__":
    run(measure, PageOptions, __doc__)
