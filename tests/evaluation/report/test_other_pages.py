"""The pages of the robustness and the cross-task table in a real browser: every control of each is used, and the
browser has nothing to complain about."""

import itertools
from collections import Counter
from pathlib import Path

import pytest

from alignxplore.benchmark_files import user_row
from alignxplore.evaluation.benchmarks import SummarySet, load_benchmarks
from alignxplore.evaluation.derived import write_names
from alignxplore.evaluation.report import robustness, samples, writing
from alignxplore.evaluation.results import result_rows
from alignxplore.evaluation.rows import write_results, write_scores
from alignxplore.journal import Journal
from alignxplore.prompts import PromptSet
from alignxplore.records import write_json, write_jsonl
from tests.evaluation.made_up import run_of, score, written

DISTURBED = ("mind", "mind~swapped20", "mind~nothing50", "mind~injected_order25")
CROSSED = ("mind~to~student_phd", "student_phd~to~mind", "student_phd", "mind")
PEOPLE = 6


def write_report(out: Path, report: Path, policy: str, names: tuple[str, ...], record) -> None:
    """Files of a finished evaluation: two generation seeds, what each downstream model said, some of it wrong."""
    records = [record(str(i)) for i in range(PEOPLE)]
    for name in names:
        write_jsonl(out / "data" / f"{name}_upi.jsonl", map(user_row, records))
    benchmarks, sets, rows = load_benchmarks([str(out / "data")], list(names)), [], []
    prompts = PromptSet()
    for benchmark, seed in itertools.product(benchmarks, (0, 1)):
        summaries = SummarySet(out, policy, benchmark.name, "full", seed)
        meta = written(prompt_set="default") | {"run": "r", "prompt_hash": prompts.hash("infer")}
        write_json(summaries.meta_path, meta)
        with Journal(summaries.journal_path) as journal:
            for i, person in enumerate(benchmark.records):
                summary = f"Likes topic {i}. Dislikes sport."
                stage = {"text": f"<think>r</think>{summary}", "reasoning": "r", "summary": summary, "problem": None}
                about = {"run": "r", "status": "ok", "record": person.id, "user": person.user, "error": None}
                journal.append(person.id, about | {"stages": [stage | {"dropped": 0}]})
        sets.append(summaries)
        rows += [
            score(
                policy=row_policy,
                setting=setting,
                benchmark=benchmark.name,
                judge=judge,
                seed=seed if row_policy == policy else 0,
                record=person.id,
                user=person.user,
                target=f"t{i}",
                item=f"t{i}",
                value=float((i + len(benchmark.name) + seed) % 3 > 0),
                p=0.6,
                orders=((0.7, 0.5),),
                flips=(i == 0,),
            )
            for (row_policy, setting), judge in itertools.product(
                ((policy, "full"), ("no summary", "none")), ("a", "b")
            )
            for i, person in enumerate(benchmark.records)
            if row_policy == policy or not seed
        ]
    write_scores(report, rows)
    write_results(report, result_rows(rows))
    write_jsonl(report / "samples.jsonl", samples.sample_rows(benchmarks, sets, rows, prompts))
    run = run_of(**{name: PEOPLE for name in names}) | {"arguments": {"texts": "all"}}
    write_json(report / "run.json", run | {"judges": {name: {"identity": name, "format": "plain"} for name in "ab"}})


@pytest.fixture
def pages(tmp_path, record) -> dict[str, str]:
    """Page → its text."""
    robust_folder, cross_folder = tmp_path / "robustness", tmp_path / "cross_task"
    write_report(robust_folder, robust_folder / "default", "ours", DISTURBED, record)
    write_report(robust_folder, robust_folder / "hardened", "ours-hardened", DISTURBED[::3], record)
    write_names(robust_folder / "data", list(DISTURBED))
    robustness.write_robustness(robustness.RobustnessOptions(out=robust_folder))
    write_report(cross_folder, cross_folder, "ours", CROSSED, record)
    writing.write(cross_folder)
    paths = {"robustness": robust_folder / "robustness.html", "cross-task": cross_folder / "report.html"}
    return {name: path.read_text(encoding="utf-8") for name, path in paths.items()}


def use_everything(page) -> Counter:
    """Uses every control that there is, by what it is; the browser says what went wrong."""
    uses = Counter()

    def press(selector: str) -> None:
        for i in range(page.locator(selector).count()):
            page.locator(selector).nth(i).click()
            uses[selector] += 1

    press("nav a")
    press("th button")
    press(".columns summary")
    for box in page.locator(".columns input").all():
        box.uncheck()
        box.check()
        uses["columns"] += 1
    page.wait_for_selector("#sample > p")
    press("[data-cell]")
    for select in page.locator("select").all():
        values = select.locator("option").evaluate_all("all => all.map(one => one.value)")
        for value in [*values, values[0]]:
            select.select_option(value)
            uses[f"#{select.get_attribute('id')}"] += 1
    for selector in ("#after", "#before"):
        press(selector)
    page.fill("#search", "topic 3")
    assert page.inner_text("#count") == "1 of 1"
    page.fill("#search", "")
    press(".statement")
    press("#sample details summary")
    return uses


@pytest.mark.parametrize("name", ["robustness", "cross-task"])
def test_every_control_of_the_page_works(new_page, pages, name):
    page = new_page(pages[name], viewport={"width": 1400, "height": 900})
    uses = use_everything(page)
    controls = ["nav a", "th button", "columns", "[data-cell]", "#benchmark", "#left", "#right", "#reader", "#outcome"]
    assert [control for control in [*controls, ".statement", "#sample details summary"] if not uses[control]] == []
    assert page.locator("#tables table").count() >= 2 and page.locator("#plots ~ p img").count() >= 1
    assert page.locator("#tables").inner_text().count("[") > 4, "numbers with intervals"


def test_a_number_of_a_disturbed_benchmark_leads_to_its_samples(new_page, pages):
    page = new_page(pages["robustness"], viewport={"width": 1400, "height": 900})
    page.click("tr:has-text('swapped20') [data-cell] >> nth=0")
    page.wait_for_selector("#sample > p")
    chosen = [page.input_value(f"#{name}") for name in ("benchmark", "left", "reader")]
    assert chosen == ["mind~swapped20", "ours|full|0", "a|choice"]
