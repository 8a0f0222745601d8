"""The builders whose answers are given: AlignX, P-Soups, PersonaMem v1 and v2, HiCUPID."""

import csv
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignxplore.datasets import personamem
from alignxplore.datasets.baselines import longer
from alignxplore.datasets.selection import from_messages
from alignxplore.records import Interaction, RecordError

FEEDBACK = "Pair-wise Comparative Feedback"
FEEDBACK_SETS = ("alignx", "student_phd", "concise_detail", "friendly_unfriendly")


def row(number=0, history=2, chosen="a good answer", rejected="bad", **more):
    pairs = [{"prompt": f"p{number}.{k}", "chosen": f"c{number}.{k}", "rejected": f"r{number}.{k}"} for k in range(history)]
    return {"prompt": f"q{number}", "chosen": f"{chosen} {number}", "rejected": f"{rejected} {number}", FEEDBACK: pairs} | more


@pytest.mark.parametrize("form", ["array", "line", "indented", "jsonl", "parquet"])
def test_alignx_in_all_forms(run, check_rows, tmp_path, form):
    rows = [row(number, **{"Demographic Information": "a {strange} \"one\"],"}) for number in range(5)]
    if form == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(__import__("pyarrow").Table.from_pylist(rows), tmp_path / "alignx.parquet")
    elif form == "jsonl":
        (tmp_path / "alignx.jsonl").write_text("".join(json.dumps(x) + "\n" for x in rows))
    else:
        text = {"array": "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n", "line": json.dumps(rows),
                "indented": json.dumps(rows, indent=4)}[form]
        (tmp_path / "alignx.json").write_text(text)
    examples, job = run("alignx", tmp_path)
    check_rows(examples)
    assert job.counts["rows read"] == len(examples) == 5
    record = next(x.record for x in examples if x.record.target.query == "q3")
    assert record.history == (Interaction("c3.0", "r3.0", "p3.0"), Interaction("c3.1", "r3.1", "p3.1"))
    assert record.target == Interaction("a good answer 3", "bad 3", "q3") and record.persona.startswith("a {strange}")


@pytest.mark.parametrize("text, message", [
    ('[{"prompt": "a"}]', "field 'Pair-wise Comparative Feedback': expected a list"),
    (json.dumps([row(), {FEEDBACK: [], "prompt": "x", "chosen": "y"}]), ":2: field 'rejected': missing"),
    (json.dumps([row() | {"chosen": 3}]), "field 'chosen': expected text, found 3"),
    (json.dumps([row()])[:-9], "ends in the middle of a row"),
])
def test_damaged_rows_name_file_and_field(run, tmp_path, text, message):
    (tmp_path / "student_phd.json").write_text(text)
    with pytest.raises(RecordError) as error:
        run("student_phd", tmp_path)
    assert "student_phd.json" in str(error.value) and message in str(error.value)


def test_what_leaks_or_repeats_is_dropped_and_counted(run, tmp_path):
    leaking, repeating, equal = row(1), row(2), row(3) | {"chosen": "same", "rejected": "same"}
    leaking[FEEDBACK].append({"prompt": "other", "chosen": leaking["chosen"], "rejected": "x"})
    repeating[FEEDBACK].append(repeating[FEEDBACK][0])
    (tmp_path / "concise_detail.json").write_text(json.dumps([leaking, repeating, equal, row(4, history=0), row(5), row(5)]))
    examples, job = run("concise_detail", tmp_path)
    assert len(examples) == 3 and all(len(x.record.history) == 2 for x in examples)
    assert job.counts["dropped from a history: it holds the answer to be predicted"] == 1
    assert job.counts["dropped from a history: repeated"] == 1
    assert job.counts["dropped: an answer is empty, or both are the same"] == 1
    assert job.counts["dropped: fewer than 2 interactions"] == 1
    assert job.counts["dropped: a row of the same id came before"] == 1


def test_matched_balances_lengths_within_each_persona(run, tmp_path):
    rows = [row(number, chosen="x" * (20 if number % 4 else 2), rejected="y" * 9, ground_truth_persona="ab"[number % 3 == 0])
            for number in range(60)]
    (tmp_path / "student_phd.json").write_text(json.dumps(rows))
    kept = {}
    for seed in range(3):
        examples, job = run("student_phd", tmp_path, protocol="matched", seed=seed)
        for persona in "ab":
            scores = [longer(x.record) for x in examples if x.record.persona == persona]
            assert scores and sum(scores) == len(scores) / 2
        assert job.counts["dropped: one more row of the more frequent order of lengths"] == 60 - len(examples)
        kept[seed] = {x.record.user for x in examples}
    assert kept[0] != kept[1]


