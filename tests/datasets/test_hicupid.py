"""The HiCUPID builder: dialogues before questions, test splits, the properties of its rows."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignxplore.records import RecordError

FIELDS = {
    "dialogue/train.jsonl": ("user_id", "dialogue_id", "user", "assistant"),
    "qa_test_1.json": ("user_id", "question_id", "question", "personalized_answer", "general_answer", "type"),
}


def write_hicupid(folder, users="uv"):
    (folder / "dialogue").mkdir(parents=True)
    turns = [
        {
            "user_id": user,
            "dialogue_id": d,
            "type": "persona",
            "user": f"{user} says {d}.{t}",
            "assistant": f"reply {d}.{t}",
        }
        for user in users
        for d in (2, 1, 10)
        for t in (1, 2)
    ]
    (folder / "dialogue" / "train.jsonl").write_text("".join(json.dumps(x) + "\n" for x in turns))
    for split in ("train", "test_1"):
        rows = [
            {
                "user_id": user,
                "dialogue_id": [1],
                "question_id": f"{split}{k}",
                "question": "What?",
                "type": "schedule",
                "personalized_answer": f"for {user} {k}",
                "general_answer": "for all",
                "metadata": {"schedule": {"event": "x"}},
            }
            for user in users
            for k in range(2)
        ]
        (folder / f"qa_{split}.json").write_text(json.dumps(rows))
    return folder


def test_hicupid(run, check_rows, tmp_path):
    examples, job = run("hicupid", write_hicupid(tmp_path))
    check_rows(examples)
    assert {x.record.user for x in examples} == {"u#test_10", "u#test_11", "v#test_10", "v#test_11"}
    record = examples[0].record
    user = record.user[0]
    assert [pair.query for pair in record.history] == [f"{user} says {d}.{t}" for d in (1, 2, 10) for t in (1, 2)]
    assert record.history[0].rejected is None and record.target.rejected == "for all"
    assert json.loads(record.persona) == {"type": "schedule", "metadata": {"schedule": {"event": "x"}}}
    assert record.question_type == "schedule"


def with_test_2(folder):
    """A split test_2: two questions on the persona that name dialogues, and one of another type."""
    rows = [
        {
            "user_id": "u",
            "dialogue_id": named,
            "question_id": f"q{k}",
            "question": "What?",
            "type": kind,
            "personalized_answer": f"for u {k}",
            "general_answer": "for all",
        }
        for k, (kind, named) in enumerate([("persona", [10, 1]), ("persona", 2), ("profile", [1])])
    ]
    (write_hicupid(folder) / "qa_test_2.json").write_text(json.dumps(rows))
    return folder


def test_evidence_shows_the_dialogues_that_a_question_on_the_persona_names(run, check_rows, tmp_path):
    examples, job = run("hicupid", with_test_2(tmp_path), protocol="evidence")
    check_rows(examples)
    queries_of = {x.record.user: [pair.query for pair in x.record.history] for x in examples}
    assert queries_of == {
        "u#q0": [f"u says {d}.{t}" for d in (1, 10) for t in (1, 2)],
        "u#q1": [f"u says 2.{t}" for t in (1, 2)],
    }
    assert job.counts["questions left out: of another type than persona"] == 1


def test_evidence_needs_the_split_that_it_is_of_and_dialogues_that_are_named(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="the protocol evidence needs the split test_2 of qa"):
        run("hicupid", write_hicupid(tmp_path / "a"), protocol="evidence")
    path = with_test_2(tmp_path / "b") / "qa_test_2.json"
    for wrong in (None, [], [True], {"id": 1}):
        rows = json.loads(path.read_text())
        rows[1]["dialogue_id"] = wrong
        path.write_text(json.dumps(rows))
        with pytest.raises(
            RecordError, match=r"qa_test_2\.json:2: field 'dialogue_id'.*expected the ids of dialogues"
        ):
            run("hicupid", tmp_path / "b", protocol="evidence")


@pytest.mark.parametrize(("file", "field"), [(file, field) for file, fields in FIELDS.items() for field in fields])
def test_a_missing_field_is_named_with_its_file(run, without, tmp_path, file, field):
    without(write_hicupid(tmp_path) / file, field)
    with pytest.raises(RecordError, match=rf"{(tmp_path / file).name}.*field '{field}'"):
        run("hicupid", tmp_path)


answers = st.text("ab ", min_size=0, max_size=4)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    turns=st.lists(st.tuples(st.sampled_from("uvw"), st.integers(0, 3), answers, answers), max_size=12),
    questions=st.lists(st.tuples(st.sampled_from("uvw"), answers, answers), max_size=6),
    seed=st.integers(0, 2),
)
def test_properties_of_hicupid(run, check_rows, check_splits, tmp_path, turns, questions, seed):
    lines = [
        {"user_id": u, "dialogue_id": d, "user": f"{n} {q}", "assistant": a} for n, (u, d, q, a) in enumerate(turns)
    ]
    (tmp_path / "dialogue.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    rows = [
        {
            "user_id": user,
            "question_id": n,
            "question": "What?",
            "type": "persona",
            "personalized_answer": personal,
            "general_answer": general,
        }
        for n, (user, personal, general) in enumerate(questions)
    ]
    (tmp_path / "qa.jsonl").write_text("".join(json.dumps(x) + "\n" for x in rows))
    examples, _ = run("hicupid", tmp_path, seed=seed)
    check_rows(examples)
    for record, _ in examples:
        user = record.user.partition("#")[0]
        order = [n for _, n in sorted((d, n) for n, (u, d, _, _) in enumerate(turns) if u == user)]
        queries = [
            int((pair.query if pair.query in [x["user"].strip() for x in lines] else pair.chosen).split(" ")[0])
            for pair in record.history
        ]
        assert queries == [n for n in order if n in queries]
    check_splits("hicupid", tmp_path)
