"""Chats of one's own → records: their answers are what was chosen."""

import json

import pytest

from tests.datasets.own_tables import imported, pairs


def chat(question, answer):
    return [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]


@pytest.mark.parametrize("name", ["chats.jsonl", "chats.parquet", "chats.csv"])
def test_chats_give_their_answers(tmp_path, name):
    rows = [{"user": f"p{n % 3}", "chat": chat(f"q{n}", f"a{n}") + chat(f"r{n}", f"b{n}")[1:]} for n in range(9)]
    table = rows
    if name.endswith("csv"):
        table = "user\tchat\n" + "".join(
            '{}\t"{}"\n'.format(x["user"], json.dumps(x["chat"]).replace('"', '""')) for x in rows
        )
    test, train, _, _ = imported(tmp_path, table, {"user": "user", "item": "chat"}, name)
    record = next(interaction for interaction in (*test, *train) if interaction.user == "p1")
    turns = [(interaction.query, interaction.chosen) for interaction in (*record.history, record.target)]
    assert turns == [(f"{x}{n}", f"{y}{n}") for n in (1, 4, 7) for x, y in ("qa", "rb")]


def test_a_disliked_answer_is_set_against_a_liked_one_of_the_same_question(tmp_path):
    rows = [
        {"user": "p", "chat": chat(f"q{n}", f"{word} {n}"), "thumb": thumb}
        for n in range(4)
        for word, thumb in (("bad", "down"), ("good", "up"))
    ]
    test, _, _, _ = imported(tmp_path, rows, {"user": "user", "item": "chat", "label": "thumb"}, "chats.jsonl")
    assert pairs(test[0]) == [(f"good {n}", f"bad {n}") for n in range(4)]


REPEATED = "left out: the same answer to another question came before"


def test_an_answer_that_repeats_in_chats_is_one_item_and_counted(tmp_path):
    rows = [
        {"user": f"p{n}", "chat": [turn for k in range(5) for turn in chat(f"q{n}.{k}", f"a{n}.{k}")[1:]]}
        for n in range(4)
    ]
    for row in rows:  # in other white space, to other questions; the last one would be the target
        row["chat"][4:4] = [*chat("thanks", "You are welcome!")[1:], *chat("thank you", "You are\twelcome!")[1:]]
        row["chat"] += chat("cheers", " You are  welcome!")[1:]
    test, train, rl_rows, counts = imported(tmp_path, rows, {"user": "user", "item": "chat"}, "chats.jsonl")
    assert len(test) + len(train) == 4 and counts[REPEATED] == 8
    for record in (*test, *train):
        texts = [chosen for chosen, _ in pairs(record)]
        assert len(texts) == len(set(texts)) == 6 and not record.leaked
        assert record.target.chosen.startswith("a")


def test_what_is_liked_or_disliked_of_two_questions_counts_once_each(tmp_path):
    answer_pairs = [("Yes.", "No."), ("Yes.", "bad 1"), ("good 2", "No."), ("good 3", "bad 3"), ("No.", "bad 4")]
    rows = [
        {"user": "p", "chat": chat(f"q{k}", answer), "thumb": thumb}
        for k, answers in enumerate(answer_pairs)
        for answer, thumb in zip(answers, ("up", "down"))
    ]
    test, _, _, counts = imported(tmp_path, rows, {"user": "user", "item": "chat", "label": "thumb"}, "chats.jsonl")
    assert pairs(test[0]) == [("Yes.", "No."), ("good 2", None), ("good 3", "bad 3"), ("No.", "bad 4")]
    assert counts[REPEATED] == 2