def test_a_chat_becomes_interactions():
    chat = [("system", "persona"), ("assistant", "Hello"), ("user", "User: one"), ("user", "two"),
            ("assistant", "Assistant: yes"), ("assistant", ""), ("user", "last")]
    found = from_messages([{"role": role, "content": text} for role, text in chat])
    assert found == [Interaction("yes", None, "one\ntwo"), Interaction("last")]


def write_v1(folder, questions=4):
    chat = [{"role": "system", "content": "Current user persona: Ann"}]
    for turn in range(6):
        chat += [{"role": "user", "content": f"User: said {turn}"}, {"role": "assistant", "content": f"Assistant: heard {turn}"}]
    (folder / "shared_contexts_32k.jsonl").write_text(json.dumps({"other": []}) + "\n" + json.dumps({"c1": chat}) + "\n")
    options = repr(["(a) short", "(b) it's \"middle\" one", "(c) the longest of them all", "(d) shor2"])
    with (folder / "questions_32k.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, ["persona_id", "question_id", "question_type", "user_question_or_message", "correct_answer",
                                      "all_options", "shared_context_id", "end_index_in_shared_context"])
        writer.writeheader()
        for number in range(questions):
            writer.writerow({"persona_id": number // 2, "question_id": f"q{number}", "question_type": "recall",
                             "user_question_or_message": f"What,\n{number}?", "correct_answer": "(b)", "all_options": options,
                             "shared_context_id": "c1" if number else "missing", "end_index_in_shared_context": 5})
    return folder


def test_personamem_v1(run, check_rows, tmp_path):
    examples, job = run("personamem", write_v1(tmp_path))
    check_rows(examples)
    assert {x.record.user for x in examples} == {"0#q1", "1#q2", "1#q3"} and job.edition == "v1 32k"
    assert job.counts["dropped: its chat is not in the contexts file"] == 1
    for record, _ in examples:
        assert record.history == (Interaction("heard 0", None, "said 0"), Interaction("heard 1", None, "said 1"))
        assert record.persona == "Current user persona: Ann" and record.target.query == f"What,\n{record.user[-1]}?"
        assert record.target.chosen == 'it\'s "middle" one'
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
    chat = [{"role": "system", "content": "profile"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]
    (folder / "data" / "chat_history_32k" / "p.json").write_text(json.dumps({"metadata": {}, "chat_history": chat}))
    with (folder / "benchmark" / "text" / "benchmark.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["persona_id", "chat_history_32k_link", "user_query", "correct_answer", "incorrect_answers", "pref_type",
                         "who", "related_conversation_snippet"])
        for number in range(1, 9):
            writer.writerow([number // 2, "data/chat_history_32k/p.json", query.format(number), "right answer",
                             json.dumps(["w1", "wrong 22", "w"]), "stereotypical", "self", repr(chat[3:])])
    return folder


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
    assert chat[0].record.persona == "profile"
    assert {x.record.target.query for x in snippet} == {f"Question {number}" for number in range(1, 9)}
    (tmp_path / "data" / "chat_history_32k" / "p.json").unlink()
    with pytest.raises(RecordError, match="p.json is not at hand; download data/chat_history_32k"):
        run("personamem", tmp_path, protocol="chat", seed=1)


def write_hicupid(folder, users="uv"):
    (folder / "dialogue").mkdir(parents=True)
    turns = [{"user_id": user, "dialogue_id": d, "type": "persona", "user": f"{user} says {d}.{t}", "assistant": f"reply {d}.{t}"}
             for user in users for d in (2, 1, 10) for t in (1, 2)]
    (folder / "dialogue" / "train.jsonl").write_text("".join(json.dumps(x) + "\n" for x in turns))
    for split in ("train", "test_1"):
        rows = [{"user_id": user, "dialogue_id": [1], "question_id": f"{split}{k}", "question": "What?", "type": "schedule",
                 "personalized_answer": f"for {user} {k}", "general_answer": "for all", "metadata": {"schedule": {"event": "x"}}}
                for user in users for k in range(2)]
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


