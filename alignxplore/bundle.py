"""Pack the project and its pinned environment for a machine without a network, as many clusters are.

    python -m alignxplore.bundle --out bundle                      # the GPU set; needs a network, and no GPU
    python -m alignxplore.bundle --out bundle --card hopper        # without what H100 and H200 do not need
    python -m alignxplore.bundle --out bundle --part_mb 1900       # files for a stick or a web form
    bash bundle/unpack.sh TARGET                                   # there: checks, unpacks, installs, compares

Needs nothing but Python and pip. It takes the wheels for the Python that runs it (3.11 or 3.12). So run it with the
version that the other machine has, on the same kind of processor. What only exists as source is built here.
Interrupted? The same command goes on. OUT holds `bundle.tar.NNN`, `SHA256SUMS` and `unpack.sh`; carry all of it.
FlashAttention is built against torch and stands in no list: give a wheel that fits by `--wheel`.
"""

import csv
import hashlib
import io
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from alignxplore.command import Plain, option, run
from alignxplore.environment import REQUIREMENTS, ROOT
from alignxplore.errors import UserError

# Kernels in vLLM's wheel that one kind of card never loads: FlashAttention 3 is for Hopper, which leaves 2 alone.
UNUSED = {
    "all": "",
    "ampere": "_vllm_fa3_C.abi3.so",
    "ada": "_vllm_fa3_C.abi3.so",
    "hopper": "_vllm_fa2_C.abi3.so",
}
AT_ONCE = 10  # wheels that pip is asked for in one go
PYTHON = ".".join(map(str, sys.version_info[:2]))
UNPACK = """\
#!/usr/bin/env bash
# Unpack the project and install its environment from what lies beside this file; no network is used.
#
#   bash unpack.sh TARGET      makes TARGET/project (with its .venv) and TARGET/wheels; the same command goes on
#
# Needs Python @PYTHON@ with venv (PYTHON=/path/to/it). No other environment is touched, whatever VENV says.
set -euo pipefail
[[ $# == 1 && $1 != -* ]] || { sed -n '2,7s/^# \\{0,1\\}//p' "$0"; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
target=$(cd "$1" && pwd)
read -r bundle _ < <(sha256sum <"$here/SHA256SUMS")    # which bundle this is
if [[ ! -e $target/.unpacked ]]; then
    (cd "$here" && sha256sum --quiet -c SHA256SUMS) ||
        { echo "unpack: parts are missing or damaged (above); copy them again" >&2; exit 1; }
    while read -r _ part; do cat "$here/$part"; done <"$here/SHA256SUMS" | tar -xf - -C "$target"
    echo "$bundle" >"$target/.unpacked"
elif [[ $(<"$target/.unpacked") != "$bundle" ]]; then
    echo "unpack: $target holds another bundle; name a new TARGET, or move that one away" >&2
    exit 1
fi
export PIP_NO_INDEX=1 PIP_FIND_LINKS=$target/wheels PIP_CONFIG_FILE=/dev/null DEVICE=@DEVICE@
export VENV=$target/project/.venv
source "$target/project/setup.sh"
prepare_environment
for wheel in "$target"/wheels/besides/*.whl; do
    [[ ! -e $wheel ]] || "$VENV/bin/python" -m pip install --quiet --no-deps "$wheel"
done
echo "unpack: done; source $VENV/bin/activate, then see $target/project/README.md"
"""


@dataclass(kw_only=True)
class BundleOptions(Plain):
    """For which machine, in which portions."""

    out: str = option("folder for the parts", "bundle")
    device: str = option("gpu (requirements.txt) or cpu (requirements-cpu.txt)", "gpu")
    card: str = option(f"leave out kernels that it does not load: one of {', '.join(UNUSED)}", "all")
    part_mb: int = option("size of a part at most, in MB", 1900)
    wheel: str = option("a wheel to install besides, such as FlashAttention's", "")
    check: bool = option("say what would be packed, and what is there; change nothing", False)

    def __post_init__(self) -> None:
        if self.device not in REQUIREMENTS:
            raise ValueError(f"--device {self.device}: gpu or cpu")
        if self.card not in UNUSED:
            raise ValueError(f"--card {self.card}: one of {', '.join(UNUSED)}")
        if self.part_mb < 1:
            raise ValueError(f"--part_mb {self.part_mb}: at least 1")
        if self.wheel and not Path(self.wheel).is_file():
            raise ValueError(f"--wheel {self.wheel}: no such file")


