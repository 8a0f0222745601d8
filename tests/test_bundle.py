"""The bundle for a machine without a network: what is in it, what is left out, and that it installs over there."""

import base64
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from alignxplore import bundle
from alignxplore.bundle import BundleOptions, Parts, lean, packed, pins
from alignxplore.environment import REQUIREMENTS, ROOT
from alignxplore.errors import UserError


def make_wheel(folder: Path, name: str, version: str, files: dict[str, bytes]) -> Path:
    """An ordinary wheel with these files."""
    info = f"{name}-{version}.dist-info"
    files = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(data)}\n"
    record += f"{info}/RECORD,,\n"
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in (files | {f"{info}/RECORD": record.encode()}).items():
            archive.writestr(path, data)
    return wheel


def test_parts_are_no_larger_than_asked_and_together_what_was_written(tmp_path):
    data = bytes(range(256)) * 10
    with Parts(tmp_path, 1000) as parts:
        parts.write(data[:1500])
        parts.write(data[1500:])
    names = [name for name, _ in parts.sums]
    assert names == ["bundle.tar.000", "bundle.tar.001", "bundle.tar.002"]
    assert [(tmp_path / name).stat().st_size for name in names] == [1000, 1000, 560]
    assert b"".join((tmp_path / name).read_bytes() for name in names) == data
    assert [hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in names] == [x for _, x in parts.sums]


@pytest.mark.parametrize("device", REQUIREMENTS)
def test_every_pin_of_the_project_is_read(device):
    path = ROOT / REQUIREMENTS[device]
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert len(pins(path)) == len(lines)
    assert ("ray", "2.60.0") in pins(path) and ("transferqueue", "0.1.11") in pins(path)


@pytest.mark.parametrize("device", REQUIREMENTS)
def test_a_wheel_of_each_pin_is_packed(device, tmp_path, monkeypatch):
    requirements, folder = ROOT / REQUIREMENTS[device], tmp_path / "wheels"
    folder.mkdir()
    lines = [line.partition("#")[0].partition(";")[0].strip() for line in requirements.read_text().splitlines()]
    for name, _, version in (line.partition("==") for line in lines if line):
        (folder / f"{bundle.normalised(name.partition('[')[0])}-{version}-py3-none-any.whl").touch()
    monkeypatch.setattr(bundle, "lean", lambda wheel, *_: wheel)
    entries = bundle.contents(BundleOptions(device=device), requirements, tmp_path)
    assert len(entries) == len(pins(requirements)) + 1


def test_a_pin_for_other_machines_is_left_out(tmp_path):
    path = tmp_path / "requirements.txt"
    path.write_text('a==1; python_version >= "3"\nb==2; platform_machine == "none"\nc[x]==3  # why\n')
    assert list(pins(path)) == [("a", "1"), ("c", "3")]


def test_wheels_are_known_by_name_and_version(tmp_path):
    (tmp_path / "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl").touch()
    (tmp_path / "mkdocs_get_deps-0.2.2-py3-none-any.whl").touch()
    assert set(packed(tmp_path)) == {("torch", "2.13.0"), ("mkdocs_get_deps", "0.2.2")}


def test_a_kernel_is_left_out_with_its_line_and_nothing_else(tmp_path):
    files = {"v/_vllm_fa3_C.abi3.so": b"3" * 1000, "v/_vllm_fa2_C.abi3.so": b"2", "v/__init__.py": b""}
    wheel = make_wheel(tmp_path, "vllm", "1.0", files)
    lean_wheel = lean(wheel, "_vllm_fa3_C.abi3.so", tmp_path / "lean")
    with zipfile.ZipFile(lean_wheel) as new, zipfile.ZipFile(wheel) as old:
        assert set(old.namelist()) - set(new.namelist()) == {"v/_vllm_fa3_C.abi3.so"}
        record = new.read("vllm-1.0.dist-info/RECORD").decode()
    assert "fa3" not in record and "v/_vllm_fa2_C.abi3.so,sha256=" in record
    assert lean(wheel, "", tmp_path / "lean") == wheel and lean(wheel, "other.so", tmp_path / "lean") == wheel


@pytest.mark.parametrize(
    "wrong", [{"device": "tpu"}, {"card": "volta"}, {"part_mb": 0}, {"wheel": "no/such/file.whl"}]
)
def test_what_cannot_be_meant_is_refused(wrong):
    with pytest.raises(ValueError, match=f"--{next(iter(wrong))}"):
        BundleOptions(**wrong)


