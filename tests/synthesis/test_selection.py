"""RL data selection, the overlap check and the TALLRec rows."""

import itertools
import json
import math
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from alignxplore import datasets
from alignxplore.baselines.tallrec import TallrecOptions, tallrec_rows, write_rows
from alignxplore.command import parse
from alignxplore.judging.yes_no import MOST_CHOICES, MOST_TOKENS
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, RecordError, UserRecord, read_jsonl, user_row, write_json, write_jsonl
from alignxplore.sft.tokenised_set import load_prepared
from alignxplore.sft.tokenised_set import prepare as prepare_rows
from alignxplore.synthesis.overlap import check
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
    kept, counts = kept_choices(strong, weak, a=0.3, b=0.0, c=None)
    assert counts["choices"] == 1000 and counts["after_a"] == counts["after_c"] == kept.sum() == 300
    assert (strong - weak)[kept].min() >= (strong - weak)[~kept].max()
    kept, counts = kept_choices(strong, weak, a=1.0, b=0.6, c=None)
    assert counts["after_b"] == kept.sum() and (kept == (strong >= math.log(0.6))).all()
    kept, counts = kept_choices(strong, weak, a=1.0, b=0.0, c=1.0)
    assert 95 <= counts["after_c"] <= 105 and strong[kept].min() >= math.log(0.9)
    weak[:100] = np.nan
    kept, counts = kept_choices(strong, weak, a=0.5, b=0.0, c=None)
    assert (counts["choices"], counts["without_weak"], counts["after_a"]) == (900, 100, 450) and not kept[:100].any()


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
    with pytest.raises(ValueError, match=f"^--{option} {value}: (give a share from 0 to 1|at least 1)"):
        SelectionOptions(data="none", strong="none", weak="none", out="none", **{option: value})


def test_the_thresholds_are_still_known_by_their_letters():
    words = "--data d --strong s --weak w --output o --a 0.25 --b 0.75 --c 1".split()
    options = parse(SelectionOptions, None, words)
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
            found = best_targets(signal, stages, 4)
            if not allowed:
                assert found is None
            else:
                assert sum(signal[p] for p in found) == pytest.approx(max(sum(signal[p] for p in c) for c in allowed))
                assert tuple(found) in allowed


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


def test_overlap_counts_and_drops_shared_users_and_target_pairs_in_every_kind_of_row(tmp_path):
    held_out = [user("u1"), user("u2#1")]
    write_jsonl(tmp_path / "bench_upi.jsonl", map(user_row, held_out))
    target, past = held_out[0].target, held_out[0].history[3]
    stranger = user("x")
    leaking = UserRecord("y", (*stranger.history, Interaction(target.rejected, target.chosen)), stranger.target)
    near = UserRecord("z", (*stranger.history, past), stranger.target)
    users = [user_row(r) for r in (stranger, leaking, near, user("u2#7"))]
    write_jsonl(tmp_path / "users.jsonl", users)
    rl = [{"uid": row["userid"], "history": row["history"], "mid_position": 3} for row in users]
    write_jsonl(tmp_path / "rl.jsonl", rl)
    prompts = PromptSet()
    sft = [{"prompt": prompts.infer(record.history), "completion": []} for record in (stranger, leaking, near)]
    write_jsonl(tmp_path / "sft.jsonl", sft)
    files = [str(tmp_path / name) for name in ("users.jsonl", "rl.jsonl", "sft.jsonl")]
    counts = check(files, [str(tmp_path / "bench_upi.jsonl")], str(tmp_path / "clean"))
    assert counts[files[0]] == {"rows": 4, "user": 1, "without_user": 0, "target": 1, "pair": 2, "dropped": 2}
    assert counts[files[1]] == {"rows": 4, "user": 1, "without_user": 0, "target": 1, "pair": 2, "dropped": 2}
    assert counts[files[2]] == {"rows": 3, "user": 0, "without_user": 3, "target": 1, "pair": 2, "dropped": 1}
    left = [json.loads(line)["userid"] for line in (tmp_path / "clean" / "users.jsonl").read_text().splitlines()]
    assert left == ["x", "z"]
    assert check(files[:1], [str(tmp_path)])[files[0]] == counts[files[0]], "a folder of benchmarks"
    with pytest.raises(RecordError, match="two inputs would be written to one file"):
        check([files[0], str(tmp_path / "other" / "users.jsonl")], [str(tmp_path)], str(tmp_path / "clean"))
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"uid": "u", "history": []}\n')
    with pytest.raises(RecordError, match=r"bad.jsonl:1: field 'history': empty"):
        check([str(bad)], [str(tmp_path)])


@pytest.mark.parametrize("past", [None, "Likes good things."])
def test_overlap_finds_items_of_several_lines_in_prompts(tmp_path, past):
    held_out = user("u")
    answers = Interaction("Dear user: first\n\n- one <|im_end|>\n- two", "Dear user: first\n\n- other")
    write_jsonl(tmp_path / "bench_upi.jsonl", [user_row(UserRecord("u", held_out.history, answers))])
    half = Interaction(answers.chosen, "something else")  # one item of the pair is no pair
    for item, found in ((answers, 1), (half, 0)):
        write_jsonl(
            tmp_path / "sft.jsonl", [{"prompt": PromptSet().infer([item, *user("x").history], past), "completion": []}]
        )
        (count,) = check([str(tmp_path / "sft.jsonl")], [str(tmp_path / "bench_upi.jsonl")]).values()
        assert (count["target"], count["pair"]) == (found, found)


