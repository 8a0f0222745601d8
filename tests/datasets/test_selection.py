"""The builders whose rows carry their history as pairs: AlignX and P-Soups; what every builder of given answers
shares."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignxplore.baselines.cues import longer
from alignxplore.datasets.selection import from_messages
from alignxplore.records import Interaction, RecordError

FEEDBACK = "Pair-wise Comparative Feedback"
FEEDBACK_SETS = ("alignx", "student_phd", "concise_detail", "friendly_unfriendly")


def row(number=0, history=2, chosen="a good answer", rejected="bad", **more):
    pairs = [
        {"prompt": f"p{number}.{k}", "chosen": f"c{number}.{k}", "rejected": f"r{number}.{k}"} for k in range(history)
    ]
    return {
        "prompt": f"q{number}",
        "chosen": f"{chosen} {number}",
        "rejected": f"{rejected} {number}",
        FEEDBACK: pairs,
    } | more


@pytest.mark.parametrize("form", ["array", "line", "indented", "jsonl", "parquet"])
def test_alignx_in_all_forms(run, check_rows, tmp_path, form):
    rows = [row(number, **{"Demographic Information": 'a {strange} "one"],'}) for number in range(5)]
    if form == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(__import__("pyarrow").Table.from_pylist(rows), tmp_path / "alignx.parquet")
    elif form == "jsonl":
        (tmp_path / "alignx.jsonl").write_text("".join(json.dumps(x) + "\n" for x in rows))
    else:
        text = {
            "array": "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n",
            "line": json.dumps(rows),
            "indented": json.dumps(rows, indent=4),
        }[form]
        (tmp_path / "alignx.json").write_text(text)
    examples, job = run("alignx", tmp_path)
    check_rows(examples)
    assert job.counts["rows read"] == len(examples) == 5
    record = next(x.record for x in examples if x.record.target.query == "q3")
    assert record.history == (Interaction("c3.0", "r3.0", "p3.0"), Interaction("c3.1", "r3.1", "p3.1"))
    assert record.target == Interaction("a good answer 3", "bad 3", "q3") and record.persona.startswith("a {strange}")


def test_several_files_of_one_set_are_named(run, tmp_path):
    for name in ("a/student_phd.json", "b/student_phd.jsonl"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(json.dumps([row()]))
    names = r"a/student_phd\.json, b/student_phd\.jsonl"
    with pytest.raises(ValueError, match=rf"holds several files \({names}\); give the folder of one"):
        run("student_phd", tmp_path)


@pytest.mark.parametrize(
    "text, message",
    [
        ('[{"prompt": "a"}]', "field 'Pair-wise Comparative Feedback': expected a list"),
        (json.dumps([row(), {FEEDBACK: [], "prompt": "x", "chosen": "y"}]), ":2: field 'rejected': missing"),
        (json.dumps([row() | {"chosen": 3}]), "field 'chosen': expected text, found 3"),
        (json.dumps([row()])[:-9], "ends in the middle of a row"),
    ],
)
def test_damaged_rows_name_file_and_field(run, tmp_path, text, message):
    (tmp_path / "student_phd.json").write_text(text)
    with pytest.raises(RecordError) as error:
        run("student_phd", tmp_path)
    assert "student_phd.json" in str(error.value) and message in str(error.value)


@pytest.mark.parametrize("field", ["prompt", "chosen", "rejected", FEEDBACK])
def test_a_missing_field_is_named_with_its_file(run, without, tmp_path, field):
    (tmp_path / "alignx.json").write_text(json.dumps([row(0)]))
    without(tmp_path / "alignx.json", field)
    with pytest.raises(RecordError, match=rf"alignx\.json.*field '{field}'"):
        run("alignx", tmp_path)


def test_what_leaks_or_repeats_is_dropped_and_counted(run, tmp_path):
    leaking, repeating, equal = row(1), row(2), row(3) | {"chosen": "same", "rejected": "same"}
    leaking[FEEDBACK].append({"prompt": "other", "chosen": leaking["chosen"], "rejected": "x"})
    repeating[FEEDBACK].append(repeating[FEEDBACK][0])
    (tmp_path / "concise_detail.json").write_text(
        json.dumps([leaking, repeating, equal, row(4, history=0), row(5), row(5)])
    )
    examples, job = run("concise_detail", tmp_path)
    assert len(examples) == 3 and all(len(x.record.history) == 2 for x in examples)
    assert job.counts["dropped from a history: it holds the answer to be predicted"] == 1
    assert job.counts["dropped from a history: repeated"] == 1
    assert job.counts["dropped: an answer is empty, or both are the same"] == 1
    assert job.counts["dropped: fewer than 2 interactions"] == 1
    assert job.counts["dropped: a row of the same id came before"] == 1


def test_matched_balances_lengths_within_each_persona(run, tmp_path):
    rows = [
        row(
            number,
            chosen="x" * (20 if number % 4 else 2),
            rejected="y" * 9,
            ground_truth_persona="ab"[number % 3 == 0],
        )
        for number in range(60)
    ]
    (tmp_path / "student_phd.json").write_text(json.dumps(rows))
    users_of_seed = {}
    for seed in range(3):
        examples, job = run("student_phd", tmp_path, protocol="matched", seed=seed)
        for persona in "ab":
            scores = [longer(x.record) for x in examples if x.record.persona == persona]
            assert scores and sum(scores) == len(scores) / 2
        assert job.counts["dropped: one more row of the more frequent order of lengths"] == 60 - len(examples)
        users_of_seed[seed] = {x.record.user for x in examples}
    assert users_of_seed[0] != users_of_seed[1]


@pytest.mark.parametrize("name", FEEDBACK_SETS)
@pytest.mark.parametrize(
    "parts", [({"split": "train"}, {"split": "test"}), ({"persons": (0, 0.6)}, {"persons": (0.6, 1)})]
)
def test_parts_of_a_set_without_users_share_no_target(run, tmp_path, name, parts):
    texts = [
        {"prompt": f"q{k % 30}", "chosen": f"yes{' ' * (1 + k % 2)}{k % 30}", "rejected": f"no {k % 30}"}
        for k in range(120)
    ]
    rows = [row(k, ground_truth_persona="a") | target for k, target in enumerate(texts)]
    for x in list(rows):  # another persona takes the other answer
        rows.append(x | {"chosen": x["rejected"], "rejected": x["chosen"], "ground_truth_persona": "b"})
    (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    examples = [run(name, tmp_path, **options)[0] for options in parts]
    targets = [
        {(x.record.target.query, *sorted(" ".join(text.split()) for text in x.record.target.items)) for x in part}
        for part in examples
    ]
    assert all(targets) and not targets[0] & targets[1] and len(targets[0] | targets[1]) == 30
    assert sum(map(len, examples)) == len(run(name, tmp_path)[0])


@pytest.mark.parametrize("name", FEEDBACK_SETS)
@pytest.mark.parametrize(
    "part, other", [({"split": "train"}, {"split": "test"}), ({"persons": (0, 0.6)}, {"persons": (0.6, 1)})]
)
def test_no_history_for_training_holds_a_target_of_another_part(run, tmp_path, name, part, other):
    rows = [row(k) for k in range(40)]
    for k, target in enumerate(rows):  # the target of the next row, in another white space and with the other answer
        pair = {key: rows[(k + 1) % 40][key] for key in ("prompt", "chosen", "rejected")}
        target[FEEDBACK].append(pair | {"chosen": f" {pair['rejected']}  ", "rejected": pair["chosen"]})
    (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    (examples, job), (others, _) = run(name, tmp_path, **part), run(name, tmp_path, **other)

    def choice(pair):
        return pair.query, *sorted(text.strip() for text in pair.items)

    targets = {choice(x.record.target) for x in others}
    assert targets and not [pair for x in examples for pair in x.record.history if choice(pair) in targets]
    lost = sum(len(x.record.history) == 2 for x in examples)
    assert job.counts["dropped from a history: a target of another part"] == lost > 0
    assert len(examples) + len(others) == 40
    for whole in ({}, {"split": "test"}):  # nobody trains on these
        assert all(len(x.record.history) == 3 for x in run(name, tmp_path, **whole)[0])


def test_a_chat_becomes_interactions():
    chat = [
        ("system", "persona"),
        ("assistant", "Hello"),
        ("user", "User: one"),
        ("user", "two"),
        ("assistant", "Assistant: yes"),
        ("assistant", ""),
        ("user", "last"),
    ]
    interactions = from_messages([{"role": role, "content": text} for role, text in chat])
    assert interactions == [Interaction("yes", None, "one\ntwo"), Interaction("last")]


answers = st.text("ab ", min_size=0, max_size=4)
pairs = st.fixed_dictionaries({"prompt": st.sampled_from(["p", "q"]), "chosen": answers, "rejected": answers})
feedback = st.lists(pairs, max_size=5)
row_lists = st.lists(st.tuples(pairs, feedback, st.sampled_from("xy")), max_size=12)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=row_lists, name=st.sampled_from(FEEDBACK_SETS), protocol=st.sampled_from(["published", "matched"]))
def test_properties_of_alignx_and_psoups(run, check_rows, check_splits, tmp_path, rows, name, protocol):
    raw = [target | {FEEDBACK: history, "ground_truth_persona": persona} for target, history, persona in rows]
    (tmp_path / f"{name}.json").write_text(json.dumps(raw))
    for other in set(FEEDBACK_SETS) - {name}:
        (tmp_path / f"{other}.json").unlink(missing_ok=True)
    examples, job = run(name, tmp_path, protocol=protocol)
    check_rows(examples)
    assert job.counts["rows read"] == len(rows)
    for record, _ in examples:
        assert len(set(record.history)) == len(record.history)
        assert all(pair.chosen != record.target.chosen for pair in record.history)
        history_pairs = [(pair.query, pair.chosen, pair.rejected) for pair in record.history]
        target = record.target.query, record.target.chosen, record.target.rejected
        sources = [
            [tuple(pair[key] for key in ("prompt", "chosen", "rejected")) for pair in x[FEEDBACK]]
            for x in raw
            if (x["prompt"], x["chosen"], x["rejected"]) == target
        ]
        assert any(
            history_pairs == sorted(history_pairs, key=pairs.index)
            for pairs in sources
            if set(history_pairs) <= set(pairs)
        )
    if protocol == "matched":
        assert sum(longer(x.record) for x in examples) == len(examples) / 2
    check_splits(name, tmp_path)
