"""What the tiny models learn of films: each count of a lesson is that of the tally, each vote stands at its token."""

import math
import random

import pytest

from alignxplore.benchmark_files import user_row
from alignxplore.films.lessons import (
    MOST_STATEMENTS,
    SURENESS,
    WEIGHTS,
    JudgeOptions,
    ReaderOptions,
    judge_lesson,
    judge_lessons,
    judge_probes,
    judge_text,
    meant,
    reader_lesson,
    reader_lessons,
    reader_probes,
    speaks_for,
    teach,
)
from alignxplore.films.model import BlankOptions, write_blank
from alignxplore.films.text import (
    LEVEL_WORDS,
    LEVELS,
    MOST,
    PAST_WEIGHT,
    attributes,
    level_of,
    read_summary,
    reasoning_text,
    tally,
)
from alignxplore.prompts import PromptSet
from alignxplore.records import write_jsonl
from alignxplore.world.oracle import PAST


def clamped(count):
    return max(-MOST, min(MOST, count))


def lessons_read(words, windows, length):
    """(record, lesson, its text, the past that it tells) of reader's lessons."""
    for number, record in enumerate(windows[:30]):
        lesson = reader_lesson(words, PromptSet(), record, length, random.Random(number))
        text = words.tokenizer.decode(lesson.ids)
        past = PAST.search(text)
        yield record, lesson, text, read_summary(past[1]) if past else []


@pytest.mark.parametrize("length", [3, 6, 12])
def test_a_reader_learns_the_tally_of_the_choices_that_it_is_shown(words, windows, length):
    with_past = 0
    for record, lesson, text, past in lessons_read(words, windows, length):
        visible, earlier = record.history[-length:], record.history[:-length]
        assert text.count("Chosen:") == length
        assert all(level == level_of(tally(earlier)[name]) for name, level in past), "what is known before is true"
        assert len(past) <= MOST_STATEMENTS
        learnt = words.tokenizer.decode([lesson.ids[place] for place in lesson.learn])
        assert learnt == reasoning_text(tally(visible, past), words.names) + "\n"
        with_past += bool(past)
    assert with_past == 0 if length == 12 else 5 < with_past < 25


def spoken(record, length, past):
    """(attribute or level word, attribute, what it counts), in the order in which a prompt tells it."""
    for name, level in past:
        yield LEVEL_WORDS[level][0], name, PAST_WEIGHT[level]
    for pair in record.history[-length:]:
        for item, sign in ((pair.chosen, 1), (pair.rejected, -1)):
            yield from ((name, name, sign) for name in attributes(item))


@pytest.mark.parametrize("length", [6, 12])
def test_running_counts_are_those_of_the_tally_so_far(words, windows, length):
    for record, lesson, _, past in lessons_read(words, windows, length):
        counts, says, running = dict.fromkeys(words.names, 0), lesson.votes["says"], lesson.votes["running"]
        tokens = list(spoken(record, length, past))
        assert len(tokens) == len(says) == len(running)
        for (token, name, weight), (place, what), (same, count) in zip(tokens, says, running):
            counts[name] += weight
            assert place == same and words.tokenizer.decode([lesson.ids[place]]) == f" {token}"
            assert WEIGHTS[what] == weight and count - MOST == clamped(counts[name])
        assert counts == {name: tally(record.history[-length:], past)[name] for name in words.names}


def test_each_level_of_the_past_is_known_by_its_attribute(words, windows):
    for _, lesson, _, past in lessons_read(words, windows, 6):
        pairs = [
            (words.names[vote], LEVELS[words.tokenizer.decode([lesson.ids[at]]).strip()])
            for at, vote in lesson.votes["about"]
        ]
        assert pairs == list(past)


def test_each_count_is_known_by_its_attribute(words, windows):
    for _, lesson, _, _ in lessons_read(words, windows, 6):
        names = [words.tokenizer.decode([lesson.ids[place - 1]]).strip() for place, _ in lesson.votes["name"]]
        assert names == [words.names[vote] for _, vote in lesson.votes["name"]] == words.names
        counts = [words.tokenizer.decode([lesson.ids[place]]).strip() for place, _ in lesson.votes["name"]]
        assert all(count.lstrip("+-").isdigit() for count in counts)


