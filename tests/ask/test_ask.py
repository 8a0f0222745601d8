"""`python -m alignxplore.ask` against endpoints that answer as a test says; the real models: tests/quickstart."""

import io
import json
import shutil

import pytest

from alignxplore.ask.__main__ import AskOptions, ask, question_of
from alignxplore.ask.finished import Finished, answer_tokens, window_of
from alignxplore.ask.models import Verdict
from alignxplore.ask.telling import Teller, safe, told_history, verdict_lines
from alignxplore.demo.__main__ import DemoOptions, parts_of, show
from alignxplore.demo.page import Demo
from alignxplore.errors import UserError
from alignxplore.evaluation.benchmarks import load_benchmarks
from alignxplore.films.model import make_tokenizer
from alignxplore.films.titles import REQUEST, complete
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, RecordError
from alignxplore.serving.models import ModelSpec
from alignxplore.serving.server import free_port
from tests.ask.talking import ANSWER, talking


@pytest.fixture
def models(fake_server, tokenizer, model_folder):
    """A server that is policy and judge (`talking`), whose tokenizer lies here."""

    server = fake_server(talking(tokenizer), max_model_len=4096)
    server.models[0]["root"] = str(model_folder)
    return server


def options(url: str, history, **values) -> AskOptions:
    return AskOptions(model=f"ours={url}", judge=[f"judge={url}"], history=str(history), **values)


HISTORY = [{"chosen": "a film of the sea", "rejected": "a car film"}, {"chosen": "sails", "rejected": None}]


async def test_each_model_is_sent_its_own_key(models, fake_server, tokenizer, model_folder, jsonl, monkeypatch):
    monkeypatch.setenv("ITS_KEY", "secret")
    other = fake_server(talking(tokenizer), max_model_len=4096)
    other.models[0]["root"] = str(model_folder)
    async with models as policy, other as judge:
        values = options(
            policy.url, jsonl(*HISTORY), items=["a car race", "the deep sea"], api_key_env=["judge=ITS_KEY"]
        )
        values.judge = [f"judge={judge.url}"]
        await ask(values)
    keys = [{headers.get("Authorization") for headers in server.headers} for server in (policy, judge)]
    assert keys == [{None}, {"Bearer secret"}]
    values.api_key_env = ["other=ITS_KEY"]
    with pytest.raises(ValueError, match="api_key_env: .* single ones of ours, judge"):
        await ask(values)


async def test_a_summary_is_written_and_a_model_chooses_with_it_and_without(models, jsonl, capsys):
    async with models as server:
        await ask(options(server.url, jsonl(*HISTORY), items=["a car race", "the deep sea"], stages=2))
    output = capsys.readouterr().out
    assert "users.jsonl: 2 choices" in output and "1  a film of the sea  >  a car film" in output
    assert output.count(ANSWER) == 2 and "stage 2 of 2: reads 1 choice and the summary of the stage before" in output
    without, with_it = (
        next(x for x in output.splitlines() if f"judge  {name}" in x).split() for name in ("no s", "this")
    )
    assert without[3] == "neither" and "the order decides" in " ".join(without)
    assert with_it[3:5] == ["B", "95.7"] and with_it[6] == with_it[8] == "95.7"


async def test_more_than_two_items(models, jsonl, capsys):
    async with models as server:
        await ask(options(server.url, jsonl(*HISTORY), items=["a car race", "the deep sea", "a farm"]))
    output = capsys.readouterr().out
    assert "C  a farm" in output and "1st order" in output
    assert next(x for x in output.splitlines() if "this summary" in x).split()[3] == "B"


async def test_without_items_no_judge_is_asked(models, jsonl, capsys):
    async with models as server:
        await ask(options(server.url, jsonl(*HISTORY)))
        assert not any(body.get("logprobs") for body in server.bodies)
    assert "picks" not in capsys.readouterr().out


