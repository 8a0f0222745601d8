"""Users a second and memory of building a benchmark from ratings that are not sorted by user.

    python benchmarks/dataset_builder.py                       # 100,000 and 1,000,000 users; minutes, 10 GB of disk
    python benchmarks/dataset_builder.py --users 10000 100000  # smaller

Writes simulated ratings in MovieLens' CSV format, users mixed at random, and builds a benchmark of them. Few users are
built twice: by this commit, and by the last builder that sorted and grouped in Python (`--before`, from this
repository's history). Both must give the same users, choices and counts; what is set against a choice is drawn in
another way. Then many users are built by this commit. Memory is the peak of all processes together, looked at five
times a second; what they share counts once. The ratio is that of users a second, on the few users. The last line of
output is one JSON object.
"""

import hashlib
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import alignxplore  # noqa: F401  # isort: skip  # hears Ctrl-C from here on

import psutil

from alignxplore.command import Checkable, option, planned, run

ROOT = Path(__file__).resolve().parents[1]
GOAL = 20_000  # users a second on two cores
FILMS, RATINGS = 20_000, (17, 23)  # ratings of one user: the published minimum and a few more


def simulate(folder: Path, users: int, seed: int = 0) -> int:
    """Write movies.csv and ratings.csv; returns the number of ratings. Popularity falls off like 1/rank."""
    dice = random.Random(seed)
    with (folder / "movies.csv").open("w") as out:
        out.write("movieId,title,genres\n")
        for film in range(1, FILMS + 1):
            out.write(f"{film},Film number {film} ({1950 + film % 70}),Drama|Genre {film % 19}\n")
    count = 0
    with (folder / "ratings.csv").open("w") as out:
        out.write("userId,movieId,rating,timestamp\n")
        # A window of users that are all still rating: consecutive rows almost never belong to one user.
        ratings_left = {}
        arrivals = iter(range(1, users + 1))
        active: list[int] = []
        while True:
            while len(active) < 50_000 and (user := next(arrivals, None)) is not None:
                active.append(user)
                ratings_left[user] = dice.randint(*RATINGS)
            if not active:
                return count
            place = dice.randrange(len(active))
            user = active[place]
            film = int(FILMS ** dice.random())
            out.write(f"{user},{film},4.0,{1_000_000_000 + dice.randrange(10**8)}\n")
            count += 1
            ratings_left[user] -= 1
            if not ratings_left[user]:
                del ratings_left[user]
                active[place] = active[-1]
                active.pop()


@dataclass
class Built:
    """What a build took and made."""

    seconds: float
    cpu: float
    peak_mb: float
    users: int
    gb: float
    content: str

    @property
    def rate(self) -> float:
        """Users a second of wall time."""
        return self.users / self.seconds


def build(folder: Path, library: Path) -> Built:
    """Run the builder of a library in processes of its own."""
    out, start = folder / "movielens_upi.jsonl", time.monotonic()
    command = [sys.executable, "-m", "alignxplore.datasets", "build", "movielens", "--min-interactions", "5"]
    paths = ["--raw", str(folder), "--out", str(out)]
    process = psutil.Popen([*command, *paths], stdout=subprocess.DEVNULL, cwd=library)
    peak, cpu = 0.0, 0.0
    while process.poll() is None:
        usage = [taken(member) for member in (process, *children(process))]
        peak, cpu = max(peak, sum(memory for memory, _ in usage)), max(cpu, sum(seconds for _, seconds in usage))
        time.sleep(0.2)
    seconds = time.monotonic() - start
    if process.returncode:
        raise SystemExit(f"the builder failed with status {process.returncode}")
    counts = json.loads((folder / "movielens_upi.build.json").read_text())["counts"]
    return Built(seconds, cpu, peak / 2**20, counts["users kept"], out.stat().st_size / 1e9, content(out, counts))


def content(out: Path, counts: dict[str, int]) -> str:
    """Hash of a benchmark without what was drawn."""
    draw_count = "rejected items that nobody had taken before the choice"
    digest = hashlib.sha256(
        json.dumps({name: count for name, count in counts.items() if name != draw_count}, sort_keys=True).encode()
    )
    with out.open("rb") as lines:
        for line in lines:
            digest.update(re.sub(rb'"rejected": "(?:[^"\\]|\\.)*"', b"", line))
    return digest.hexdigest()


def children(process: psutil.Process) -> list[psutil.Process]:
    """All that a process started and that still runs."""
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def taken(process: psutil.Process) -> tuple[float, float]:
    """Bytes (of what is shared a part) and seconds of processor of a process; nothing of one that has ended."""
    try:
        times = process.cpu_times()
        return process.memory_full_info().pss, times.user + times.system
    except psutil.Error:
        return 0.0, 0.0


def library_of(commit: str, folder: Path) -> Path:
    """The library as it was at a commit."""
    process = subprocess.run(["git", "archive", commit, "alignxplore"], cwd=ROOT, capture_output=True)
    if process.returncode:
        raise ValueError(f"--before {commit}: {process.stderr.decode().strip()}; the whole history is needed")
    subprocess.run(["tar", "-x", "-C", folder], input=process.stdout, check=True)
    return folder


@dataclass(kw_only=True)
class BuilderOptions(Checkable):
    """How large, against what, and where."""

    users: list[int] = option("two numbers of users, few and many", [100_000, 1_000_000])
    before: str = option("commit of the builder that is compared with", "9b45f15")
    scratch: str | None = option("where the simulated files are written; default: the system's place", None)

    def __post_init__(self) -> None:
        if len(self.users) != 2:
            raise ValueError("--users: give two numbers, few and many")
        if min(self.users) < 1:
            raise ValueError(f"--users {min(self.users)}: at least 1")


def compare(options: BuilderOptions) -> str | None:
    """Build both, and print what each took."""
    if options.check:
        return planned(options)
    small_size, large_size = options.users
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        folder = Path(name)
        for part in ("old", "few", "many"):
            (folder / part).mkdir()
        old_library = library_of(options.before, folder / "old")
        ratings = {
            users: simulate(folder / part, users) for part, users in (("few", small_size), ("many", large_size))
        }
        old_build = report("before", build(folder / "few", old_library), ratings[small_size])
        new_build = report("now", build(folder / "few", ROOT), ratings[small_size])
        large_build = report("now", build(folder / "many", ROOT), ratings[large_size])
    if new_build.content != old_build.content:
        raise SystemExit("the two builders do not write the same users, choices and counts")
    print(
        json.dumps(
            {
                "name": "dataset_builder",
                "ratio": new_build.rate / old_build.rate,
                "goal": f"{GOAL} users a second on two cores that do nothing else, below 1000 MB",
                "ours": new_build.rate,
                "theirs": old_build.rate,
                "unit": "users a second of wall time",
                "n": new_build.users,
                "users_per_second": large_build.rate,
                "users": large_build.users,
                "peak_mb": large_build.peak_mb,
                "processor_ratio": old_build.cpu / new_build.cpu,
                "processor_ms_per_user": 1000 * large_build.cpu / large_build.users,
            }
        )
    )
    return None


def report(name: str, result: Built, ratings: int) -> Built:
    """Print one build."""
    print(
        f"{name}: {result.users:,} users, {ratings:,} ratings: {result.seconds:.0f} s "
        f"({result.cpu:.0f} s of processor), "
        f"{result.rate:,.0f} users/s, peak {result.peak_mb:.0f} MB, {result.gb:.1f} GB written",
        flush=True,
    )
    return result


if __name__ == "__main__":
    run(compare, BuilderOptions, __doc__)
