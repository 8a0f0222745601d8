"""Running a list of steps: whatever ends a run, nothing of it stays, and the same command goes on. Stand-ins work."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from alignxplore.errors import one_sentence
from alignxplore.quickstart import folder
from alignxplore.quickstart.folder import FolderError, RunFolder
from alignxplore.quickstart.plan import Pipeline
from alignxplore.quickstart.runner import StepError, _Runner
from alignxplore.quickstart.start import carry_out
from alignxplore.quickstart.steps import Server, Step, command
from alignxplore.same_run import OtherRun
from tests import ROOT

# A server, a worker in a session of its own (KIND stubborn: that does not heed the first signal), and one without.
SCRIPT = """
import os, sys
from pathlib import Path
from alignxplore.errors import one_sentence
from alignxplore.quickstart.plan import Pipeline
from alignxplore.quickstart.start import carry_out
from alignxplore.quickstart.steps import Server, Step, command
from alignxplore.same_run import OtherRun
out, here = Path(os.environ["OUT"]), Path(__file__).parent
judge = Server("judge", command(sys.executable, here / "server.py"))
worker = [sys.executable, here / "worker.py"]
ask = command("sh", "-c", 'echo "asked $0"; [ "$FAIL" != yes ]', judge.url)
work = command("sh", "-c", '[ -e "$OUT/go" ] || { "$@" "$OUT/apart" "$KIND" & "$@" "$OUT/plain"; }', "sh", *worker)
reached = command("sh", "-c", '[ -e "$OUT/go" ] || echo "must not be" >"$OUT/reached"')
steps = [
    Step("first", 1, [command("sh", "-c", 'echo made >"$OUT/made"')]),
    Step("second", 1, [ask, work, reached], [judge]),
    Step("third", 1, [command("echo", judge.url)], [judge]),
    Step("fourth", 1, [command("true")]),
]
with one_sentence():
    print(carry_out(Pipeline(out=out, steps=steps)))
"""
WORKER = """
import os, signal, sys, time
if sys.argv[2:]:
    os.setsid()