def normalised(name: str) -> str:
    """Of a distribution, as wheels are named: `Ray-Default` → `ray_default`."""
    return re.sub(r"[-_.]+", "_", name).lower()


def pins(path: Path) -> dict[tuple[str, str], str]:
    """(name, version) → the pin as it is written, of each line of a requirement file that is for this machine.
    Lines are read by pip's own copy of `packaging`: a bare Python has no other."""
    from pip._vendor.packaging.requirements import Requirement

    pin_of = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if pin := line.partition("#")[0].strip():
            requirement = Requirement(pin)
            if requirement.marker is None or requirement.marker.evaluate():
                (exact,) = requirement.specifier
                pin_of[normalised(requirement.name), exact.version] = pin
    return pin_of


def packed(wheels: Path) -> dict[tuple[str, str], Path]:
    """(name, version) → wheel, of each that is there; a build's own mark (`+cpu`) is left out."""
    parts_and_paths = ((path.name.split("-"), path) for path in sorted(wheels.glob("*.whl")))
    return {(normalised(parts[0]), parts[1].partition("+")[0]): path for parts, path in parts_and_paths}


def fetch(requirements: Path, wheels: Path, log: Path) -> None:
    """Wheels of all pins that are not there yet.

    Raises:
        UserError: pip failed.
    """
    wheels.mkdir(parents=True, exist_ok=True)
    all_pins = pins(requirements)
    missing_pins = [pin for key, pin in all_pins.items() if key not in packed(wheels)]
    for start in range(0, len(missing_pins), AT_ONCE):
        print(f"bundle: {len(all_pins) - len(missing_pins) + start} of {len(all_pins)} wheels", flush=True)
        batch = missing_pins[start : start + AT_ONCE]
        pip("wheel", "--no-deps", "--wheel-dir", str(wheels), *batch, log=log)


def pip(*words: str, log: Path) -> None:
    """One command of pip; all that it says goes to the log.

    Raises:
        UserError: it failed; with its last lines.
    """
    command = [sys.executable, "-m", "pip", *words, "--no-input", "--disable-pip-version-check"]
    with open(log, "a", encoding="utf-8") as log_file:
        log_file.write(f"\n== {' '.join(command)}\n")
        log_file.flush()
        process = subprocess.run(command, stdout=log_file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    if process.returncode:
        last_lines = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
        raise UserError(f"pip failed:\n{last_lines}\nall of it is in {log}; the same command goes on")


def lean(wheel: Path, name: str, folder: Path) -> Path:
    """The wheel without the files of that name and their lines of RECORD, in `folder`; itself, if it has none."""
    with zipfile.ZipFile(wheel) as source:
        kernel_files = [member for member in source.infolist() if member.filename.endswith("/" + name)]
        if not name or not kernel_files:
            return wheel
        folder.mkdir(exist_ok=True)
        with zipfile.ZipFile(folder / wheel.name, "w", zipfile.ZIP_DEFLATED) as target:
            for member in source.infolist():
                if member not in kernel_files:
                    data = source.read(member)
                    target.writestr(
                        member, without(data, kernel_files) if member.filename.endswith("/RECORD") else data
                    )
    return folder / wheel.name


def without(record: bytes, members: list[zipfile.ZipInfo]) -> bytes:
    """RECORD without the lines of these files."""
    names, text = {member.filename for member in members}, io.StringIO()
    rows = csv.reader(io.StringIO(record.decode("utf-8")))
    csv.writer(text, lineterminator="\n").writerows(row for row in rows if row and row[0] not in names)
    return text.getvalue().encode("utf-8")


class Parts(io.RawIOBase):
    """A file to write that is several, of at most `size` bytes each; `sums` are their names and SHA-256."""

    def __init__(self, folder: Path, size: int):
        super().__init__()
        self.folder, self.size = folder, size
        self.sums: list[tuple[str, str]] = []
        self._file: BinaryIO | None = None
        self._room, self._sum = 0, hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        remainder = memoryview(data).cast("B")
        while len(remainder):
            if not self._room:
                self._next()
            portion, remainder = remainder[: self._room], remainder[self._room :]
            assert self._file is not None
            self._file.write(portion)
            self._sum.update(portion)
            self._room -= len(portion)
        return len(data)

    def _next(self) -> None:
        self._end()
        self._sum, self._room = hashlib.sha256(), self.size
        self._file = open(self.folder / f"bundle.tar.{len(self.sums):03d}", "wb")

    def _end(self) -> None:
        if self._file is not None:
            self._file.close()
            self.sums.append((Path(self._file.name).name, self._sum.hexdigest()))
            self._file = None

    def close(self) -> None:
        self._end()
        super().close()


def pack(out: Path, contents: dict[str, Path], size: int) -> list[tuple[str, str]]:
    """Files and folders (name inside → where it is) as parts in `out`; the names and sums of these."""
    for part in out.glob("bundle.tar.*"):
        part.unlink()
    parts = Parts(out, size)
    with parts, tarfile.open(fileobj=parts, mode="w|") as tar:
        for name, path in contents.items():
            tar.add(path, arcname=name)
    return parts.sums


def write_parts(out: Path, entries: dict[str, Path], size: int, device: str) -> list[Path]:
    """All that is carried: the parts (their paths), of at most `size` bytes each, their sums and `unpack.sh`."""
    sums = pack(out, entries, size)
    (out / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in sums), encoding="utf-8")
    unpack = UNPACK.replace("@DEVICE@", device).replace("@PYTHON@", PYTHON)
    (out / "unpack.sh").write_text(unpack, encoding="utf-8")
    return [out / name for name, _ in sums]