RAW = {  # file, and the fields that its rows cannot do without
    "alignx": ("alignx.json", ("prompt", "chosen", "rejected", FEEDBACK)),
    "hicupid dialogue": ("dialogue/train.jsonl", ("user_id", "dialogue_id", "user", "assistant")),
    "hicupid qa": ("qa_test_1.json", ("user_id", "question_id", "question", "personalized_answer", "general_answer", "type")),
    "personamem v1": ("questions_32k.csv", (
        "persona_id", "question_id", "question_type", "correct_answer", "all_options", "shared_context_id", "user_question_or_message",
        "end_index_in_shared_context")),
    "personamem v2": ("benchmark/text/benchmark.csv", (
        "persona_id", "user_query", "correct_answer", "incorrect_answers", "related_conversation_snippet")),
}


def without(path, field):
    """Take one field out of every row of a CSV, JSON or JSONL file."""
    if path.suffix == ".csv":
        with path.open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        with path.open("w", newline="") as out:
            writer = csv.DictWriter(out, [name for name in rows[0] if name != field], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        return
    text = path.read_text()
    rows = json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
    rows = [{key: value for key, value in row.items() if key != field} for row in rows]
    path.write_text(json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows))


FIELDS = [(what, field) for what, (_, fields) in RAW.items() for field in fields]


@pytest.mark.parametrize(("what", "field"), FIELDS)
def test_a_missing_field_is_named_with_its_file(run, tmp_path, what, field):
    name = what.split()[0]
    if name == "alignx":
        (tmp_path / "alignx.json").write_text(json.dumps([row(0)]))
    elif name == "hicupid":
        write_hicupid(tmp_path)
    elif what == "personamem v1":
        write_v1(tmp_path)
    else:
        write_v2(tmp_path, "Question {0}")
    path = tmp_path / RAW[what][0]
    without(path, field)
    with pytest.raises(RecordError) as error:
        run(name, tmp_path)
    assert path.name in str(error.value) and f"field '{field}'" in str(error.value)


@pytest.mark.parametrize(("field", "value"), [
    ("all_options", "3"), ("all_options", "('(a) x', '(b) y')"), ("all_options", "__import__('os')"), ("correct_answer", "(z)"),
    ("end_index_in_shared_context", "five"), ("end_index_in_shared_context", "-1"),
])
def test_a_field_that_makes_no_sense_is_named(run, tmp_path, field, value):
    write_v1(tmp_path)
    path = tmp_path / "questions_32k.csv"
    with path.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    with path.open("w", newline="") as out:
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        writer.writerows([rows[1], rows[2] | {field: value}])
    with pytest.raises(RecordError, match=rf"questions_32k\.csv:2: field '{field}'"):
        run("personamem", tmp_path)


@pytest.mark.parametrize("snippet", ["'a chat'", "[1, 2]", "[[]]", "not a list"])
def test_a_conversation_of_another_form_is_named(run, tmp_path, snippet):
    (tmp_path / "benchmark.csv").write_text("persona_id,user_query,correct_answer,incorrect_answers,related_conversation_snippet\n"
                                            f'1,What?,right,"[""wrong""]","{snippet}"\n')
    with pytest.raises(RecordError, match=r"benchmark\.csv:1: field 'related_conversation_snippet'"):
        run("personamem", tmp_path)


answers = st.text("ab ", min_size=0, max_size=4)
pairs = st.fixed_dictionaries({"prompt": st.sampled_from(["p", "q"]), "chosen": answers, "rejected": answers})
feedback = st.lists(pairs, max_size=5)
row_lists = st.lists(st.tuples(pairs, feedback, st.sampled_from("xy")), max_size=12)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
        kept = [(pair.query, pair.chosen, pair.rejected) for pair in record.history]
        target = record.target.query, record.target.chosen, record.target.rejected
        sources = [[tuple(pair[key] for key in ("prompt", "chosen", "rejected")) for pair in x[FEEDBACK]] for x in raw
                   if (x["prompt"], x["chosen"], x["rejected"]) == target]
        assert any(kept == sorted(kept, key=pairs.index) for pairs in sources if set(kept) <= set(pairs))
    if protocol == "matched":
        assert sum(longer(x.record) for x in examples) == len(examples) / 2
    check_splits(name, tmp_path)


roles = st.sampled_from(["user", "assistant", "system"])
messages = st.lists(st.fixed_dictionaries({"role": roles, "content": answers}), max_size=9)
questions = st.lists(st.tuples(st.integers(0, 3), messages, answers, st.lists(answers, min_size=1, max_size=3)), max_size=8)


def numbered(chat):
    """The messages with their place in front of what they say."""
    return [message | {"content": f"{place}: {message['content']}"} for place, message in enumerate(chat)]


