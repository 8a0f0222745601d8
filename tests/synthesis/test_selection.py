"""Selection of RL rows: thresholds, targets, what is refused; and what all readers of users share."""

import itertools
import json
import math
import random
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from alignxplore import datasets
from alignxplore.baselines.tallrec import TallrecOptions, write_rows
from alignxplore.benchmark_files import user_row
from alignxplore.command import parse
from alignxplore.judging.yes_no import MOST_CHOICES, MOST_TOKENS
from alignxplore.records import Interaction, RecordError, UserRecord, read_jsonl, write_json, write_jsonl
from alignxplore.sft.tokenised_set import load_prepared
from alignxplore.synthesis.selection import SelectionOptions, best_targets, kept_choices, select
from alignxplore.synthesis.signal_model import prepare
from alignxplore.synthesis.streams import all_behaviours, read_behaviours
from tests import ROOT

SFT = ROOT / "sft"


def user(name: str, length: int = 14) -> UserRecord:
    items = [Interaction(f"{name} good {i}", f"{name} bad {i}") for i in range(length)]
    return UserRecord(name, tuple(items[:-1]), items[-1])


def test_a_b_and_c_mean_what_they_say():
    rng = random.Random(0)
    strong, weak = (np.array([math.log(rng.uniform(0.3, 1.0)) for _ in range(1000)]) for _ in range(2))
    mask, counts = kept_choices(strong, weak, a=0.3, b=0.0, c=None)
    assert counts["choices"] == 1000 and counts["after_a"] == counts["after_c"] == mask.sum() == 300
    assert (strong - weak)[mask].min() >= (strong - weak)[~mask].max()
    mask, counts = kept_choices(strong, weak, a=1.0, b=0.6, c=None)
    assert counts["after_b"] == mask.sum() and (mask == (strong >= math.log(0.6))).all()
    mask, counts = kept_choices(strong, weak, a=1.0, b=0.0, c=1.0)
    assert 95 <= counts["after_c"] <= 105 and strong[mask].min() >= math.log(0.9)
    weak[:100] = np.nan
    mask, counts = kept_choices(strong, weak, a=0.5, b=0.0, c=None)
    assert (counts["choices"], counts["without_weak"], counts["after_a"]) == (900, 100, 450) and not mask[:100].any()


def scored(folder: Path, records: list[UserRecord], choices: int = 14) -> dict[str, str]:
    """Options that name users and scores of theirs: every choice is foreseen, the strong model is surer."""
    write_jsonl(folder / "users.jsonl", map(user_row, records))
    for name, p in (("strong", 0.9), ("weak", 0.5)):
        entries = [{"position": i, "logprob": math.log(p) - (i % 5) / 100} for i in range(choices)]
        write_jsonl(
            folder / f"{name}.jsonl", ({"id": record.id, "scores": entries, "dropped": 0} for record in records)
        )
    return {name: str(folder / f"{name}.jsonl") for name in ("strong", "weak")} | {"data": str(folder / "users.jsonl")}


@pytest.mark.parametrize("model", ["strong", "weak"])
def test_a_user_without_scores_of_either_model_is_an_error(tmp_path, model):
    args = scored(tmp_path, [user("u0"), user("u1")])
    write_jsonl(args[model], [row for _, row in read_jsonl(args[model])][:1])
    with pytest.raises(RecordError, match=rf"users.jsonl:2: no scores in .*{model}.jsonl; run signal_model.py score"):
        select(SelectionOptions(out=str(tmp_path / "rl.jsonl"), signal_share=1.0, **args))
    assert not (tmp_path / "rl.jsonl").exists()


def test_choices_that_only_the_weak_model_has_not_scored_are_counted(tmp_path):
    args = scored(tmp_path, [user("u0")])
    (row,) = (row for _, row in read_jsonl(args["weak"]))
    write_jsonl(args["weak"], [row | {"scores": row["scores"][3:], "dropped": 3}])
    counts = select(SelectionOptions(out=str(tmp_path / "rl.jsonl"), signal_share=1.0, **args))
    assert (counts["choices"], counts["without_weak"], counts["rows"]) == (11, 3, 1)