def test_tallrec_asks_about_both_items_of_a_pair_and_never_shows_the_answer(tokenizer):
    record, args = user("u", 9), TallrecOptions(data="", out="", per_user=3, least_history=3, last=4)
    rows = list(tallrec_rows(record, PromptSet(), tokenizer, args, Counter()))
    assert len(rows) == 6 and [row["completion"][0]["content"] for row in rows] == ["Yes", "No"] * 3
    for yes, no in zip(rows[::2], rows[1::2]):
        texts = [row["prompt"][1]["content"] for row in (yes, no)]
        items = [next(line for line in text.splitlines() if line.startswith("Item: ")) for text in texts]
        assert items[0].replace("good", "bad") == items[1] and texts[0].replace(items[0], items[1]) == texts[1]
        assert texts[0].count("Liked:") <= 4 and items[0].removeprefix("Item: ") not in texts[0].replace(items[0], "")
    assert "Item: u good 8" in rows[-2]["prompt"][1]["content"], "the target is always asked about"


def test_tallrec_fits_both_rows_of_a_question_or_leaves_both_out(tokenizer, model_folder, tmp_path):
    """Lengths of chosen and passed-over items differ, so that at this limit one row of a question may fit where the
    other does not."""
    rng, limit = random.Random(0), 500
    users = []
    for n in range(30):
        texts = [
            [f"{n} {i} {side}" + " x" * rng.randint(1, 60 if i < 9 else 400) for side in ("good", "bad")]
            for i in range(10)
        ]
        *history, target = (Interaction(good, bad) for good, bad in texts)
        users.append(UserRecord(f"u{n}", tuple(history), target))
    write_jsonl(tmp_path / "users.jsonl", map(user_row, users))
    files = {"data": str(tmp_path / "users.jsonl"), "out": str(tmp_path / "rows.jsonl"), "model": str(model_folder)}
    told = write_rows(TallrecOptions(**files, max_length=limit, per_user=3))
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    prepared = prepare_rows([str(tmp_path / "rows.jsonl")], tokenizer, tmp_path / "set", limit)
    assert prepared["rows"] == len(rows) and prepared["longest"] > limit - 60, "what fits is kept"
    places = {item.chosen: place for record in users for place, item in enumerate(all_behaviours(record))}
    before = shown = 0
    for yes, no in zip(rows[::2], rows[1::2], strict=True):
        texts, items = zip(*(row["prompt"][1]["content"].split("\nItem: ") for row in (yes, no)))
        assert texts[0] == texts[1] and [row["completion"][0]["content"] for row in (yes, no)] == ["Yes", "No"]
        before += places[items[0].removesuffix("\nWill the user like this item?")]
        shown += texts[0].count("Liked: ")
    said = re.search(
        r": (\d+) rows, half of them Yes; to fit 500 tokens (\d+) questions lost (\d+) of .*, and (\d+) too long", told
    )
    count, cut, choices, too_long = map(int, said.groups())
    assert count == len(rows) == 2 * (3 * 30 - too_long) and too_long > 5
    assert choices == before - shown > cut > 5


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


@pytest.mark.parametrize("given", [None, "What next?"])
def test_a_null_query_is_replaced_as_in_evaluation(tmp_path, tokenizer, model_folder, given):
    """One place decides it, so that training prompts read as evaluation's do: the data set's query, or what is
    given."""
    data = tmp_path / "train_mind_upi.jsonl"
    write_jsonl(data, [user_row(user("u"))])
    query = given or datasets.get("mind").default_query
    (record,) = read_behaviours(data, given)
    assert {item.query for item in all_behaviours(record)} == {query}
    prepare(str(data), tokenizer, tmp_path / "set", 4096, given)
    assert (
        tokenizer.decode(load_prepared(tmp_path / "set", tokenizer)[0][0]["input_ids"]).count(f"Request: {query}")
        == 14
    )
    files = {"data": str(data), "out": str(tmp_path / "tallrec.jsonl"), "model": str(model_folder)}
    write_rows(TallrecOptions(**files, default_query=given))
    assert query in json.loads((tmp_path / "tallrec.jsonl").read_text().splitlines()[0])["prompt"][1]["content"]
    for name, p in (("strong", 0.9), ("weak", 0.5)):
        entries = [{"position": i, "logprob": math.log(p) - (i % 5) / 100} for i in range(14)]
        write_jsonl(tmp_path / f"{name}.jsonl", [{"id": record.id, "scores": entries, "dropped": 0}])
    options = {
        "strong": str(tmp_path / "strong.jsonl"),
        "weak": str(tmp_path / "weak.jsonl"),
        "signal_share": 1.0,
        "default_query": given,
    }
    select(SelectionOptions(data=str(data), out=str(tmp_path / "rl.jsonl"), **options))
    assert {item["query"] for item in json.loads((tmp_path / "rl.jsonl").read_text())["history"]} == {query}
