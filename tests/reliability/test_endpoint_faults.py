"""Faults of an endpoint x commands (faults.py): each ends in the right result or in a recorded, typed outcome; exit
code and coverage tell the truth, and the same command mends it.

The commands are the real ones, in this process; the server is a real one, too. Only back-off, patience and the
time-out of a request are shorter. `test_an_outage[a minute]` changes none of them.
"""

import json
import logging
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from alignxplore import environment
from alignxplore.benchmark_files import user_row
from alignxplore.command import run
from alignxplore.evaluation.arguments import EvaluationArguments, GenerationArguments
from alignxplore.evaluation.generation import write_summaries
from alignxplore.evaluation.scoring import score
from alignxplore.journal import FAILED, OK
from alignxplore.records import Interaction, UserRecord, read_jsonl, write_jsonl
from alignxplore.serving import endpoint
from alignxplore.synthesis.pipeline import SynthesisOptions, synthesize
from alignxplore.synthesis.rounds import DONE
from tests.reliability.faults import COMMANDS, FAULTS, UNREAD, Fault
from tests.reliability.served import Served
from tests.synthesis.teachers import MERGED, MERGING, Models, asked

USERS = 12  # a judge is checked on the first eight of them
VICTIM = "u11"
PATIENCE, TIME_OUT = 0.2, 2.0  # seconds
INSTALLED = cache(environment.installed_versions)
QUICK = ("429 with Retry-After", "null content")  # what --fast tries


def tried(names: Iterable[str]) -> list:
    return [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in names]


@pytest.fixture(autouse=True)
def hurry(request, monkeypatch):
    """Back-off a hundred times shorter, and little patience."""
    if "outage" in request.node.name:
        return
    jittered, ends = endpoint._jittered, endpoint.OutOfPatience
    monkeypatch.setattr(endpoint, "_jittered", lambda state: jittered(state) / 100)
    monkeypatch.setattr(endpoint, "OutOfPatience", lambda patience, outage: ends(min(patience, PATIENCE), outage))
    monkeypatch.setitem(endpoint.Endpoint.__init__.__kwdefaults__, "timeout", TIME_OUT)


@pytest.fixture(autouse=True)
def looked_up_once(monkeypatch):
    """What is installed does not change between two commands of one process, and takes a second to find."""
    monkeypatch.setattr(environment, "installed_versions", INSTALLED)


def say(text: str) -> str:
    """What the policy, a judge in free form and the teacher answer."""
    if MERGING in text:
        return MERGED
    return "<think>\nchooses red\n</think>\n\nLikes red."


class Sound(Models):
    """Policy, teacher and judge of both kinds."""

    def __call__(self, body: dict) -> dict:
        reply = super().__call__(body)
        if body["max_tokens"] == 16:  # an answer in free form
            reply["choices"][0]["message"]["content"] = '{"selection": "Item A"}'
        return reply


def records() -> list[UserRecord]:
    return [
        UserRecord(
            f"u{n}",
            tuple(Interaction(f"red thing {i} of u{n}.", f"blue thing {i} of u{n}.") for i in range(17)),
            Interaction(f"red thing 17 of u{n}.", f"blue thing 17 of u{n}."),
        )
        for n in range(USERS)
    ]


@dataclass(frozen=True)
class Setting:
    """Where the commands read and whom they ask."""

    server: Served
    sound: Models
    files: Path

    @property
    def model(self) -> str:
        return f"m={self.server.url}#{self.files / 'tokenizer'}"


@pytest.fixture(scope="module")
def setting(tokenizer, tmp_path_factory):
    files = tmp_path_factory.mktemp("faults")
    tokenizer.save_pretrained(files / "tokenizer")
    write_jsonl(files / "world_films_upi.jsonl", map(user_row, records()))
    models = Sound(tokenizer, say)
    with Served(models, max_model_len=16384) as server:
        yield Setting(server, models, files)


@dataclass(frozen=True)
class Command:
    """A real command: its words, and what its folder holds afterwards.

    `made` is what two runs must agree in; `rows` the victim's rows in the journals; `coverage` the lowest of the
    tables (None: it makes none).
    """

    work: Callable[[Any], Any]
    options: type
    words: tuple[str, ...]
    made: Callable[[Path], Any]
    rows: Callable[[Path], list[dict]]
    coverage: Callable[[Path], float | None] = lambda out: None
    needs_summaries: bool = False

    def __call__(self, setting: Setting, out: Path, *more: str) -> tuple[int, str]:
        """(exit code, the sentence that it ended with)."""
        named = [word.format(model=setting.model, files=setting.files) for word in self.words]
        try:
            run(self.work, self.options, None, [*named, "--out", str(out), *more])
        except SystemExit as end:
            return (1, end.code) if isinstance(end.code, str) else (end.code, "")
        return 0, ""


