"""Who can give SFT rows is counted before a model is asked, and a run that nobody can give any is refused."""

import re

import pytest

from alignxplore.benchmark_files import user_row
from alignxplore.datasets.__main__ import ImportOptions, import_own
from alignxplore.records import Interaction, RecordError, UserRecord, write_jsonl
from alignxplore.synthesis.pipeline import SynthesisOptions, synthesize
from alignxplore.synthesis.rounds import DONE
from tests import ROOT
from tests.synthesis.teachers import ITEMS, Models

NOBODY = "t=http://127.0.0.1:1/v1"
LIKES = [Interaction(item.chosen, None) for item in ITEMS]


def user(name: str, items: list[Interaction]) -> UserRecord:
    return UserRecord(name, tuple(items[:-1]), items[-1])


def of_likes() -> UserRecord:
    """What `datasets import` makes of likes: alternatives in the middle and at the end."""
    return user("likes", [*LIKES[:9], ITEMS[9], *LIKES[10:17], ITEMS[17]])


def options(folder, users: list[UserRecord], **more) -> SynthesisOptions:
    write_jsonl(folder / "users.jsonl", map(user_row, users))
    return SynthesisOptions(
        data=str(folder / "users.jsonl"), out=str(folder / "out"), **{"teacher": NOBODY, "max_tokens": 64} | more
    )


def mixed() -> list[UserRecord]:
    late = [*ITEMS[:9], *LIKES[9:17], ITEMS[17]]  # three in the second third
    early = [*ITEMS[:12], *LIKES[12:17], ITEMS[17]]  # one in the last
    return [user("good", ITEMS), user("short", ITEMS[:8]), of_likes(), user("late", late), user("early", early)]


async def test_the_check_counts_who_can_give_rows_and_says_why_the_others_cannot(tmp_path):
    report = await synthesize(options(tmp_path, mixed(), check=True))
    assert "5 users, 1 of them can give SFT rows" in report
    assert "1 has fewer than 9 choices" in report
    assert "2 have fewer than 4 possible targets in the second third of their choices" in report
    assert "1 has fewer than 4 possible targets in the last third of their choices" in report
    assert "above" not in report


@pytest.mark.parametrize("check", [True, False])
async def test_a_run_that_nobody_can_give_rows_is_refused_with_what_is_needed(tmp_path, check):
    for users in ([of_likes(), user("short", ITEMS[:8])], [user("short", ITEMS[:8])]):
        problem = (
            f"none of {len(users)} users can give SFT rows (.*1 has fewer than 9 choices.*). Each needs at least 9 "
            "choices, and in the second and in the last third of them 4 that had an alternative (--min_targets)"
        )
        with pytest.raises(RecordError, match=re.escape(problem).replace(re.escape(".*"), ".*")):
            await synthesize(options(tmp_path, users, check=check))
        assert not (tmp_path / "out/users.jsonl").exists()
    with pytest.raises(RecordError, match="users.jsonl: no users"):
        await synthesize(options(tmp_path, [], check=check))


async def test_fewer_targets_may_be_asked_for(tmp_path):
    users, fewer = [user("late", ITEMS[:9])], {"min_targets": 3, "min_verified": 3, "check": True}
    with pytest.raises(RecordError, match="none of 1 users"):
        await synthesize(options(tmp_path, users, check=True))
    assert "1 users, 1 of them can give SFT rows" in await synthesize(options(tmp_path, users, **fewer))


async def test_the_count_is_that_of_the_run_and_stands_at_its_start(
    tmp_path, fake_server, tokenizer, model_folder, capsys
):
    async with fake_server(Models(tokenizer)) as server:
        funnel = await synthesize(options(tmp_path, mixed(), teacher=f"m={server.url}#{model_folder}"))
    assert f'"{DONE}": 1' in funnel and '"too_few_targets_1": 2' in funnel and '"too_few_targets_2": 1' in funnel
    assert "5 users, 1 of them can give SFT rows" in capsys.readouterr().out


async def test_the_lesson_on_own_data_quotes_what_is_said_of_its_readers(tmp_path):
    columns = {"user": "reader", "item": "title", "time": "day", "rating": "stars"}
    import_own(ImportOptions(file=ROOT / "docs/lessons/books.csv", **columns, out=tmp_path / "books"))
    page = " ".join((ROOT / "docs/lessons/3-your-own-data.md").read_text().split())
    with pytest.raises(RecordError) as refusal:
        await synthesize(
            SynthesisOptions(data=f"{tmp_path}/books_train.jsonl", out=str(tmp_path), teacher=NOBODY, check=True)
        )
    assert str(refusal.value).partition("books_train.jsonl: ")[2] in page