def test_a_summary_may_go_on_with_what_has_a_count(words, windows):
    for record, lesson, text, past in lessons_read(words, windows, 6):
        counts = tally(record.history[-6:], past)
        statements = read_summary(text.split("</think>\n\n")[1].partition("<|im_end|>")[0])
        assert (
            statements
            and [(words.names[lesson_name(words, lesson, at)], vote - 2) for at, vote in lesson.votes["level"]]
            == statements
        )
        assert all(level == level_of(counts[name]) for name, level in statements)
        before = ["", *(name for name, _ in statements)][:-1]  # said before each place where a name comes
        for kind, least in (("told", 1), ("strong", 3)):
            expected = []
            for last in before:
                rest = words.names[words.names.index(last) + 1 if last else 0 :]
                expected.append({name for name in rest if abs(counts[name]) >= least})
            options = [{words.names[vote] for vote in votes} for _, votes in lesson.votes[kind]]
            assert options == [names for names in expected if names]


def lesson_name(words, lesson, place):
    return words.attribute[lesson.ids[place]]


def test_readers_begin_with_short_histories(words, windows):
    order = [(record, 0) for record in windows]
    lengths = [words.tokenizer.decode(one.ids).count("Chosen:") for one in reader_lessons(words, order, 1)]
    assert set(lengths[:24]) == {3, 6, 12} and set(lengths[24:]) == {6, 12}
    assert sum(lengths[:24]) / 24 < sum(lengths[24:]) / 36


def test_a_reader_is_told_nothing_of_what_has_no_name(words, windows):
    names = words.names
    for record in windows[:10]:
        odd = [pair.chosen.replace("Drama", "Opera") for pair in record.history]
        pairs = tuple(type(pair)(text, pair.rejected) for text, pair in zip(odd, record.history))
        lesson = reader_lesson(words, PromptSet(), type(record)("a", pairs, record.target), 6, random.Random(2))
        text = words.tokenizer.decode(lesson.ids)
        assert all(name in names for name, _ in read_summary(text.split("</think>\n\n")[1].partition("<|im_end|>")[0]))


def lessons_judged(words, windows):
    """(record, lesson, its text, what is told in it, items A and B)."""
    for number, record in enumerate(windows):
        lesson = judge_lesson(words, PromptSet(), record, 1, random.Random(number))
        statements = judge_text(record, random.Random(number))
        text = words.tokenizer.decode(lesson.ids)
        a = text.partition("Item A:")[2].partition("\nItem B:")[0]
        taken_first = a.split() == " ".join(attributes(record.target.chosen)).split()
        items = record.target.items[:: 1 if taken_first else -1]
        yield record, lesson, text, statements, items


def test_a_judge_learns_how_probable_a_film_is_by_the_text(words, windows):
    first, shares = [], []
    for record, lesson, text, statements, items in lessons_judged(words, windows):
        first.append(items.index(record.target.chosen))
        assert lesson.learn == [len(lesson.ids) - 1] and lesson.ids[-1] == words.answer["A"]
        assert text.endswith('{"selection": "Item A')
        excerpt = text.partition("What is known about the user:\n")[2].partition("\n\n")[0]
        assert read_summary(excerpt) == list(statements)
        (_, a, share_a), (_, b, share_b) = lesson.answers()
        assert (a, b) == (words.answer["A"], words.answer["B"]) and share_a + share_b == pytest.approx(1)
        of_a, of_b = (
            sum(meant(statements).get(name, 0) for name in attributes(item)) / len(attributes(item)) for item in items
        )
        assert math.log(share_a / share_b) == pytest.approx(SURENESS * (of_a - of_b))
        shares.append(share_a)
    assert 15 < first.count(0) < 45
    assert any(share > 0.7 for share in shares) and any(share < 0.3 for share in shares) and 0.5 in shares


def test_texts_for_judges_are_true_and_uneven_and_some_repeat_or_contradict_themselves(windows):
    texts = [(record, judge_text(record, random.Random(seed))) for seed, record in enumerate(windows * 5)]
    against = 0
    for record, statements in texts:
        levels = [{name: level_of(count) for name, count in tally(record.history[-n:]).items()} for n in (6, 12)]
        wrong = min(
            ({name for name, level in statements if levels_known.get(name, 0) != level} for levels_known in levels),
            key=len,
        )
        assert len(wrong) <= 1  # of a text that contradicts itself one statement is turned round
        assert all(meant(statements)[name] == 0 or len({x for n, x in statements if n == name}) == 1 for name in wrong)
        against += bool(wrong)
    lengths = {len(dict(statements)) for _, statements in texts}
    assert lengths == set(range(MOST_STATEMENTS + 1))
    again = sum(len(dict(statements)) < len(statements) for _, statements in texts)
    assert 0.2 < again / len(texts) < 0.5 and 0 < against < again