def test_the_same_line_twice_gives_one_row(tmp_path):
    args = scored(tmp_path, [user("u0"), user("u1"), user("u0")])
    counts = select(SelectionOptions(out=str(tmp_path / "rl.jsonl"), signal_share=1.0, **args))
    assert counts["users"] == counts["rows"] == 2 and counts["choices"] == 28


@pytest.mark.parametrize(
    ("option", "value"),
    [("signal_share", 1.5), ("least_strong", -0.1), ("strong_quantile", 10), ("stages", 0), ("least_slice", 0)],
)
def test_options_out_of_range_are_named_before_anything_is_read(option, value):
    with pytest.raises(ValueError, match=f"^--{option} {value}: (a share from 0 to 1|at least 1)"):
        SelectionOptions(data="none", strong="none", weak="none", out="none", **{option: value})


def test_the_thresholds_are_still_known_by_their_letters():
    words = "--data d --strong s --weak w --output o --a 0.25 --b 0.75 --c 1".split()
    (options,) = parse(SelectionOptions, None, words)
    assert (options.out, options.signal_share, options.least_strong, options.strong_quantile) == ("o", 0.25, 0.75, 1)


def test_a_file_that_holds_no_scores_is_named_with_line_and_field(tmp_path):
    args = scored(tmp_path, [user("u0")])
    with pytest.raises(
        RecordError, match="users.jsonl:1: field 'id': missing or of a wrong kind; give the scores.jsonl"
    ):
        select(SelectionOptions(out=str(tmp_path / "rl.jsonl"), **args | {"weak": args["data"]}))
    (row,) = (row for _, row in read_jsonl(args["strong"]))
    write_jsonl(args["strong"], [row | {"scores": [*row["scores"], {"position": 14, "p": 0.5}]}])
    with pytest.raises(RecordError, match=r"strong.jsonl:1: field 'scores\[14\].logprob'"):
        select(SelectionOptions(out=str(tmp_path / "rl.jsonl"), **args))


def test_targets_have_the_highest_sum_of_signals_among_all_choices_that_are_allowed():
    rng = random.Random(1)
    for _ in range(50):
        signal = {i: rng.uniform(-1, 3) for i in rng.sample(range(25), 12)}
        for stages in (1, 2, 3):
            allowed = [
                chain
                for chain in itertools.combinations(sorted(signal), stages)
                if all(b - a >= 4 for a, b in zip((0, *chain), chain))
            ]
            places = best_targets(signal, stages, 4)
            if not allowed:
                assert places is None
            else:
                assert sum(signal[p] for p in places) == pytest.approx(max(sum(signal[p] for p in c) for c in allowed))
                assert tuple(places) in allowed