SETUP = """\
prepare_environment() {
    python3 -m venv "$VENV"
    "$VENV/bin/python" -m pip install --quiet -r "$target/project/requirements.txt"
}
"""


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A repository with one pinned package, which pip finds in a folder alone."""
    index, root = tmp_path / "index", tmp_path / "root"
    index.mkdir()
    root.mkdir()
    make_wheel(index, "needed", "1.5", {"needed.py": b"answer = 42\n"})
    (root / "requirements.txt").write_text("# pins\nneeded==1.5\n")
    (root / "setup.sh").write_text(SETUP)
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one"]):
        subprocess.run(["git", "-C", root, *words], check=True)
    monkeypatch.setattr(bundle, "ROOT", root)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return root


def unpack(out: Path, target: Path) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environment["VENV"] = str(out / "of-somebody-else")  # an environment that is active for other work
    words = ["bash", out / "unpack.sh", target]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)


def test_what_is_packed_installs_without_a_network(project, tmp_path):
    out, target, besides = tmp_path / "out", tmp_path / "there", tmp_path / "besides"
    besides.mkdir()
    extra = make_wheel(besides, "extra", "1.0", {"extra.py": b""})
    report = bundle.bundle(BundleOptions(out=str(out), wheel=str(extra)))
    assert "2 wheels and the project" in report and f"Python {sys.version_info[0]}.{sys.version_info[1]}" in report
    ended = unpack(out, target)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert not (out / "of-somebody-else").exists()
    ask = [target / "project/.venv/bin/python", "-c", "import needed, extra; print(needed.answer)"]
    assert subprocess.run(ask, capture_output=True, text=True).stdout == "42\n"
    commit = ["git", "-C", target / "project", "log", "--format=%s"]
    assert subprocess.run(commit, capture_output=True, text=True).stdout == "one\n"


def test_a_damaged_part_is_said_and_nothing_is_unpacked(project, tmp_path):
    out, target = tmp_path / "out", tmp_path / "there"
    bundle.bundle(BundleOptions(out=str(out)))
    part = out / "bundle.tar.000"
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    ended = unpack(out, target)
    assert ended.returncode == 1 and "copy them again" in ended.stderr and not (target / "project").exists()


def test_another_bundle_is_not_taken_for_the_one_that_is_there(tmp_path):
    """The same one goes on; a newer one neither counts as unpacked nor overwrites what someone works in."""
    for name in ("one", "two"):
        project, out = tmp_path / name / "project", tmp_path / name
        project.mkdir(parents=True)
        (project / "setup.sh").write_text(f"prepare_environment() {{ echo project {name}; }}\n")
        bundle.write_parts(out, {"project": project}, 10**6, "cpu")
    target = tmp_path / "there"
    for _ in range(2):
        ended = unpack(tmp_path / "one", target)
        assert ended.returncode == 0 and "project one" in ended.stdout, ended.stderr
    ended = unpack(tmp_path / "two", target)
    assert ended.returncode == 1 and "holds another bundle" in ended.stderr and "done" not in ended.stdout
    assert "project two" in unpack(tmp_path / "two", tmp_path / "elsewhere").stdout


def test_more_than_a_thousand_parts_come_in_their_order_and_no_others(tmp_path):
    project, out = tmp_path / "project", tmp_path / "out"
    for folder in (project, out):
        folder.mkdir()
    data = os.urandom(1_200_000)
    (project / "data").write_bytes(data)
    (project / "setup.sh").write_text("prepare_environment() { :; }\n")
    bundle.write_parts(out, {"project": project}, 1000, "cpu")
    (out / "bundle.tar.5000").write_bytes(b"of a longer bundle")
    ended = unpack(out, tmp_path / "there")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "there/project/data").read_bytes() == data


def test_changes_that_would_be_missing_are_refused(project, tmp_path):
    (project / "setup.sh").write_text("changed")
    with pytest.raises(UserError, match="uncommitted changes"):
        bundle.bundle(BundleOptions(out=str(tmp_path / "out")))


def test_a_pin_that_pip_cannot_find_ends_with_what_pip_said(project, tmp_path):
    (project / "requirements.txt").write_text("needed==9\n")
    subprocess.run(
        ["git", "-C", project, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qam", "2"], check=True
    )
    with pytest.raises(UserError, match="(?s)needed==9.*the same command goes on"):
        bundle.bundle(BundleOptions(out=str(tmp_path / "out")))