def summaries(out: Path) -> list[dict]:
    return [row for path in sorted(out.glob("summaries/*/*.jsonl")) for _, row in read_jsonl(path)]


def newest(rows: list[dict]) -> list[dict]:
    """The newest row of each unit."""
    return list({row["id"]: row for row in rows}.values())


def written(out: Path) -> list[dict]:
    """Summaries without the seconds that they took, in the order of their ids."""
    rows = [row | {"stages": [stage | {"seconds": 0} for stage in row["stages"]]} for row in newest(summaries(out))]
    return sorted(rows, key=lambda row: row["id"])


def scores(out: Path) -> list[dict]:
    return [row for _, row in read_jsonl(out / "scores.jsonl")]


def judged(out: Path) -> list[dict]:
    return [row for path in sorted(out.glob("judg*/**/*.jsonl")) for _, row in read_jsonl(path)]


def of_victim(rows: Callable[[Path], list[dict]]) -> Callable[[Path], list[dict]]:
    return lambda out: [row for row in newest(rows(out)) if row.get("user", row.get("uid")) == VICTIM]


def lowest_coverage(out: Path) -> float:
    return min(row["coverage"] for row in json.loads((out / "results.json").read_text()))


JUDGE = ("--judge", "{model}", "--data", "{files}/world_films_upi.jsonl")
TABLE = {
    "gen_preference": Command(
        write_summaries,
        GenerationArguments,
        ("--model", "{model}", "--data", "{files}/world_films_upi.jsonl", "--max_tokens", "64"),
        written,
        of_victim(summaries),
    ),
    "evaluate choice": Command(
        score, EvaluationArguments, JUDGE, scores, of_victim(judged), lowest_coverage, needs_summaries=True
    ),
    "evaluate paper": Command(
        score,
        EvaluationArguments,
        (*JUDGE, "--protocol", "paper"),
        scores,
        of_victim(judged),
        lowest_coverage,
        needs_summaries=True,
    ),
    "synthesize": Command(
        synthesize,
        SynthesisOptions,
        ("--teacher", "{model}", "--data", "{files}/world_films_upi.jsonl", "--max_tokens", "64")
        + ("--timeout", str(TIME_OUT)),
        lambda out: ((out / "sft.jsonl").read_text(), (out / "funnel.json").read_text()),
        of_victim(lambda out: [row for _, row in read_jsonl(out / "users.jsonl")]),
    ),
}


