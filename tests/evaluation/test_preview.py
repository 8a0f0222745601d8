"""`--check` of both halves of the evaluation: what it counts, what it refuses, and that it touches nothing."""

import asyncio
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from alignxplore.command import run
from alignxplore.evaluation.arguments import EvaluationArguments, GenerationArguments
from alignxplore.evaluation.benchmarks import SummarySet, load_benchmarks
from alignxplore.evaluation.faithfulness import FaithfulnessOptions, faithfulness
from alignxplore.evaluation.generation import generate, policies_of, recipe_of, write_summaries
from alignxplore.evaluation.scoring import evaluate, score
from alignxplore.journal import TRANSPORT_ERROR, Journal
from alignxplore.records import write_json

USERS = 5


@pytest.fixture
def data(record, benchmark_file) -> str:
    return str(benchmark_file("world_films", [record(f"u{i}") for i in range(USERS)]))


@pytest.fixture
def endpoint(fake_server, say, tokenizer, data, tmp_path):
    """An endpoint's address, which wrote summaries of the full histories, and answers no more."""
    tokenizer.save_pretrained(tmp_path / "tokenizer")

    async def write() -> str:
        async with fake_server(lambda body: say("<think>\nI read\n</think>\n\nfilms"), max_model_len=16384) as server:
            model = f"ours={server.url}#{tmp_path / 'tokenizer'}"
            out = str(tmp_path / "out")
            await generate(GenerationArguments(model=[model], data=[data], out=out, settings=["full"]))
        return model

    return asyncio.run(write())


