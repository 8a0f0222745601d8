"""What a list of steps is: commands as they are shown, the order of steps, how long they take; settings."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from alignxplore.quickstart.films import FilmSettings
from alignxplore.quickstart.settings import Number, SettingError, Settings, setting
from alignxplore.quickstart.steps import Server, Step, command, length, model_server, order

OUT = Path("/a place/it's/out")


@pytest.mark.parametrize(
    "words",
    [
        [OUT / "data", f"a={OUT}/b c", f"x y={OUT}", "--plain", "", '$HOME `x` "quoted"', f"{OUT}{OUT}"],
        [f"sft+rl={OUT}/model", "a'b", "two\nlines"],
    ],
)
def test_a_shown_command_does_the_same_by_hand(words):
    line = command("printf", "%s\\0", *words, A="b c", B=f"{OUT}/x").shown(OUT)
    assert str(OUT) not in line
    ran = subprocess.run(["bash", "-c", line], env={"OUT": str(OUT), "PATH": "/usr/bin:/bin"}, capture_output=True)
    assert ran.stdout.decode().split("\0")[:-1] == [str(word) for word in words]
    assert line.startswith("env A='b c' B=\"$OUT\"/x printf ")


def test_variables_are_set_and_taken_away():
    assert command("run", 1, A=2, KEY=None).shown(OUT) == "env -u KEY A=2 run 1"


def test_addresses_take_their_places_in_words_and_variables():
    judge, braces = Server("judge", command("serve")), '{"json": {}}'
    ready = command("ask", braces, f"judge={judge.url}", JUDGE=judge.url).with_urls({"judge": "http://x/v1"})
    assert ready == command("ask", braces, "judge=http://x/v1", JUDGE="http://x/v1")


@pytest.mark.parametrize(
    ("share", "words"),
    [((), " --num-gpu-blocks-override 512"), ((("--gpu-memory-utilization", 0.1),), " --gpu-memory-utilization 0.1")],
)
def test_a_models_server_asks_for_no_key_and_takes_its_share(share, words):
    assert model_server(OUT, "judge", OUT / "m", *share).command.shown(OUT) == (
        'env -u VLLM_API_KEY python -m alignxplore.serving "$OUT"/m --log "$OUT"/logs/serve_judge.log '
        f"--served-model-name judge --max-model-len 2048{words}"
    )


def steps(**after):
    return [Step(name, 1, [], after=after[name]) for name in after]


def test_a_step_comes_after_the_one_before_it_unless_it_says_otherwise():
    assert order(steps(a=None, b=None, c=["a"], d=[], e=None)) == {
        "a": (),
        "b": ("a",),
        "c": ("a",),
        "d": (),
        "e": ("d",),
    }


@pytest.mark.parametrize("wrong", [[*steps(a=None), *steps(a=None)], steps(a=["b"], b=[]), steps(a=["a"])])
def test_lists_that_cannot_be_meant(wrong):
    with pytest.raises(
        ValueError, match="two steps are called 'a'|'a' comes after '[ab]', which is no step before it"
    ):
        order(wrong)


@pytest.mark.parametrize(
    ("seconds", "at_once", "expected"),
    [
        ({}, 2, 0),
        ({"a": 10, "b": 20, "c": 5, "d": 1}, 1, 36),
        ({"a": 10, "b": 20, "c": 5, "d": 1}, 2, 31),  # c beside b
        ({"b": 20, "c": 5, "d": 1}, 2, 21),  # a is done
        ({"b": 20, "c": 30, "d": 1}, 2, 31),
    ],
)
def test_the_time_of_steps_side_by_side(seconds, at_once, expected):
    before = order(steps(a=None, b=None, c=["a"], d=["b", "c"]))
    assert length(seconds, before, at_once) == expected


@dataclass(frozen=True, kw_only=True)
class SomeSettings(Settings):
    """Of a test."""

    users: int = setting("how many", 5)
    rate: str = setting("learning rate", Number("3e-4"))
    port: int = setting("where", 80, decides=False)


def test_settings_come_from_variables():
    values = SomeSettings.read({"USERS": "7", "RATE": "", "OUT": "elsewhere"}, out=OUT)
    assert (values.users, values.rate, values.port, values.out) == (7, "3e-4", 80, OUT)
    assert values.deciding() == {"USERS": "7", "RATE": "3e-4"}
    assert SomeSettings.read({"USERS": "7"}, out=OUT, users=9).users == 9
    with pytest.raises(SettingError, match="USERS=many: a whole number from 1 to 1000000000 is needed"):
        SomeSettings.read({"USERS": "many"}, out=OUT)
    assert SomeSettings.read({"RATE": "1E-05"}, out=OUT).rate == "1E-05", "as it was written"
    with pytest.raises(SettingError, match="RATE=fast: a number above 0 is needed"):
        SomeSettings.read({"RATE": "fast"}, out=OUT)
    for name, text in (("USERS", "0"), ("USERS", "-2"), ("USERS", "3000000000"), ("RATE", "nan"), ("RATE", "0")):
        with pytest.raises(SettingError, match=f"{name}={text}: "):
            SomeSettings.read({name: text}, out=OUT)
    assert FilmSettings.read({"SEED": "0"}, out=OUT).seed == 0, "a seed may be"
    assert "  USERS=5   " in SomeSettings.told() and "how many" in SomeSettings.told()