def clone_project(target: Path) -> None:
    """The project at its commit, as a clone, so that results there name it.

    Raises:
        UserError: this is no clone, or has changes that would be missing.
    """
    git = ["git", "-C", str(ROOT)]
    changes = subprocess.run([*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True)
    if changes.returncode or changes.stdout.strip():
        raise UserError(f"{ROOT} must be a git clone without uncommitted changes: what is packed is its commit")
    shutil.rmtree(target, ignore_errors=True)
    words = ["git", "clone", "--quiet", "--depth", "1", f"file://{ROOT}", str(target)]
    process = subprocess.run(words, capture_output=True, text=True)
    if process.returncode:
        raise UserError(f"git: {process.stderr.strip()}")
    subprocess.run(["git", "-C", str(target), "remote", "remove", "origin"], check=True)


def contents(options: BundleOptions, requirements: Path, work: Path) -> dict[str, Path]:
    """Name inside the bundle → what it is made of."""
    wheel_of, kernel = packed(work / "wheels"), UNUSED[options.card]
    wheels = [wheel_of[pin] for pin in pins(requirements)]
    wheels = [lean(wheel, kernel, work / "lean") if wheel.name.startswith("vllm-") else wheel for wheel in wheels]
    extra = {f"wheels/besides/{Path(options.wheel).name}": Path(options.wheel)} if options.wheel else {}
    return {f"wheels/{wheel.name}": wheel for wheel in wheels} | extra | {"project": work / "project"}


def bundle(options: BundleOptions) -> str:
    """Wheels, project, parts."""
    requirements, out = ROOT / REQUIREMENTS[options.device], Path(options.out).resolve()
    work, log = out / "work", out / "pip.log"
    if options.check:
        all_pins, wheel_of = pins(requirements), packed(work / "wheels")
        wheel_count = sum(pin in wheel_of for pin in all_pins)
        where = f"of {len(all_pins)} wheels of {requirements.name} are in {work / 'wheels'}"
        return f"{wheel_count} {where}; nothing was changed"
    work.mkdir(parents=True, exist_ok=True)
    clone_project(work / "project")
    fetch(requirements, work / "wheels", log)
    without_network = ("--no-index", "--find-links", str(work / "wheels"), "-r", str(requirements))
    resolver = ("--no-deps",) if options.device == "cpu" else ()  # as setup.sh installs them
    pip("install", "--dry-run", "--ignore-installed", *resolver, *without_network, log=log)
    entries = contents(options, requirements, work)
    paths = write_parts(out, entries, options.part_mb * 10**6, options.device)
    total = sum(path.stat().st_size for path in paths)
    return (
        f"{len(entries) - 1} wheels and the project: {total / 1e9:.2f} GB in {len(paths)} parts in {out}; {work} may "
        f"be deleted. There: bash unpack.sh TARGET, with Python {PYTHON}"
    )


if __name__ == "__main__":
    run(bundle, BundleOptions, __doc__)
