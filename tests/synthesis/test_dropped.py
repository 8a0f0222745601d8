"""What synthesis leaves out of a long history is counted in its output."""

import json

from alignxplore.benchmark_files import user_row
from alignxplore.records import Interaction, UserRecord, write_jsonl
from alignxplore.synthesis.pipeline import synthesise
from alignxplore.synthesis.rounds import DONE
from tests.synthesis.teachers import ITEMS, Models

WORDY = [Interaction(f"red thing {i}" + " thing" * 90, "blue") for i in range(18)]


async def test_interactions_that_do_not_fit_the_window_are_counted(fake_server, tokenizer, arguments, tmp_path):
    records = [UserRecord(user, tuple(items[:-1]), items[-1]) for user, items in (("long", WORDY), ("short", ITEMS))]
    async with fake_server(Models(tokenizer)) as server:
        args = arguments(server.url, max_model_len=1164)
        write_jsonl(args.data, map(user_row, records))
        scores = [{"position": i, "p": 0.95} for i in range(18)]
        write_jsonl(args.scores, ({"id": record.id, "scores": scores, "dropped": 0} for record in records))
        counts = await synthesise(args)
    assert counts["outcomes"] == {DONE: 2} and counts["dropped_behaviours"] == 0
    rows = [json.loads(line) for line in (tmp_path / "out/sft.jsonl").read_text().splitlines()]
    dropped = [6 - row["prompt"][-1]["content"].count("Chosen:") for row in rows]
    assert dropped[0] > 0 and dropped[2:] == [0, 0]
    assert (counts["dropped_interactions"], counts["users_with_dropped_interactions"]) == (sum(dropped), 1)
    notes = [note for line in (tmp_path / "out/users.jsonl").open() for note in json.loads(line)["rounds"]]
    assert sorted(note["dropped_interactions"] for note in notes) == sorted(dropped)