if sys.argv[2:] == ["stubborn"]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1], "w").write(str(os.getpid()))
time.sleep(600)
"""
SERVER = """
import os, sys, time
open(os.environ["OUT"] + "/server", "a").write(f"{os.getpid()}\\n")
print("ready: some/model at http://127.0.0.1:1/v1", flush=True)
time.sleep(600)
"""


@pytest.fixture
def start(tmp_path):
    """start() → the script, running as the leader of a session, as in a terminal; what it says goes to
    tmp_path/log."""
    out, started = tmp_path / "out put", []
    out.mkdir()
    for name, text in (("worker", WORKER), ("server", SERVER), ("steps", SCRIPT)):
        (tmp_path / f"{name}.py").write_text(text)
    environment = os.environ | {"OUT": str(out), "PYTHONPATH": str(ROOT)}

    def begin(kind="heeding", fail="no"):
        with (tmp_path / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(tmp_path / "steps.py")],
                env=environment | {"KIND": kind, "FAIL": fail},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        started.append(process)
        return process

    begin.out = out
    yield begin
    for process in started:
        process.kill()
        process.wait()


def until(condition, limit=60):
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def nobody_of(out):
    """Has everything ended that knows this OUT? All processes of a run do, its guards too."""
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("OUT") == str(out):
                return False
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            pass
    return True


@pytest.mark.parametrize(
    ("number", "whole_group", "kind"),
    [
        (signal.SIGINT, True, "heeding"),
        (signal.SIGTERM, False, "heeding"),
        (signal.SIGHUP, True, "heeding"),
        (signal.SIGKILL, False, "stubborn"),
        (signal.SIGTERM, True, "stubborn"),
        (signal.SIGKILL, True, "heeding"),
    ],
)
def test_nothing_stays_and_the_same_command_goes_on(start, tmp_path, number, whole_group, kind):
    out, log = start.out, tmp_path / "log"
    process = start(kind)
    pids = [out / name for name in ("apart", "plain", "server")]
    until(lambda: all(path.exists() and path.read_text() for path in pids))
    (os.killpg if whole_group else os.kill)(process.pid, number)
    killed = number == signal.SIGKILL
    assert process.wait(45) == (-number if killed else 130)
    assert killed or nobody_of(out), "it waits until all have ended"
    until(lambda: nobody_of(out), 45)
    assert not (out / "reached").exists()
    assert ("to go on run the same command again" in log.read_text()) != killed
    (out / "go").touch()
    assert start().wait(60) == 0, log.read_text()
    text = log.read_text()
    assert "-- first: done before" in text and text.count("\nasked http://127.0.0.1:1/v1") == 2
    assert (out / "logs/third.log").read_text().splitlines()[-1] == "http://127.0.0.1:1/v1"
    assert len((out / "server").read_text().split()) == 2, "one server for both steps of a run"
    assert nobody_of(out)


def test_a_signal_is_heard_at_once(start, tmp_path):
    """And not only when the step that runs has ended by itself, after ten minutes."""
    process = start()
    until((start.out / "plain").exists)
    process.send_signal(signal.SIGTERM)
    until(lambda: "to go on run the same command again" in (tmp_path / "log").read_text())
    assert process.wait(45) == 130


def test_a_failed_step_says_where_to_look_and_leaves_no_server(start, tmp_path):
    assert start(fail="yes").wait(60) == 1
    text = (tmp_path / "log").read_text()
    assert f"step 'second' failed; its output is in {start.out}/logs/second.log." in text
    assert "\nasked http" in text and not (start.out / "plain").exists()
    assert not (start.out / "steps/second.json").exists() and nobody_of(start.out)


def test_a_run_that_meets_another_is_refused(start, tmp_path, monkeypatch, capsys):
    first = start()
    until((start.out / "plain").exists)
    monkeypatch.setattr("alignxplore.quickstart.folder.PATIENCE", 1.0)
    with pytest.raises(FolderError, match="another run is writing into .*; wait for it or choose another --out"):
        carry_out(Pipeline(out=start.out, steps=[]))
    assert "waiting up to 30 s" in capsys.readouterr().out
    first.kill()
    until(lambda: nobody_of(start.out))


# --- little lists, in this process


@pytest.fixture
def carried(tmp_path, capfd):
    """carried(steps) runs them in a folder whose name has a space; returns what was said."""

    def run(*steps, **more):
        output = carry_out(Pipeline(out=tmp_path / "out put", steps=steps, **more))
        return "".join(capfd.readouterr()) + output

    return run


def say(word):
    return command("sh", "-c", 'echo "said $WORD"', WORD=word)


LITTLE = (Step("one", 1, [say("two words")]), Step("two", 1, [command("echo", "second")]))


def test_commands_are_printed_as_they_run_and_their_words_kept(carried, tmp_path):
    text = carried(*LITTLE)
    assert "$ env WORD='two words' sh -c" in text and "\nsaid two words\n" in text
    assert "\nsaid two words\n" in (tmp_path / "out put/logs/one.log").read_text()
    names = [line.split()[0] for line in text.partition("Where the time went")[2].splitlines()[1:] if line]
    assert names == ["one", "two"]


def test_what_is_done_is_done_unless_its_commands_change(carried):
    carried(*LITTLE)
    text = carried(LITTLE[0], Step("two", 1, [command("echo", "other")]))
    assert "-- one: done before" in text and "said" not in text and "== two" in text and "\nother\n" in text
    assert "== " not in carried(LITTLE[0], Step("two", 9, [command("echo", "other")]))


def test_what_comes_after_a_changed_step_is_done_again_and_what_stands_beside_it_is_not(carried):
    beside = Step("beside", 1, [command("echo", "apart")], after=())
    carried(*LITTLE, beside)
    text = carried(Step("one", 1, [command("echo", "other")]), LITTLE[1], beside)
    assert text.index("== one") < text.index("\nother\n") < text.index("== two") < text.index("\nsecond\n")
    assert "-- beside: done before" in text


def test_the_results_are_named_at_the_end(carried, tmp_path):
    assert carried(*LITTLE, results={"report": tmp_path / "r.md"}).endswith(f"\nreport   {tmp_path / 'r.md'}")


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="knows a commit only where there is one")
def test_a_folder_that_other_code_worked_on_is_named(carried, tmp_path):
    commits = tmp_path / "out put" / "commits"
    carried(*LITTLE), carried(*LITTLE)
    assert len(commits.read_text().splitlines()) == 1
    commits.write_text("0123456789ab\n")
    for _ in range(2):
        text = carried(*LITTLE)
        assert text.count("worked on by other code (0123456789ab; now ") == 1 and "-- one: done before" in text


def test_waiting_for_another_run_is_said(carried, tmp_path):
    (tmp_path / "out put").mkdir()
    with (tmp_path / "out put" / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        timer = threading.Timer(1, lambda: fcntl.flock(held, fcntl.LOCK_UN))
        timer.start()
        assert "waiting up to 30 s" in carried(*LITTLE)
        timer.join()


def test_other_settings_are_refused_and_shown(carried):
    carried(*LITTLE, deciding={"SEED": "1", "USERS": "7"})
    carried(*LITTLE, deciding={"SEED": "1", "USERS": "7"})
    with pytest.raises(OtherRun, match=r"other settings \(SEED '1' → '2'\); choose another --out \(OUT for a study\)"):
        carried(*LITTLE, deciding={"SEED": "2", "USERS": "7"})


def test_check_names_the_steps_and_writes_nothing(carried, tmp_path):
    carried(LITTLE[0])
    before = sorted(tmp_path.rglob("*"))
    output = carry_out(Pipeline(out=tmp_path / "out put", steps=LITTLE), check=True)
    assert output == "-- one: done before\n-- two: about 1 s\n0 min 01 s to go, on two cores; nothing was started"
    carry_out(Pipeline(out=tmp_path / "nothing here", steps=LITTLE), check=True)
    assert sorted(tmp_path.rglob("*")) == before


def meet(own, other):
    """Ends well if the command of `other` runs at the same time."""
    return command(
        "sh", "-c", f"touch {own}; for i in $(seq 100); do [ -e {other} ] && exit 0; sleep 0.1; done; exit 1"
    )


def test_steps_that_need_not_wait_run_side_by_side_and_say_who_they_are(carried, tmp_path):
    a, b, c = (tmp_path / name for name in "abc")
    steps = [
        Step("start", 1, [command("true")]),
        Step("left", 1, [meet(a, b), command("sh", "-c", f"echo from left; sleep 0.5; touch {c}")]),
        Step("right", 1, [meet(b, a), command("sh", "-c", f"until [ -e {c} ]; do sleep 0.1; done")], after=["start"]),
        Step("end", 1, [command("test", "-e", c)], after=["left", "right"]),
    ]
    text = carried(*steps)
    assert "left | from left" in text and text.index("== right") < text.index("left | from left") < text.index(
        "== end"
    )


def test_no_more_run_at_once_than_there_are_cores(carried, tmp_path):
    here = tmp_path / "here"
    alone = f"mkdir {here}-$1 && [ $(ls -d {here}-* | wc -l) -le 2 ] && sleep 0.5 && rmdir {here}-$1"
    carried(*(Step(name, 1, [command("sh", "-c", alone, "sh", name)], after=[]) for name in "abcd"))


def test_commands_of_a_row_run_side_by_side_and_a_failed_one_ends_the_others(carried, tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    carried(Step("met", 1, [[meet(a, b), meet(b, a)]]))
    with pytest.raises(StepError, match="step 'bad' failed"):
        carried(Step("good", 1, [command("sleep", 600)], after=[]), Step("bad", 1, [[command("false")]], after=[]))
    with pytest.raises(StepError, match="step 'row' failed"):
        carried(Step("row", 1, [[command("sleep", 600), command("false")]]))


def test_a_command_that_is_not_there_is_a_failed_step(carried, tmp_path):
    with pytest.raises(StepError, match="step 'one' failed"):
        carried(Step("one", 1, [command("/no/such/command")]))
    assert "/no/such/command: No such file" in (tmp_path / "out put/logs/one.log").read_text()


def test_a_server_that_does_not_come_up_says_why(carried):
    server = Server("judge", command("sh", "-c", "echo no such model; exit 1"))
    with pytest.raises(StepError, match="the server 'judge' ended:(?s:.)*no such model"):
        carried(Step("ask", 1, [command("echo", server.url)], [server]))


def test_a_variable_can_be_taken_away(carried, monkeypatch):
    monkeypatch.setenv("WORD", "of the caller")
    assert "\nsaid \n" in carried(Step("one", 1, [say(None)]))


def test_the_servers_of_a_step_start_at_once(carried, tmp_path):
    """Each of these comes up only if the other one was started, too."""

    def server(name: str, other: str) -> Server:
        wait = f"for i in $(seq 50); do [ -e {tmp_path / other} ] && echo ready: m at http://{name}; sleep 0.1; done"
        return Server(name, command("sh", "-c", f"touch {tmp_path / name}; {wait}; exit 1"))

    one, two = server("one", "two"), server("two", "one")
    assert "asked http://one http://two" in carried(
        Step("ask", 1, [command("echo", "asked", one.url, two.url)], [one, two])
    )


def test_a_server_is_started_once_and_ends_with_the_last_step_that_needs_it(carried, tmp_path):
    pid = tmp_path / "pid"
    server = Server("judge", command("sh", "-c", f"echo $$ >>{pid}; echo ready: m at http://x; sleep 600"))
    ask = [command("sh", "-c", f'kill -0 $(cat {pid}) && echo "asked $0"', server.url)]
    gone = [command("sh", "-c", f"! kill -0 $(cat {pid})")]
    text = carried(Step("one", 1, ask, [server]), Step("two", 1, ask, [server]), Step("three", 1, gone))
    assert text.count("\nasked http://x\n") == 2 and len(pid.read_text().split()) == 1


def test_the_time_left_is_corrected_by_how_this_machine_has_done(tmp_path):
    steps = [Step("a", 100, []), Step("b", 50, [])]
    runner = _Runner(Pipeline(out=tmp_path, steps=steps), RunFolder(tmp_path), 0, 2)
    runner.waiting, runner.expected = {"b": steps[1]}, 150
    runner.began -= 200  # a took twice as long
    assert runner._time_left() == pytest.approx(100, abs=0.1)
    runner.expected = 100  # 50 s of work say little
    assert runner._time_left() == 50


def test_after_a_failure_what_needs_nothing_of_it_goes_on(tmp_path, capsys):
    """Steps and servers that fail are named together, and are all that the same command does again."""
    mended = tmp_path / "mended"
    ends = Server("judge", command("sh", "-c", f'[ -e "{mended}" ] && echo "ready: m at http://x/v1" && sleep 600'))
    steps = [
        Step("first", 1, [command("true")]),
        Step("broken", 1, [command("sh", "-c", f'[ -e "{mended}" ]')]),
        Step("upon it", 1, [command("true")]),
        Step("asks", 1, [command("true")], [ends], after=["first"]),
        Step("apart", 1, [command("true")], after=["first"]),
    ]
    pipeline = Pipeline(out=tmp_path / "out", steps=steps, keep_going=True)
    with pytest.raises(StepError) as error:
        carry_out(pipeline)
    assert set(error.value.steps) == {"broken", "asks"} and "the server 'judge' ended" in error.value.steps["asks"]
    folder = RunFolder(tmp_path / "out")
    assert [step.name for step in folder.undone(steps)] == ["broken", "upon it", "asks"]
    mended.touch()
    capsys.readouterr()
    assert "Done" in carry_out(pipeline)
    assert "-- apart: done before" in capsys.readouterr().out
    assert folder.undone(steps) == []


def test_a_check_refuses_a_file_in_the_folders_place(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(SystemExit, match=f"{tmp_path}/out: a file, .* name another folder"), one_sentence():
        carry_out(Pipeline(out=tmp_path / "out", steps=[]), check=True)


def test_a_run_that_is_taken_elsewhere_with_its_repository_is_finished_there(tmp_path, monkeypatch):
    def at(root):
        monkeypatch.setattr(folder, "ROOT", root)
        step = Step("data", 1, [command("build", "--raw", root / "data/films", "--out", root / "runs/a/films.jsonl")])
        return RunFolder(root / "runs/a"), step, {"DATA": str(root / "data/films"), "SEED": "1"}

    run, step, settings = at(tmp_path / "here")
    with run.claimed():
        run.note_settings(settings)
        run.note_done(step, 7)
    assert str(tmp_path) not in "".join(path.read_text() for path in run.out.rglob("*") if path.is_file())
    (tmp_path / "here").rename(tmp_path / "there")
    run, step, settings = at(tmp_path / "there")
    run.refuse_others(settings)
    assert run.seconds(step) == 7 and folder.settings_of(run.out) == settings
    with pytest.raises(OtherRun, match="DATA"):
        run.refuse_others(settings | {"DATA": str(tmp_path / "here/data/films")})