def test_what_is_told_both_ways_says_nothing_and_repeats_say_no_more():
    assert meant([("War", 1), ("War", 1), ("Drama", 2), ("Drama", -2), ("IMAX", 1), ("IMAX", 2)]) == {
        "War": 1,
        "Drama": 0,
        "IMAX": 2,
    }


def test_votes_of_a_judge_are_what_the_text_says_of_each_attribute(words, windows):
    for _, lesson, _, statements, items in lessons_judged(words, windows):
        level = meant(statements)
        expected = [
            (name, 2 + sign * level.get(name, 0)) for item, sign in zip(items, (1, -1)) for name in attributes(item)
        ]
        votes = [(words.names[lesson_name(words, lesson, at)], vote) for at, vote in lesson.votes["speaks"]]
        assert votes == expected
        about = [
            (words.names[vote], words.tokenizer.decode([lesson.ids[at]]).strip()) for at, vote in lesson.votes["about"]
        ]
        assert [(name, LEVELS[word]) for name, word in about] == list(statements)


def test_a_judge_tells_most_texts_in_its_own_words(words, windows):
    own = other = 0
    for _, _, text, _, _ in lessons_judged(words, windows):
        own += any(f" {pair[1]}" in text for pair in LEVEL_WORDS.values())
        other += any(f" {pair[0]}" in text for pair in LEVEL_WORDS.values())
    assert own > other > 5


def test_a_text_speaks_for_a_film_by_its_attributes():
    level = {"Comedy": 2, "War": -1}
    assert speaks_for(level, "Title: One (1994), Genres: Comedy|Drama|War") == 1 / 4
    assert speaks_for(level, "another text") == 0


@pytest.mark.parametrize("kind", ["reader", "judge"])
def test_the_same_seed_makes_the_same_lessons_and_a_pass_has_its_own(words, windows, kind):
    def made(seed, number=0):
        order = [(record, number) for record in windows]
        return list(reader_lessons(words, order, seed) if kind == "reader" else judge_lessons(words, order, 0, seed))

    assert made(1) == made(1) and made(1) != made(2) and made(1) != made(1, number=1)
    probes = reader_probes(words) if kind == "reader" else judge_probes(words)
    for lesson in made(1):
        assert set(lesson.votes) == set(probes)
        for name, votes in lesson.votes.items():
            classes = [vote if probes[name].many else (vote,) for _, vote in votes]
            assert all(0 <= one < probes[name].classes for vote in classes for one in vote)


@pytest.mark.parametrize(
    ("options", "steps"),
    [(ReaderOptions, "120 lessons, 15 steps of 8"), (JudgeOptions, "180 lessons, 12 steps of 16")],
)
def test_a_check_counts_and_a_model_that_is_there_is_kept(windows, tmp_path, options, steps):
    data = tmp_path / "windows.jsonl"
    write_jsonl(data, map(user_row, windows))
    write_blank(BlankOptions(out=str(tmp_path / "blank"), data=str(data), hidden=32))
    values = {"base": str(tmp_path / "blank"), "data": str(data), "out": str(tmp_path / "model")}
    assert teach(options(**values, check=True)).startswith(f"{steps}\n")
    assert not (tmp_path / "model").exists()
    write_jsonl(data, map(user_row, windows[:16]))
    assert teach(options(**values)) is None
    assert (tmp_path / "model/model.safetensors").exists()
    assert "is there already" in teach(options(**values))
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        teach(options(**values | {"base": "nowhere"}))


@pytest.mark.parametrize("name", ["passes", "batch", "learning_rate"])
@pytest.mark.parametrize("options", [ReaderOptions, JudgeOptions])
@pytest.mark.parametrize("value", [0, math.nan, math.inf])
def test_nothing_is_learnt_from_nothing_nor_from_no_number(options, name, value):
    with pytest.raises(ValueError, match=f"--{name} {value}: a number above 0"):
        options(base="a", data="b", out="c", **{name: value})