@pytest.fixture(scope="module")
def summaries_made(setting, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("summaries")
    assert TABLE["gen_preference"](setting, out) == (0, "")
    return out


@pytest.fixture(scope="module")
def undisturbed(setting, summaries_made, tmp_path_factory) -> Callable[[str], Any]:
    """`undisturbed(name)`: what a command makes where nothing fails."""
    results: dict[str, Any] = {}

    def of(name: str) -> Any:
        if name not in results:
            out = folder(TABLE[name], tmp_path_factory.mktemp("whole"), summaries_made)
            assert TABLE[name](setting, out) == (0, "")
            results[name] = TABLE[name].made(out)
        return results[name]

    return of


def folder(command: Command, out: Path, made: Path) -> Path:
    """An output folder in which what the command needs stands already."""
    if command.needs_summaries:
        (out / "summaries").symlink_to(made / "summaries")
    return out


def failing(setting: Setting, fault: Fault, times: float = float("inf")) -> Callable[[dict], Any]:
    """Every request about the victim meets the fault so many times."""
    met: dict[str, int] = {}

    def answer(body: dict) -> Any:
        sound, question = setting.sound(body), json.dumps(body, sort_keys=True)
        met[question] = met.get(question, 0) + 1
        about = f"of {VICTIM}." in asked(body)
        return fault.reply(sound) if about and met[question] <= times else sound

    return answer


@pytest.fixture
def broken(setting):
    """`broken(fault, times)`: from now on the server has the fault; it is mended after the test."""
    yield lambda fault, times=float("inf"): setattr(setting.server, "answer", failing(setting, fault, times))
    setting.server.answer = setting.sound


def outcome_of(rows: list[dict]) -> str:
    """What the worst of the victim's rows says."""
    failed = [row["status"] for row in rows if row["status"] in FAILED]
    if failed:
        return failed[0]
    stages = [stage for row in rows for stage in row.get("stages", ())]
    unread = any(stage["problem"] for stage in stages) or any(row.get("unread") for row in rows)
    return UNREAD if unread or any(row.get("outcome", DONE) != DONE for row in rows) else OK


@pytest.mark.parametrize("fault", tried(FAULTS))
@pytest.mark.parametrize("name", COMMANDS)
def test_a_lasting_fault(name, fault, setting, summaries_made, undisturbed, broken, tmp_path):
    """More failures than allowed: exit 1 and a sentence. As many as allowed: exit 0, and coverage says how many. What
    was done is not asked again; the mended server gives the rest, as if nothing had been."""
    command, what = TABLE[name], FAULTS[fault]
    expected_rows, out, expected = undisturbed(name), folder(command, tmp_path, summaries_made), what.outcome(name)
    broken(what)
    code, output = command(setting, out)
    assert outcome_of(command.rows(out)) == expected
    if expected in FAILED:
        assert code == 1 and "failed (last: " in output and "run the same command again" in output
        assert re.search(what.message, output)
        assert not (out / "scores.jsonl").exists() and not (out / "sft.jsonl").exists()
        assert command(setting, out, "--max_error_rate", "0.5") == (0, "")
        assert command.coverage(out) in (None, pytest.approx(1 - 1 / USERS))
    else:
        assert (code, output) == (0, "") and command.coverage(out) in (None, 1.0)
    setting.server.answer = setting.sound
    before = setting.server.asked.copy()
    assert command(setting, out) == (0, "")
    again = setting.server.asked - before
    assert len(again) <= sum(f"of {VICTIM}." in question for question in again) + CHECKS[name], "asked what it knows"
    assert (command.made(out) == expected_rows) == (expected != UNREAD)


# Requests that a command asks whenever it starts: is the judge one, does the teacher answer?
CHECKS = {"gen_preference": 0, "evaluate choice": 20, "evaluate paper": 20, "synthesize": 12}


@pytest.mark.parametrize("fault", tried(name for name, what in FAULTS.items() if what.repeated))
@pytest.mark.parametrize("name", COMMANDS)
def test_a_passing_fault_changes_nothing(name, fault, setting, summaries_made, undisturbed, broken, tmp_path):
    command, expected_rows = TABLE[name], undisturbed(name)
    out = folder(command, tmp_path, summaries_made)
    broken(FAULTS[fault], times=1)
    assert command(setting, out) == (0, "")
    assert command.made(out) == expected_rows


@pytest.mark.parametrize("fault", ["429", "401 half-way"])
def test_a_summary_that_failed_lowers_the_coverage(fault, setting, broken, tmp_path):
    broken(FAULTS[fault])
    assert TABLE["gen_preference"](setting, tmp_path, "--max_error_rate", "0.5") == (0, "")
    setting.server.answer = setting.sound
    assert TABLE["evaluate choice"](setting, tmp_path) == (0, "")
    rows = json.loads((tmp_path / "results.json").read_text())
    covered = {row["policy"]: row["coverage"] for row in rows if row["setting"] in ("full", "streaming")}
    assert covered["m"] == pytest.approx(1 - 1 / USERS)


def test_everything_is_refused_half_way(setting, tmp_path):
    """A key that expires: what was answered before is kept, and the same command finishes with a new one."""
    answered = 0

    def expiring(body: dict) -> Any:
        nonlocal answered
        answered += 1
        return setting.sound(body) if answered <= 10 else FAULTS["401 half-way"].reply({})

    setting.server.answer = expiring
    code, output = TABLE["gen_preference"](setting, tmp_path, "--concurrency", "2")
    assert code == 1 and "the key has expired" in output
    finished_rows = [row for row in newest(summaries(tmp_path)) if row["status"] == OK]
    assert 0 < len(finished_rows) < 2 * USERS
    setting.server.answer = setting.sound
    before = setting.server.asked.total()
    assert TABLE["gen_preference"](setting, tmp_path) == (0, "")
    requests = USERS * 3 - sum(len(row["stages"]) for row in finished_rows)
    assert setting.server.asked.total() - before == requests


@pytest.mark.parametrize(
    ("seconds", "patience"), [(1.5, 20.0), pytest.param(60, None, marks=pytest.mark.slow, id="a minute")]
)
def test_an_outage(seconds, patience, setting, tmp_path, monkeypatch, caplog):
    """The server goes away half-way and comes back: the run waits for it and ends as if nothing had been."""
    if patience:
        monkeypatch.setitem(endpoint.Endpoint.__init__.__kwdefaults__, "patience", patience)
    count, began = 0, 0.0

    def away(body: dict) -> Any:
        nonlocal count, began
        count += 1
        if count == 9:
            began = time.monotonic()
            setting.server.down(seconds)
        return None if count >= 9 and time.monotonic() < began + seconds else setting.sound(body)

    setting.server.answer = away
    with caplog.at_level(logging.WARNING):
        assert TABLE["gen_preference"](setting, tmp_path, "--concurrency", "4") == (0, "")
    setting.server.answer = setting.sound
    assert time.monotonic() - began >= seconds and "trying again" in caplog.text
    rows = written(tmp_path)
    assert len(rows) == 2 * USERS and {row["status"] for row in rows} == {OK}