async def test_what_is_piped_is_read_by_the_columns_that_are_named(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("title,instead\nUp,Ran\n"))
    await ask(options("http://127.0.0.1:9/v1", "-", chosen="title", rejected="instead", check=True))
    assert "you: 1 choice," in (output := capsys.readouterr().out) and "Up  >  Ran" in output


async def test_check_starts_nothing(jsonl, capsys):
    message = await ask(options("http://127.0.0.1:9/v1", jsonl(*HISTORY), items=["a", "b"], check=True))
    assert "nothing was started" in message and "2 choices" in capsys.readouterr().out


async def test_what_no_window_holds_is_left_out_before_it_is_tokenised(models, jsonl, capsys):
    rows = [{"chosen": f"film {place} " + "s" * 300, "rejected": None} for place in range(16000)]  # 5 MB
    async with models as server:
        await ask(options(server.url, jsonl(*rows), max_model_len=512, max_tokens=64))
        assert len(server.bodies[-1]["messages"][-1]["content"]) < 512 * 40
    assert "of the oldest choices did not fit the window" in capsys.readouterr().out
    with pytest.raises(UserError, match="choice 1 has an item of 5,000,000 characters; 100,000 are the most"):
        await ask(options("http://127.0.0.1:9/v1", jsonl({"chosen": "x" * 5_000_000})))


async def test_a_history_that_does_not_fit_is_said(models, jsonl):
    async with models as server:
        with pytest.raises(UserError, match="the prompt takes more than 512 tokens with the newest interaction alone"):
            await ask(options(server.url, jsonl({"chosen": "sea " * 20_000}), max_model_len=512))


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"items": ["a"]}, "two to 26 items"),
        ({"items": ["a", "a"]}, "two of them are the same"),
        ({"history": "x", "data": "y"}, "give one of them"),
        ({"format": "xml"}, "choose from think, plain"),
        ({"stages": 0}, "--stages 0: at least 1"),
    ],
)
def test_options_that_cannot_be_meant(values, problem):
    with pytest.raises(ValueError, match=problem):
        AskOptions(**values)


async def test_what_is_missing_is_named(tmp_path, jsonl):
    with pytest.raises(UserError, match=r"run \./quickstart\.sh first, or name --model"):
        await ask(AskOptions(run=tmp_path))
    with pytest.raises(UserError, match="--items without a --judge"):
        await ask(
            AskOptions(model="http://127.0.0.1:9/v1", history=str(jsonl(*HISTORY)), items=["a", "b"], run=tmp_path)
        )


@pytest.fixture(scope="module")
def films_folder(model_folder, tmp_path_factory):
    """A model whose tokenizer is that of the quick start: it reads of a film its genres and decade alone."""
    folder = tmp_path_factory.mktemp("films") / "model"
    shutil.copytree(model_folder, folder)
    make_tokenizer(["Drama", "1990s"], [REQUEST], PromptSet()).save_pretrained(folder)
    return folder


