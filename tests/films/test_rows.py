"""Rows of persons' windows: two targets for RL; what the teacher says of whole windows and of halves for SFT."""

from alignxplore.films.rows import RlOptions, SftOptions, rl_rows, sft_rows, write_rl, write_sft
from alignxplore.films.text import level_of, read_summary, reasoning_text, tally
from alignxplore.prompts import PromptSet, parse_answer
from alignxplore.records import parse_history, user_row, write_jsonl
from alignxplore.rl.rows import read_rows, target_positions


def test_an_rl_row_has_two_targets(windows):
    for record, row in zip(windows, rl_rows(windows)):
        history = parse_history(row, "rows", 1)
        assert history == (*record.history, record.target)
        first, second = target_positions(row, len(history), 2, "rows", 1)
        assert history[first] == record.history[6], "after the first half"
        assert history[second] == record.target, "after the second half"
        assert row["uid"] == record.user


def test_sft_rows_are_the_teachers_words_of_a_window_or_of_its_halves(words, windows):
    rows, prompts = list(sft_rows(windows[:10], words.names, 1)), PromptSet()
    assert len(rows) == 15
    told = iter(rows)
    for index, record in enumerate(windows[:10]):
        if index % 2:
            check(next(told), prompts.infer(record.history), record.history, (), words)
        else:
            past = check(next(told), prompts.infer(record.history[:6]), record.history[:6], (), words)
            prompt = prompts.infer(record.history[6:], past)
            check(next(told), prompt, record.history[6:], read_summary(past), words)


def check(row, prompt, shown, past, words):
    """The summary of a row, which is true of what was shown and of what was known before."""
    assert row["prompt"] == prompt
    found = parse_answer(row["completion"][0]["content"])
    counts = tally(shown, past)
    assert found.reasoning == reasoning_text(counts, words.names)
    assert all(level == level_of(counts[name]) for name, level in read_summary(found.summary))
    return found.summary


def test_the_same_seed_writes_the_same_rows(words, windows, tmp_path):
    words.tokenizer.save_pretrained(tmp_path / "blank")
    write_jsonl(tmp_path / "windows.jsonl", map(user_row, windows))
    write_jsonl(tmp_path / "turned.jsonl", map(user_row, reversed(windows)))

    def written(work, options, data="windows", **more):
        out = tmp_path / "rows.jsonl"
        said = work(options(data=str(tmp_path / f"{data}.jsonl"), out=str(out), **more))
        return said, out.read_text()

    blank = {"names_of": str(tmp_path / "blank")}
    for work, options, more in ((write_rl, RlOptions, {}), (write_sft, SftOptions, blank)):
        said, first = written(work, options, limit=20, **more)
        assert said.endswith({"rl": "20 RL rows", "sft": "30 SFT rows"}[work.__name__[6:]])
        assert written(work, options, limit=20, **more)[1] == first
        assert written(work, options, "turned", limit=20, **more)[1] == first, "whatever their order in the file"
        assert written(work, options, limit=20, seed=2, **more)[1] != first
    assert written(write_rl, RlOptions)[0].endswith("60 RL rows")


def test_the_trainer_of_rl_takes_the_rows(windows, tmp_path):
    write_jsonl(tmp_path / "windows.jsonl", map(user_row, windows))
    write_rl(RlOptions(data=str(tmp_path / "windows.jsonl"), out=str(tmp_path / "rl.jsonl")))
    rows = [row for row, _ in read_rows(tmp_path / "rl.jsonl", stages=2)]
    assert len(rows) == 60 and {tuple(row["positions"]) for row in rows} == {(6, 12)}
