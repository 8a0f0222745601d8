"""The PersonaMem builder: both versions, what is read of a chat, the properties of its rows."""

import csv
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignxplore.baselines.cues import longer
from alignxplore.datasets import get, personamem
from alignxplore.datasets.__main__ import build
from alignxplore.datasets.building import Job
from alignxplore.records import Interaction, RecordError

FIELDS = {  # of the rows of each version, which cannot do without them
    "questions_32k.csv": (
        "persona_id",
        "question_id",
        "question_type",
        "correct_answer",
        "all_options",
        "shared_context_id",
        "user_question_or_message",
        "end_index_in_shared_context",
    ),
    "benchmark/text/benchmark.csv": (
        "persona_id",
        "user_query",
        "correct_answer",
        "incorrect_answers",
        "related_conversation_snippet",
    ),
}


def write_v1(folder, questions=4):
    chat = [{"role": "system", "content": "Current user persona: Ann"}]
    for turn in range(6):
        chat += [
            {"role": "user", "content": f"User: said {turn}"},
            {"role": "assistant", "content": f"Assistant: heard {turn}"},
        ]
    (folder / "shared_contexts_32k.jsonl").write_text(
        json.dumps({"other": []}) + "\n" + json.dumps({"c1": chat}) + "\n"
    )
    options = repr(["(a) short", '(b) it\'s "middle" one', "(c) the longest of them all", "(d) shor2"])
    with (folder / "questions_32k.csv").open("w", newline="") as out:
        writer = csv.DictWriter(
            out,
            [
                "persona_id",
                "question_id",
                "question_type",
                "user_question_or_message",
                "correct_answer",
                "all_options",
                "shared_context_id",
                "end_index_in_shared_context",
            ],
        )
        writer.writeheader()
        for number in range(questions):
            writer.writerow(
                {
                    "persona_id": number // 2,
                    "question_id": f"q{number}",
                    "question_type": "recall",
                    "user_question_or_message": f"What,\n{number}?",
                    "correct_answer": "(b)",
                    "all_options": options,
                    "shared_context_id": "c1" if number else "missing",
                    "end_index_in_shared_context": 5,
                }
            )
    return folder


def test_personamem_v1(run, check_rows, tmp_path):
    examples, job = run("personamem", write_v1(tmp_path))
    check_rows(examples)
    assert {x.record.user for x in examples} == {"0#q1", "1#q2", "1#q3"} and job.edition == "v1 32k"
    assert job.counts["dropped: its chat is not in the contexts file"] == 1
    for record, _ in examples:
        assert record.history == (Interaction("heard 0", None, "said 0"), Interaction("heard 1", None, "said 1"))
        assert record.persona == "Current user persona: Ann" and record.target.query == f"What,\n{record.user[-1]}?"
        assert record.target.chosen == 'it\'s "middle" one' and record.question_type == "recall"
    drawn = {x.record.target.rejected for seed in range(9) for x in run("personamem", tmp_path, seed=seed)[0]}
    assert drawn == {"short", "the longest of them all", "shor2"}


