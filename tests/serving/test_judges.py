"""Where the judges of a run are served: names, shares of the GPUs, the line for who trains. (What is started and ends:
tests/rl/test_cluster_scripts.py.)"""

import pytest

from alignxplore.demo.__main__ import DemoOptions
from alignxplore.films.teacher import TeacherOptions
from alignxplore.serving.judges import Judge, JudgesOptions, judges_line, placed
from alignxplore.serving.server import ServeOptions
from alignxplore.world.oracle import OracleOptions


@pytest.fixture(autouse=True)
def five_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7,2")


def test_judges_share_the_gpus_and_have_a_port_each():
    judges = placed(JudgesOptions(models="a=org/A org/B", port=7000))
    assert judges == [Judge("a", "org/A", 7000, ("4", "5"), 2), Judge("B", "org/B", 7001, ("6", "7"), 2)]
    assert judges[1].place == "B: org/B, 2 copies, GPUs 6,7, port 7001"


def test_copies_of_several_gpus_and_fewer_than_fit():
    (judge,) = placed(JudgesOptions(models="org/A", tp=2))
    assert judge.gpus == ("4", "5", "6", "7") and judge.replicas == 2
    (judge,) = placed(JudgesOptions(models="org/A", gpus=3, replicas=1))
    assert judge.gpus == ("4",) and judge.replicas == 1


def test_on_a_cpu_there_is_one_copy_unless_more_are_asked_for(monkeypatch):
    (judge,) = placed(JudgesOptions(models="/a b/judge\n", device="cpu"))
    assert judge == Judge("judge", "/a b/judge", 8000, (), 1)
    assert placed(JudgesOptions(models="a=m", device="cpu", replicas=3))[0].replicas == 3


@pytest.mark.parametrize("wrong", [{"tp": 3}, {"replicas": 3}, {"gpus": 1}])
def test_copies_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match="GPUs for 2 judges leave .* each; .* do not fit"):
        placed(JudgesOptions(models="a=org/A b=org/B", **wrong))


def test_more_gpus_than_there_are_is_refused():
    with pytest.raises(ValueError, match="--gpus 8: 5 may be used here .CUDA_VISIBLE_DEVICES.*; ask for 5 or fewer"):
        placed(JudgesOptions(models="a=org/A", gpus=8))
    assert placed(JudgesOptions(models="a=org/A", gpus=8, device="cpu"))[0].gpus == ()


def test_the_line_names_an_address_that_others_reach(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "node7")
    for address, expected in (({}, "127.0.0.1"), ({"host": "0.0.0.0"}, "node7"), ({"advertise": "gpu1"}, "gpu1")):
        options = JudgesOptions(models="a=org/A b=org/B", **address)
        line = judges_line(options, placed(options))
        assert line == f"a=http://{expected}:8000/v1 b=http://{expected}:8001/v1"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"device": "tpu"}, "--device tpu: one of cuda, cpu"),
        ({"tp": 0}, "--tp 0: at least 1"),
        ({"replicas": 0}, "--replicas 0: at least 1"),
        ({"gpus": -1}, "--gpus -1: at least 1"),
        ({"limit": 0.0}, "--limit 0.0: at least 1"),
        ({"max_model_len": 0}, "--max_model_len 0: at least 1"),
        ({"port": 0}, "--port 0: from 1 to 65534"),
        ({"port": 65535}, "--port 65535: from 1 to 65534"),
        ({"models": " "}, "names no judge"),
        ({"models": "a=org/A a=org/B"}, "two judges named a"),
    ],
)
def test_what_cannot_be_meant_is_named(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        JudgesOptions(**{"models": "a=org/A b=org/B"} | wrong)


def test_where_no_gpu_may_be_used_that_is_said(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ValueError, match="no GPU here that may be used"):
        placed(JudgesOptions(models="a=org/A"))


def test_a_port_is_one_wherever_something_listens():
    for options, least in (
        (lambda port: ServeOptions(model="m", port=port), 0),
        (lambda port: OracleOptions(port=port), 0),
        (lambda port: TeacherOptions(names_of="m", port=port), 0),
        (lambda port: DemoOptions(port=port), 1),
    ):
        options(least), options(65535)
        for wrong in (least - 1, 65536):
            with pytest.raises(ValueError, match=f"--port {wrong}: from {least} to 65535"):
                options(wrong)