def make_run(folder, model_folder):
    for name in ("rl/model", "models/sft", "models/judge", "models/judge2"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(model_folder)
    (folder / "data").mkdir()
    history = [{"chosen": f"film {i}", "rejected": f"other {i}"} for i in range(6)]
    rows = [{"userid": f"{i}#1", "history": history, "target": {"chosen": f"a{i}", "rejected": "b"}} for i in range(2)]
    (folder / "data/movielens_upi.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("name", ["chosen", "rejected", "query"])
def test_an_empty_name_of_a_column_is_refused(name):
    with pytest.raises(ValueError, match=f"--{name} is empty"):
        AskOptions(**{name: ""})


async def test_a_finished_run_gives_what_is_not_said(tmp_path, model_folder, capsys):
    make_run(tmp_path, model_folder)
    message = await ask(AskOptions(run=tmp_path, person="1#1", check=True))
    for place in (f"sft+rl: folder {tmp_path}/rl/model", f"judge: folder {tmp_path}/models/judge", "items: 2"):
        assert place in message.splitlines()
    output = capsys.readouterr().out
    assert "1#1: 4 choices" in output and "film 4" not in output  # as the evaluation shows it: two thirds
    with pytest.raises(UserError, match="no person 'x'; there are 0#1, 1#1"):
        await ask(AskOptions(run=tmp_path, person="x", check=True))
    with pytest.raises(UserError, match="no person '1'; there are 1#1, ..."):
        await ask(AskOptions(run=tmp_path, person="1", check=True))
    run = Finished.read(tmp_path)
    assert [spec.partition("=")[0] for spec in run.policies] == ["sft", "sft+rl"]
    spec = ModelSpec.parse(run.policies[0])
    assert window_of(spec) == json.loads((model_folder / "config.json").read_text())["max_position_embeddings"]
    assert (answer_tokens(16384), answer_tokens(2048)) == (4096, 512)
    for text in ("", "[]", "{"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(RecordError, match=f"{tmp_path}/config.json: .*put the model's own file there"):
            window_of(ModelSpec("a", str(tmp_path)))


async def test_titles_that_are_typed_get_the_genres_that_the_quick_start_reads(tmp_path, films_folder, jsonl, capsys):
    make_run(tmp_path, films_folder)
    rows = [{"chosen": "heat", "rejected": "The Matrix (1999)"}, {"chosen": "My cat"}]
    message = await ask(AskOptions(run=tmp_path, history=str(jsonl(*rows)), items=["Alien", "Big (1988)"], check=True))
    output = capsys.readouterr().out
    assert "Heat (1995): Action, Crime, Thriller  >  Matrix, The (1999): Action, Sci-Fi, Thriller" in output
    assert "1 of 5 items are no films that the quick start's models can read, such as: My cat" in output
    assert "items: 2" in message
    question = question_of(AskOptions(run=tmp_path, history=str(jsonl(*rows)), items=["Alien", "Big (1988)"]))
    queries = {question.query, *(interaction.query for interaction in question.person.history)}
    assert queries == {"Recommend a movie that I would like to watch."}, "without it these models write nothing"
    for place in ("rl/model", "models/sft"):  # named, as the only one or with its judge, they are the same models
        model, judge = f"mine={tmp_path}/{place}", f"judge={tmp_path}/models/judge"
        for values in ({"run": tmp_path}, {"judge": [judge], "run": tmp_path / "none"}):
            naming_options = AskOptions(
                model=model, history=str(jsonl(*rows)), items=["Alien", "Big (1988)"], **values
            )
            named = question_of(naming_options)
            assert (named.person, named.items, named.query) == (question.person, question.items, question.query)
            assert [spec.name for spec in named.judges] == ["judge"]
    with pytest.raises(UserError, match="two items are the same: Title: Heat"):
        question_of(AskOptions(run=tmp_path, history=str(jsonl(*rows)), items=["heat", "Heat (1995)"]))


def test_what_the_person_chose_is_marked_among_titles_that_are_completed(tmp_path, films_folder, model_folder, jsonl):
    make_run(tmp_path, films_folder)
    pair, offer = [{"chosen": "Seven (1995)", "rejected": "Sabrina (1995)"} for _ in range(2)]
    offer |= {"rejected": ["Sabrina (1995)", "Up"], "chosen": ["Seven (1995)", "Heat (1995)"]}
    for target, count in ((pair, 1), (offer, 2)):
        row = {"userid": "me", "history": [{"chosen": "Heat (1995)", "rejected": "Big (1988)"}], "target": target}
        for values in ({"history": str(jsonl(row))}, {"data": str(jsonl(row, name="own_upi.jsonl"))}):
            question = question_of(AskOptions(run=tmp_path, **values))
            taken = question.person.target.taken
            assert [item in taken for item in question.items].count(True) == count and "Genres" in taken[0]
            assert "Genres" in question.person.history[0].chosen
        policies, judges, benchmark, of_films = parts_of(DemoOptions(data=values["data"], run=tmp_path))
        page = Demo([], [], benchmark, complete, REQUEST)
        assert of_films and page.person("me").target == question.person.target
    judge, data = [f"j={model_folder}"], values["data"]
    assert parts_of(DemoOptions(model=[f"a={tmp_path}/rl/model"], judge=judge, data=data)).of_films
    assert not parts_of(DemoOptions(model=judge, judge=judge, data=data)).of_films


def test_a_person_of_the_test_keeps_the_draws_of_the_evaluation(tmp_path, films_folder):
    make_run(tmp_path, films_folder)
    (benchmark,) = load_benchmarks([str(tmp_path / "data/movielens_upi.jsonl")])
    assert question_of(AskOptions(run=tmp_path)).person.key == benchmark.records[0].id


def test_nothing_that_is_shown_moves_the_terminal():
    attack = "\x1b[2J\x1b]0;title\x07 \u202egnp.exe \r\x9b31m"
    assert not set(safe(attack)) & set("\x1b\x07\r\x9b\u202e")
    assert "\x1b" not in told_history([Interaction(attack, attack)])


def test_of_a_long_history_the_newest_are_shown():
    output = told_history([Interaction(f"film {i} " + "x" * 1000) for i in range(10_000)])
    assert len(output) < 6000 and "9,980 older ones" in output and "10000  film 9999" in output


def test_an_answer_that_begins_again_is_told_from_its_start(capsys):
    teller = Teller("ours", [[Interaction("a")]])
    for text in ("Lik", "Likes a", "Lov", "Loves b"):
        teller.hear(0, text)
    assert capsys.readouterr().out.endswith("Likes a\n(again, for the connection broke)\nLoves b")


def test_a_verdict_says_what_is_picked_and_whether_the_order_decides():
    clear, tie = Verdict("j", ((0.9, 0.1), (0.8, 0.2))), Verdict("j", ((0.9, 0.1), (0.1, 0.9)))
    assert (clear.pick, tie.pick, clear.wavers, tie.wavers) == (0, None, False, True)
    assert clear.shares == pytest.approx((0.85, 0.15)) and Verdict("j", error="x").pick is None
    assert "failed: x" in verdict_lines([("no summary", Verdict("j", error="x"))], ["a", "b"])


@pytest.mark.parametrize("command", ["ask", "demo"])
def test_of_a_folder_with_two_benchmarks_one_is_to_be_named(command, jsonl):
    person = {"userid": "u", "history": HISTORY, "target": {"chosen": "a", "rejected": "b"}}
    for name in ("mind", "movielens"):
        folder = str(jsonl(person, name=f"{name}_upi.jsonl").parent)
    url = "http://127.0.0.1:9/v1"
    with pytest.raises(UserError, match=r"holds mind, movielens; name one of them: --data mind=.*mind_upi\.jsonl"):
        if command == "ask":
            question_of(AskOptions(model=f"ours={url}", judge=[f"judge={url}"], data=folder))
        else:
            parts_of(DemoOptions(model=[f"ours={url}"], judge=[f"judge={url}"], data=folder))


@pytest.mark.parametrize("items", [["a", ""], ["a", "  "], ["a", " a"], ["a b", "a  b"]])
def test_items_that_are_empty_or_of_one_text_are_refused(items):
    with pytest.raises(ValueError, match="--items: (one of them is empty|two of them are the same)"):
        AskOptions(items=items)


async def test_check_looks_at_the_templates(jsonl):
    url = "http://127.0.0.1:9/v1"
    with pytest.raises(ValueError, match=r"nope: no \*\.jinja templates here"):
        await ask(options(url, jsonl(*HISTORY), check=True, prompt_set="nope"))
    data = str(jsonl({"userid": "u", "history": HISTORY, "target": {"chosen": "a", "rejected": "b"}}))
    with pytest.raises(ValueError, match=r"nope: no \*\.jinja templates here"):
        await show(DemoOptions(model=[url], judge=[url], data=data, check=True, prompt_set="nope", port=free_port()))