def places(record):
    """Places of all messages in a history, in its order."""
    texts = "\n".join(text for pair in record.history for text in (pair.query, pair.chosen) if text)
    return [int(line.partition(":")[0]) for line in texts.splitlines() if line[:1].isdigit()]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(questions=questions, protocol=st.sampled_from(["published", "matched", "chat"]), seed=st.integers(0, 2))
def test_properties_of_personamem_v2(run, check_rows, check_splits, tmp_path, questions, protocol, seed):
    with (tmp_path / "benchmark.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["persona_id", "user_query", "correct_answer", "incorrect_answers", "related_conversation_snippet", "chat_history_32k_link"])
        for number, (persona, chat, right, wrong) in enumerate(questions):
            (tmp_path / f"{seed}{number}.json").write_text(json.dumps({"chat_history": numbered(chat)}))
            writer.writerow([persona, "What?", right, json.dumps(wrong), json.dumps(numbered(chat)), f"{seed}{number}.json"])
    personamem._chat_file.cache_clear()  # these files change between examples
    examples, job = run("personamem", tmp_path, protocol=protocol, seed=seed)
    check_rows(examples)
    assert job.counts["rows read"] == len(questions)
    for record, _ in examples:
        _, chat, right, wrong = questions[int(record.user.partition("#")[2]) - 1]
        assert record.target.chosen == right.strip() and record.target.rejected in [x.strip() for x in wrong]
        shown = places(record)
        assert shown and shown == sorted(set(shown)) and all(chat[place]["role"] != "system" for place in shown)
    if protocol == "matched":
        assert sum(longer(x.record) for x in examples) == len(examples) / 2
    check_splits("personamem", tmp_path, protocol="published")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chat=messages, asked=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.permutations(["x", "yy", "zzz"])), max_size=6),
       protocol=st.sampled_from(["published", "matched"]), seed=st.integers(0, 2))
def test_properties_of_personamem_v1(run, check_rows, check_splits, tmp_path, chat, asked, protocol, seed):
    (tmp_path / "shared_contexts_32k.jsonl").write_text(json.dumps({"c": numbered(chat)}) + "\n")
    with (tmp_path / "questions_32k.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["persona_id", "question_id", "question_type", "user_question_or_message", "correct_answer", "all_options",
                         "shared_context_id", "end_index_in_shared_context"])
        for number, (persona, end, options) in enumerate(asked):
            listed = [f"({letter}) {text}" for letter, text in zip("abc", options)]
            writer.writerow([persona, f"q{number}", "kind", "What?", "(a)", repr(listed), "c", end])
    examples, job = run("personamem", tmp_path, protocol=protocol, seed=seed)
    check_rows(examples)
    assert job.counts["rows read"] == len(asked)
    for record, _ in examples:
        persona, end, options = asked[int(record.user.partition("#q")[2])]
        assert record.user.partition("#")[0] == str(persona)
        assert record.target.chosen == options[0] and record.target.rejected in options[1:]
        shown = places(record)
        assert shown and shown == sorted(set(shown)) and max(shown) < end and all(chat[place]["role"] != "system" for place in shown)
    check_splits("personamem", tmp_path)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=st.lists(st.tuples(st.sampled_from("uvw"), st.integers(0, 3), answers, answers), max_size=12),
       asked=st.lists(st.tuples(st.sampled_from("uvw"), answers, answers), max_size=6), seed=st.integers(0, 2))
def test_properties_of_hicupid(run, check_rows, check_splits, tmp_path, turns, asked, seed):
    lines = [{"user_id": u, "dialogue_id": d, "user": f"{n} {q}", "assistant": a} for n, (u, d, q, a) in enumerate(turns)]
    (tmp_path / "dialogue.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    rows = [{"user_id": user, "question_id": n, "question": "What?", "type": "persona", "personalized_answer": personal,
             "general_answer": general} for n, (user, personal, general) in enumerate(asked)]
    (tmp_path / "qa.jsonl").write_text("".join(json.dumps(x) + "\n" for x in rows))
    examples, _ = run("hicupid", tmp_path, seed=seed)
    check_rows(examples)
    for record, _ in examples:
        user = record.user.partition("#")[0]
        order = [n for _, n in sorted((d, n) for n, (u, d, _, _) in enumerate(turns) if u == user)]
        said = [int((pair.query if pair.query in [x["user"].strip() for x in lines] else pair.chosen).split(" ")[0])
                for pair in record.history]
        assert said == [n for n in order if n in said]
    check_splits("hicupid", tmp_path)
