"""Checkpoints on a disk that fills up, or whose run was killed: the last whole one stays, and is found."""

import shutil
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

torch = pytest.importorskip("torch")
ray = pytest.importorskip("ray")

from alignxplore.records import RecordError  # noqa: E402
from alignxplore.rl import train  # noqa: E402
from alignxplore.rl.checkpoints import (  # noqa: E402
    POINTER,
    SIZES,
    Checkpoints,
    mend_pointer,
    newest_step,
    publish_model,
    refuse_damaged,
)
from alignxplore.rl.settings import SettingsError  # noqa: E402
from alignxplore.serving.endpoint import TransportError  # noqa: E402
from tests.reliability.disks import LARGE, Disk  # noqa: E402

WEIGHTS = 1 << 20  # bytes of a checkpoint


@pytest.fixture
def disk(tmp_path):
    new_disk = Disk(tmp_path / "disk")
    yield new_disk
    new_disk.close()


@pytest.fixture
def run(disk):
    """run(keep) → (the checkpoints of a run on that disk, its trainer). What verl does in its place: weights, the
    data's place, and which step is the newest."""

    def begin(keep=2):
        folder = disk.path / "checkpoints"
        trainer = SimpleNamespace(global_steps=1, train_dataloader=SimpleNamespace(state_dict=dict))
        place = {"default_local_dir": str(folder), "max_actor_ckpt_to_keep": keep}
        trainer.config = OmegaConf.create({"trainer": place})

        def verl_saves():
            step = folder / f"global_step_{trainer.global_steps}"
            (step / "actor").mkdir(parents=True)
            torch.save({"w": torch.zeros(WEIGHTS // 4)}, step / "actor" / "model.pt")
            trainer.before_data(step)
            torch.save(trainer.train_dataloader.state_dict(), step / "data.pt")
            (folder / POINTER).write_text(str(trainer.global_steps))

        trainer.before_data = lambda step: None
        return Checkpoints(trainer, verl_saves, lambda step: {"step": step}), trainer

    return begin


def steps(checkpoints):
    return sorted(path.name for path in checkpoints.folder.glob("global_step_*"))


@pytest.mark.parametrize("room", [0, WEIGHTS // 2])
def test_a_full_disk_takes_only_the_checkpoint_that_was_being_written(disk, run, room):
    checkpoints, trainer = run()
    checkpoints.save()
    trainer.global_steps = 2
    disk.remount(f"size={disk.used() + room}")
    with pytest.raises(OSError, match="/disk/checkpoints/global_step_2") as caught:
        checkpoints.save()
    assert caught.value.filename and steps(checkpoints) == ["global_step_1"]
    assert newest_step(checkpoints.folder) == checkpoints.saved_step == 1
    disk.remount(f"size={LARGE}")
    checkpoints.save()
    assert newest_step(checkpoints.folder) == checkpoints.saved_step == 2
    assert torch.load(checkpoints.current() / "data.pt") == {"step": 2}


def test_a_full_disk_in_a_worker_of_ray_is_told_in_its_own_words(disk, run):
    checkpoints, trainer = run()
    cause = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 3790016 vs 3789908")

    def worker(step):
        raise ray.exceptions.RayTaskError("save_checkpoint", "ray::WorkerDict (pid=1)", cause).as_instanceof_cause()

    trainer.before_data = worker
    with pytest.raises(OSError, match=r"unexpected pos .*: '.*/global_step_1'") as caught:
        checkpoints.save()
    assert "WorkerDict" not in str(caught.value) and not steps(checkpoints)


@pytest.mark.parametrize(("keep", "rest"), [(1, [3]), (2, [2, 3]), (None, [1, 2, 3])])
def test_the_old_one_stays_until_the_new_one_is_whole(run, keep, rest):
    """verl, which keeps as many, takes the old one away before it has written which is the newest."""
    checkpoints, trainer = run(keep)
    there = []
    trainer.before_data = lambda step: there.append(steps(checkpoints))
    for trainer.global_steps in (1, 2, 3):
        checkpoints.save()
    assert all(f"global_step_{step}" in names for step, names in zip((1, 2), there[1:]))
    assert steps(checkpoints) == [f"global_step_{step}" for step in rest]
    assert trainer.config.trainer.max_actor_ckpt_to_keep is None


def test_an_empty_pointer_means_the_newest(run):
    checkpoints, trainer = run()
    pointer = checkpoints.folder / POINTER
    assert newest_step(checkpoints.folder) == 0
    mend_pointer(checkpoints.folder)
    assert not pointer.exists()
    for trainer.global_steps in (9, 10):
        checkpoints.save()
    pointer.write_text("")
    assert newest_step(checkpoints.folder) == 10 and pointer.read_text() == ""
    mend_pointer(checkpoints.folder)
    assert pointer.read_text() == "10"


def test_a_pointer_that_cannot_be_written_loses_no_checkpoint(disk, run):
    checkpoints, trainer = run()
    checkpoints.save()
    trainer.global_steps = 2

    def torn(step):
        (checkpoints.folder / POINTER).write_text("")
        raise OSError(28, "No space left on device")

    trainer.before_data = torn
    with pytest.raises(OSError, match="global_step_2"):
        checkpoints.save()
    assert newest_step(checkpoints.folder) == 2 and steps(checkpoints) == ["global_step_1", "global_step_2"]


def test_a_pointer_that_is_damaged_or_names_a_deleted_checkpoint(run):
    """verl would begin anew without a word where the folder that it names is gone."""
    checkpoints, trainer = run()
    pointer = checkpoints.folder / POINTER
    for trainer.global_steps in (9, 10):
        checkpoints.save()
    pointer.write_bytes(bytes(2))  # as after a power cut
    assert newest_step(checkpoints.folder) == 10
    for damage in (b"x", b"\xff"):
        pointer.write_bytes(damage)
        with pytest.raises(RecordError, match=f"{pointer}: .*; write the number of .* there, e.g. 10"):
            mend_pointer(checkpoints.folder)
    pointer.write_text("10")
    for deleted, rest in ((10, 9), (9, 0)):
        shutil.rmtree(checkpoints.folder / f"global_step_{deleted}")
        (checkpoints.folder / "global_step_11").mkdir(exist_ok=True)  # begun, and not finished
        mend_pointer(checkpoints.folder)
        assert newest_step(checkpoints.folder) == rest
    assert not pointer.exists()


def test_a_damaged_file_is_named_before_ray_starts(run, config, tmp_path):
    checkpoints, trainer = run()
    for trainer.global_steps in (1, 2):
        checkpoints.save()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "checkpoints").symlink_to(checkpoints.folder)
    newest = tmp_path / "out" / "checkpoints" / "global_step_2"
    remedy = "delete global_step_2: the run goes on from the one before, or from the start"
    for name in ("actor/model.pt", "data.pt"):
        file = newest / name
        content = file.read_bytes()
        for damaged in (b"", content[:-9]):
            file.write_bytes(damaged)
            sentence = rf"{file}: damaged since it was saved \({len(damaged):,} bytes of {len(content):,}\); {remedy}"
            with pytest.raises(SettingsError, match=sentence):
                train.run(config)
        file.unlink()
        with pytest.raises(SettingsError, match=rf"{file}: damaged since it was saved \(gone\); {remedy}"):
            train.run(config)
        file.write_bytes(content)
    for text in ("", "[]", '{"sizes": 3}'):
        (newest / SIZES).write_text(text)
        with pytest.raises(RecordError, match=f"{newest / SIZES}: .*{remedy}"):
            train.run(config)
    (newest / SIZES).unlink()  # of an earlier version, or killed before it was written
    (newest / "data.pt").write_bytes(b"")
    with pytest.raises(TransportError):  # all is well, and the judges are asked
        train.run(config)
    shutil.rmtree(newest)
    with pytest.raises(TransportError):
        train.run(config)
    assert newest_step(checkpoints.folder) == 1


def test_lengths_are_of_what_was_saved_last(run):
    """A step that is saved again has none until it is whole, or those of before would call it damaged."""
    checkpoints, trainer = run()
    checkpoints.save()
    there = []
    trainer.before_data = lambda step: there.append((step / SIZES).exists())
    shutil.rmtree(checkpoints.current() / "actor")
    (checkpoints.current() / "torn").touch()
    checkpoints.save()
    (checkpoints.current() / "more").touch()  # what was put there since is nobody's damage
    assert there == [False] and refuse_damaged(checkpoints.folder) is None


def test_a_model_that_finds_no_room_names_its_place(disk):
    source = disk.path / "global_step_1" / "actor" / "huggingface"
    source.mkdir(parents=True)
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(WEIGHTS // 4)}, source / "model.safetensors")
    disk.remount(f"size={disk.used()}")
    with pytest.raises(OSError, match="/disk/model'"):
        publish_model(source.parents[1], disk.path / "model", "bfloat16")
    assert not (disk.path / "model").exists()