def test_personamem_v1_without_its_chats_says_which_file_is_missing(run, tmp_path):
    write_v1(tmp_path)
    (tmp_path / "shared_contexts_32k.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"shared_contexts_32k\.jsonl: missing"):
        run("personamem", tmp_path)


def write_v2(folder, query):
    (folder / "benchmark" / "text").mkdir(parents=True)
    (folder / "data" / "chat_history_32k").mkdir(parents=True)
    chat = [
        {"role": "system", "content": "profile"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
    (folder / "data" / "chat_history_32k" / "p.json").write_text(json.dumps({"metadata": {}, "chat_history": chat}))
    with (folder / "benchmark" / "text" / "benchmark.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(
            [
                "persona_id",
                "chat_history_32k_link",
                "user_query",
                "correct_answer",
                "incorrect_answers",
                "pref_type",
                "who",
                "related_conversation_snippet",
            ]
        )
        for number in range(1, 9):
            writer.writerow(
                [
                    number // 2,
                    "data/chat_history_32k/p.json",
                    query.format(number),
                    "right answer",
                    json.dumps(["w1", "wrong 22", "w"]),
                    "stereotypical",
                    "self",
                    repr(chat[3:]),
                ]
            )
    return folder


def test_no_protocol_is_called_published_where_the_published_conversion_is_not_known(run, tmp_path):
    with pytest.raises(ValueError, match="no protocol 'published'; it has evidence, matched, chat"):
        run("personamem", write_v2(tmp_path / "v2", "Question {0}"), protocol="published")
    (tmp_path / "v1").mkdir()
    protocols = [run("personamem", tmp_path / "v2")[1].protocol]
    protocols += [run("personamem", write_v1(tmp_path / "v1"), protocol=name)[1].protocol for name in ("", "matched")]
    assert protocols == ["evidence", "chat", "matched"]


@pytest.mark.parametrize("query", ["{{'role': 'user', 'content': 'Question {0}'}}", "Question {0}"])
def test_personamem_v2(run, check_rows, tmp_path, query):
    write_v2(tmp_path, query)
    snippet, _ = run("personamem", tmp_path)
    chat, _ = run("personamem", tmp_path, protocol="chat")
    check_rows(snippet)
    check_rows(chat)
    assert len(snippet) == len(chat) == 8
    assert snippet[0].record.history == (Interaction("d", None, "c"),)
    assert chat[0].record.history == (Interaction("b", None, "a"), Interaction("d", None, "c"))
    assert chat[0].record.persona == "profile" and chat[0].record.question_type == "stereotypical, self"
    assert {x.record.target.query for x in snippet} == {f"Question {number}" for number in range(1, 9)}
    (tmp_path / "data" / "chat_history_32k" / "p.json").unlink()
    with pytest.raises(RecordError, match="p.json is not at hand; download data/chat_history_32k"):
        run("personamem", tmp_path, protocol="chat", seed=1)


def test_of_several_tables_of_v2_the_one_of_texts_is_read(run, tmp_path):
    write_v2(tmp_path, "Question {0}")
    text = tmp_path / "benchmark" / "text" / "benchmark.csv"
    for place in ("benchmark/multimodal", "other"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "benchmark.csv").write_text(text.read_text().replace("Question", "Image"))
    examples, _ = run("personamem", tmp_path)
    assert {x.record.target.query for x in examples} == {f"Question {number}" for number in range(1, 9)}
    text.unlink()
    names = r"benchmark/multimodal/benchmark\.csv, other/benchmark\.csv"
    with pytest.raises(ValueError, match=rf"holds several tables \({names}\); give the folder of one"):
        run("personamem", tmp_path)


@pytest.mark.parametrize("protocol", ["evidence", "chat"])
def test_a_sample_of_users_holds_persons_with_all_their_rows_in_the_same_order(tmp_path, protocol):
    write_v2(tmp_path, "Question {0}")

    def rows(name, **options):
        job = Job(get("personamem"), tmp_path, protocol, **options)
        counts = build(job, tmp_path / name)["counts"]
        return (tmp_path / name).read_text().splitlines(), counts

    def person(line):
        return json.loads(line)["userid"].partition("#")[0]

    lines, counts = rows("all.jsonl")
    people = {person(line) for line in lines}
    assert counts["users kept"] == len(people) > 2 and counts["rows of these users"] == len(lines) > len(people)
    earlier: set[str] = set()
    for users in range(1, len(people) + 1):
        sample, counts = rows("sample.jsonl", users=users)
        sampled_people = {person(line) for line in sample}
        assert counts["users kept"] == len(sampled_people) == users and earlier < sampled_people
        assert sample == [line for line in lines if person(line) in sampled_people]
        assert counts.get("rows of these users", users) == len(sample)
        earlier = sampled_people


@pytest.mark.parametrize(("file", "field"), [(file, field) for file, fields in FIELDS.items() for field in fields])
def test_a_missing_field_is_named_with_its_file(run, without, tmp_path, file, field):
    if file == "questions_32k.csv":
        write_v1(tmp_path)
    else:
        write_v2(tmp_path, "Question {0}")
    without(tmp_path / file, field)
    with pytest.raises(RecordError, match=rf"{(tmp_path / file).name}.*field '{field}'"):
        run("personamem", tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("all_options", "3"),
        ("all_options", "('(a) x', '(b) y')"),
        ("all_options", "__import__('os')"),
        ("correct_answer", "(z)"),
        ("end_index_in_shared_context", "five"),
        ("end_index_in_shared_context", "-1"),
    ],
)
def test_a_field_that_makes_no_sense_is_named(run, tmp_path, field, value):
    write_v1(tmp_path)
    path = tmp_path / "questions_32k.csv"
    with path.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    with path.open("w", newline="") as out:
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        writer.writerows([rows[1], rows[2] | {field: value}])
    with pytest.raises(RecordError, match=rf"questions_32k\.csv:4: field '{field}'"):
        run("personamem", tmp_path)


@pytest.mark.parametrize("snippet", ["'a chat'", "[1, 2]", "[[]]", "not a list"])
def test_a_conversation_of_another_form_is_named(run, tmp_path, snippet):
    (tmp_path / "benchmark.csv").write_text(
        "persona_id,user_query,correct_answer,incorrect_answers,related_conversation_snippet\n"
        f'1,What?,right,"[""wrong""]","{snippet}"\n'
    )
    with pytest.raises(RecordError, match=r"benchmark\.csv:2: field 'related_conversation_snippet'"):
        run("personamem", tmp_path)


answers = st.text("ab ", min_size=0, max_size=4)
roles = st.sampled_from(["user", "assistant", "system"])
messages = st.lists(st.fixed_dictionaries({"role": roles, "content": answers}), max_size=9)
questions = st.lists(
    st.tuples(st.integers(0, 3), messages, answers, st.lists(answers, min_size=1, max_size=3)), max_size=8
)


def numbered(chat):
    """The messages with their place in front of what they say."""
    return [message | {"content": f"{place}: {message['content']}"} for place, message in enumerate(chat)]


def places(record):
    """Places of all messages in a history, in its order."""
    texts = "\n".join(text for pair in record.history for text in (pair.query, pair.chosen) if text)
    return [int(line.partition(":")[0]) for line in texts.splitlines() if line[:1].isdigit()]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(questions=questions, protocol=st.sampled_from(["evidence", "matched", "chat"]), seed=st.integers(0, 2))
def test_properties_of_personamem_v2(run, check_rows, check_splits, tmp_path, questions, protocol, seed):
    with (tmp_path / "benchmark.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(
            [
                "persona_id",
                "user_query",
                "correct_answer",
                "incorrect_answers",
                "related_conversation_snippet",
                "chat_history_32k_link",
            ]
        )
        for number, (persona, chat, right, wrong) in enumerate(questions):
            (tmp_path / f"{seed}{number}.json").write_text(json.dumps({"chat_history": numbered(chat)}))
            writer.writerow(
                [persona, "What?", right, json.dumps(wrong), json.dumps(numbered(chat)), f"{seed}{number}.json"]
            )
    personamem._chat_file.cache_clear()  # these files change between examples
    examples, job = run("personamem", tmp_path, protocol=protocol, seed=seed)
    check_rows(examples)
    assert job.counts["rows read"] == len(questions)
    for record, _ in examples:
        _, chat, right, wrong = questions[int(record.user.partition("#")[2]) - 1]
        assert record.target.chosen == right.strip() and record.target.rejected in [x.strip() for x in wrong]
        shown_places = places(record)
        assert (
            shown_places
            and shown_places == sorted(set(shown_places))
            and all(chat[place]["role"] != "system" for place in shown_places)
        )
    if protocol == "matched":
        assert sum(longer(x.record) for x in examples) == len(examples) / 2
    check_splits("personamem", tmp_path)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    chat=messages,
    questions=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 9), st.permutations(["x", "yy", "zzz"])), max_size=6
    ),
    protocol=st.sampled_from(["chat", "matched"]),
    seed=st.integers(0, 2),
)
def test_properties_of_personamem_v1(run, check_rows, check_splits, tmp_path, chat, questions, protocol, seed):
    (tmp_path / "shared_contexts_32k.jsonl").write_text(json.dumps({"c": numbered(chat)}) + "\n")
    with (tmp_path / "questions_32k.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(
            [
                "persona_id",
                "question_id",
                "question_type",
                "user_question_or_message",
                "correct_answer",
                "all_options",
                "shared_context_id",
                "end_index_in_shared_context",
            ]
        )
        for number, (persona, end, options) in enumerate(questions):
            listed = [f"({letter}) {text}" for letter, text in zip("abc", options)]
            writer.writerow([persona, f"q{number}", "kind", "What?", "(a)", repr(listed), "c", end])
    examples, job = run("personamem", tmp_path, protocol=protocol, seed=seed)
    check_rows(examples)
    assert job.counts["rows read"] == len(questions)
    for record, _ in examples:
        persona, end, options = questions[int(record.user.partition("#q")[2])]
        assert record.user.partition("#")[0] == str(persona)
        assert record.target.chosen == options[0] and record.target.rejected in options[1:]
        shown_places = places(record)
        assert (
            shown_places
            and shown_places == sorted(set(shown_places))
            and max(shown_places) < end
            and all(chat[place]["role"] != "system" for place in shown_places)
        )
    check_splits("personamem", tmp_path)