def lines(text: str) -> dict[tuple[str, ...], list[str]]:
    """The lines of the table by what they are about, its numbers behind that."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {tuple(line[:3]): line[3:] for line in cells[2:]}


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_to_be_written_is_counted_without_asking(endpoint, data, tmp_path):
    options = {"model": [endpoint], "data": [data], "out": str(tmp_path / "out"), "check": True}
    before = files(tmp_path)
    text = write_summaries(GenerationArguments(**options, stages=3))
    assert "ours: endpoint http://" in text and "world_films: 5 users, 0 with the target in the history" in text
    assert "To write: 5 summaries in 15 answers" in text and ", fit ours\n" in text
    assert lines(text) == {
        ("ours", "world_films", "full"): ["0", "5", "1", "5", "0"],
        ("ours", "world_films", "streaming"): ["0", "5", "3", "0", "5"],
    }
    other = lines(write_summaries(GenerationArguments(**options, settings=["full"], temperature=0.1)))
    assert other["ours", "world_films", "full"][-2:] == ["0", "5"], "in another way than those that are there"
    assert files(tmp_path) == before


def test_the_weights_of_a_folder_decide_what_is_there_and_failed_ones_are_not(model_folder, data, tmp_path):
    out = str(tmp_path / "out")
    sizes = {"max_model_len": 2048, "max_tokens": 64}
    values = {"model": [f"m={model_folder}"], "data": [data], "out": out, "settings": ["full"]}
    arguments = GenerationArguments(**values, **sizes, check=True)
    (policy,), (benchmark,) = policies_of(arguments), load_benchmarks([data])
    target = SummarySet(tmp_path / "out", "m", "world_films", "full", 0)
    for identity, done_count in ((policy.spec.identity, "3"), ("other weights", "0")):
        recipe = recipe_of(arguments, identity, 2048, policy.prompts, "think", benchmark.task, target)
        write_json(target.meta_path, asdict(recipe))
        target.journal_path.unlink(missing_ok=True)
        with Journal(target.journal_path) as journal:
            for place, user in enumerate(benchmark.records[:4]):
                row = {"run": recipe.run, "record": user.id, "user": user.user, "stages": []} | (
                    {} if place else {"status": TRANSPORT_ERROR}
                )
                journal.append(recipe.unit(user.id), row)
        text = write_summaries(arguments)
        assert lines(text)["m", "world_films", "full"][-2] == done_count and f"m: folder {model_folder}" in text


def test_a_policy_that_was_trained_on_another_wording_is_noted(model_folder, data, tmp_path, capsys):
    folder = shutil.copytree(model_folder, tmp_path / "sft")
    (folder / "summary.json").write_text('{"data": {"prompt_templates": {"a1b2": 9}}}')
    values = {"model": [f"m={folder}"], "data": [data], "out": str(tmp_path / "out"), "check": True}
    write_summaries(GenerationArguments(**values, max_model_len=2048, max_tokens=64))
    assert f"note: {folder} was trained on prompts of another infer.jinja (a1b2)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "m=EMPTY"], "no config.json in "),
        (["--model", "m=a model"], "neither a model folder nor a hub id"),
        (["--model", "m=http://host/v1", "--api_key_env", "NO_SUCH_KEY"], "NO_SUCH_KEY is not set"),
        (["--prompt_set", "m=default"], "--prompt_set: give one value"),
        (["--prompt_set", "EMPTY"], "no *.jinja templates"),
        (["--prompt_set", "BROKEN"], "infer.jinja: object of type 'NoneType' has no len()"),
        (["--max_model_len", "4096"], "leaves no room for a prompt"),
        (["--data", "EMPTY"], "no *_upi.jsonl here"),
        (["--benchmarks", "mind"], "no benchmark mind among world_films"),
    ],
)
def test_what_would_fail_later_is_a_sentence_now(options, message, data, tmp_path, capsys):
    for folder in ("EMPTY", "BROKEN"):
        (tmp_path / folder).mkdir()
        options = [word.replace(folder, str(tmp_path / folder)) for word in options]
    (tmp_path / "BROKEN" / "infer.jinja").write_text("#--- user\n{{ interactions[-1].rejected | length }}")
    values = {"--model": "a/b", "--data": data, "--out": str(tmp_path / "out")}
    values |= dict(zip(options[::2], options[1::2]))
    with pytest.raises(SystemExit) as end:
        run(write_summaries, GenerationArguments, None, ["--check", *(x for pair in values.items() for x in pair)])
    assert message in str(end.value.code) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("work", "kind", "options"),
    [
        (write_summaries, GenerationArguments, ["--settings", "half"]),
        (write_summaries, GenerationArguments, ["--format", "m=prose"]),
        (score, EvaluationArguments, ["--protocol", "ours"]),
        (score, EvaluationArguments, ["--cues", "luck"]),
        (score, EvaluationArguments, ["--judge_format", "prose"]),
        (score, EvaluationArguments, ["--orders", "none"]),
    ],
)
def test_values_that_there_are_not(work, kind, options, capsys):
    with pytest.raises(SystemExit) as end:
        run(
            work,
            kind,
            None,
            ["--model" if work is write_summaries else "--judge", "m=a/b", "--data", "d", *options, "--out", "o"],
        )
    assert (
        end.value.code == 2
        and f"{options[0]}: unknown {options[1].rpartition('=')[2]}; choose from" in capsys.readouterr().err
    )


def judging(data: str, tmp_path: Path, **options) -> str:
    values = {"judge": ["j=a/judge"], "data": [data], "out": str(tmp_path / "out"), "protocol": ["choice", "paper"]}
    return score(EvaluationArguments(**values | options, check=True))


def test_judgements_are_counted_before_there_are_summaries(data, tmp_path):
    text = judging(data, tmp_path, policies=["ours"])
    assert "j: hub model a/judge, format plain" in text and "no summaries of ours under" in text
    assert lines(text) == {("j", protocol, "world_films"): ["5", "2", "10"] for protocol in ("choice", "paper")}
    assert not (tmp_path / "out").exists()
    only = lines(judging(data, tmp_path, direct=False, protocol=["choice"]))
    assert only == {("j", "choice", "world_films"): ["5", "1", "5"]}


def test_judgements_are_counted_and_nothing_is_touched(endpoint, data, tmp_path):
    before = files(tmp_path)
    text = judging(data, tmp_path, protocol=["choice"])
    assert "no summaries" not in text
    # All five summaries are the same: a stranger's is judged with a user's own. Histories and no summary come on top.
    assert lines(text) == {("j", "choice", "world_films"): ["5", "4", "15"]}
    histories = judging(data, tmp_path, protocol=["choice"], judge_format=["yes_no"])
    assert lines(histories) == {("j", "choice", "world_films"): ["5", "1", "5"]}
    assert "no summaries of theirs" in judging(data, tmp_path, other_user=["theirs"])
    assert files(tmp_path) == before


def test_summaries_that_cannot_be_pooled_yet_are_said_and_do_not_stop_the_command(endpoint, data, tmp_path):
    summaries = SummarySet(tmp_path / "out", "ours", "world_films", "full", 0)
    write_json(
        summaries.folder / "summaries" / "ours" / "world_films.full.s1.meta.json",
        summaries.meta() | {"recipe": "other"},
    )
    text = judging(data, tmp_path)
    assert "cannot be scored: " in text and "were made in another way" in text


def test_benchmarks_that_are_not_there_yet_are_no_fault(tmp_path):
    text = judging(f"mind={tmp_path / 'mind_upi.jsonl'}", tmp_path)
    assert text.endswith("mind_upi.jsonl: not there yet; what would be asked cannot be counted")
    with pytest.raises(ValueError, match="neither a model folder"):
        judging("mind=mind_upi.jsonl", tmp_path, judge=["a judge"])


@pytest.mark.parametrize("name", ["none", "content tally", "BM25"])
def test_a_downstream_model_is_not_called_like_a_row_that_reads_nothing_by_it(name, data, tmp_path):
    with pytest.raises(ValueError, match=f"--judge: '{name}' is .* give the model another"):
        judging(data, tmp_path, judge=[f"{name}=a/judge"])


@pytest.mark.parametrize(
    "name", ["no summary", "popularity", "chance", "content tally", "item-kNN", "best possible", "other user's (ours)"]
)
def test_a_policy_is_not_called_like_another_row(name, endpoint, data, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=re.escape(f"--model: '{name}' is ")):
        write_summaries(GenerationArguments(model=[f"{name}=a/b"], data=[data], out=str(out), check=True))
    (out / "summaries/ours").rename(out / "summaries" / name)  # an older version wrote them
    with pytest.raises(ValueError, match=re.escape(f"--policies: '{name}' is ")):
        judging(data, tmp_path)
    with pytest.raises(ValueError, match=re.escape(f"--policies: '{name}' is ")):
        asyncio.run(evaluate(EvaluationArguments(judge=["j=a/b"], data=[data], out=str(out))))


def test_a_published_row_stands_beside_one_of_ours(endpoint, data, tmp_path):
    judging(data, tmp_path, published=["ours=AlignXplore+", "j=qwen3-8b-thinking"])
    for published in (["zz=AlignXplore+"], ["ours=AlignXplore+", "=AlignXplore+"]):
        with pytest.raises(ValueError, match=r"--published: no policy and no judge is called .*; there are ours, j"):
            judging(data, tmp_path, published=published)
        out = str(tmp_path / "out")
        with pytest.raises(ValueError, match="--published: no policy and no judge"):
            asyncio.run(evaluate(EvaluationArguments(judge=["j=a/b"], data=[data], out=out, published=published)))


def test_a_report_that_is_a_file_and_a_baseline_without_its_file_are_refused_before_anything_is_asked(data, tmp_path):
    path = tmp_path / "report"
    path.write_text("mine")
    for report in (path, path / "below"):
        with pytest.raises(ValueError, match=f"--report {report}: {path} is no folder"):
            judging(data, tmp_path, report=str(report))
        for check in (True, False):
            options = {"judge": ["j=a/b"], "data": [data], "out": str(tmp_path), "report": str(report)}
            with pytest.raises(ValueError, match=f"--report {report}: {path} is no folder"):
                faithfulness(FaithfulnessOptions(**options, check=check))
    with pytest.raises(FileNotFoundError, match="--baselines item-knn=/nonexistent: no such file"):
        judging(data, tmp_path, baselines=["item-knn=/nonexistent"])
    assert path.read_text() == "mine"