def test_selected_rows_are_what_the_rl_stage_reads(tmp_path):
    users = [user(f"u{n}") for n in range(6)]
    write_jsonl(tmp_path / "users.jsonl", map(user_row, users))
    for name, p in (("strong", 0.9), ("weak", 0.5)):
        entries = [
            [{"position": i, "logprob": math.log(p) - (i % 5) / 100} for i in range(14 if n else 5)] for n in range(6)
        ]
        write_jsonl(
            tmp_path / name / "scores.jsonl", ({"id": r.id, "scores": e, "dropped": 0} for r, e in zip(users, entries))
        )
        write_json(tmp_path / name / "run.json", {"model": f"{name}:0{len(name)}"})
    args = {name: str(tmp_path / name / "scores.jsonl") for name in ("strong", "weak")} | {
        "data": str(tmp_path / "users.jsonl")
    }
    counts = select(SelectionOptions(out=str(tmp_path / "rl.jsonl"), signal_share=1.0, least_strong=0.5, **args))
    rows = [json.loads(line) for line in (tmp_path / "rl.jsonl").read_text().splitlines()]
    assert counts["users"] == 6 == counts["rows"] + counts["too_few_targets"] and counts["rows"] == len(rows) == 5
    for row in rows:
        assert row["positions"] == [row["mid_position"], len(row["history"]) - 1] and row["mid_position"] >= 4
        assert row["history"][0] == {
            "query": None,
            "chosen": f"{row['uid']} good 0",
            "rejected": f"{row['uid']} bad 0",
        }
    assert (tmp_path / "rl.png").exists() and json.loads((tmp_path / "rl.counts.json").read_text()) == counts
    assert counts["models"] == {"strong": "strong:06", "weak": "weak:04"}
    with pytest.raises(RecordError, match="raise --signal_share, lower --least_strong"):
        select(SelectionOptions(out=str(tmp_path / "none.jsonl"), least_strong=0.99, **args))
    write_json(tmp_path / "weak" / "run.json", {"model": "other name:06"})
    with pytest.raises(RecordError, match=r"scores of the same model \(other name:06\) as the strong ones"):
        select(SelectionOptions(out=str(tmp_path / "none.jsonl"), **args))


def test_the_commands_of_the_readme_go_together():
    """A checkpoint among many is deleted while the training goes on; rows and training count the same tokens."""
    text = (SFT / "README.md").read_text()
    assert (
        set(re.findall(r"score --model (\S+)", text))
        == {"outputs/signal", "outputs/weak"}
        <= set(re.findall(r"--(?:out|output_dir) (\S+)", text))
    )
    trained, rows = (
        yaml.safe_load((SFT / "configs/tallrec_qwen3_8b.yaml").read_text()),
        TallrecOptions(data="", out=""),
    )
    assert (trained["model_name_or_path"], trained["max_length"]) == (rows.model, rows.max_length)
    assert (rows.max_length, rows.last) == (MOST_TOKENS, MOST_CHOICES), "what evaluation shows"


@pytest.mark.parametrize("default", [None, "What next?"])
def test_a_null_query_is_replaced_as_in_evaluation(tmp_path, tokenizer, model_folder, default):
    """One place decides it, so that training prompts read as evaluation's do: the data set's query, or what is
    given."""
    data = tmp_path / "train_mind_upi.jsonl"
    write_jsonl(data, [user_row(user("u"))])
    query = default or datasets.get("mind").default_query
    (record,) = read_behaviours(data, default)
    assert {item.query for item in all_behaviours(record)} == {query}
    prepare(str(data), tokenizer, tmp_path / "set", 4096, default)
    assert (
        tokenizer.decode(load_prepared(tmp_path / "set", tokenizer)[0][0]["input_ids"]).count(f"Request: {query}")
        == 14
    )
    files = {"data": str(data), "out": str(tmp_path / "tallrec.jsonl"), "model": str(model_folder)}
    write_rows(TallrecOptions(**files, default_query=default))
    assert query in json.loads((tmp_path / "tallrec.jsonl").read_text().splitlines()[0])["prompt"][1]["content"]
    for name, p in (("strong", 0.9), ("weak", 0.5)):
        entries = [{"position": i, "logprob": math.log(p) - (i % 5) / 100} for i in range(14)]
        write_jsonl(tmp_path / f"{name}.jsonl", [{"id": record.id, "scores": entries, "dropped": 0}])
    options = {
        "strong": str(tmp_path / "strong.jsonl"),
        "weak": str(tmp_path / "weak.jsonl"),
        "signal_share": 1.0,
        "default_query": default,
    }
    select(SelectionOptions(data=str(data), out=str(tmp_path / "rl.jsonl"), **options))
    assert {item["query"] for item in json.loads((tmp_path / "rl.jsonl").read_text())["history"]} == {query}
