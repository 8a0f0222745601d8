"""Memory and time of building a benchmark from ratings that are not sorted by user.

    python benchmarks/dataset_builder.py                       # 100,000 and 1,000,000 users; minutes, 10 GB of disk
    python benchmarks/dataset_builder.py --users 10000 100000  # smaller

Writes simulated ratings in MovieLens' CSV format, users mixed at random, and runs the builder on them in a process of
its own, whose peak memory is the operating system's figure. The ratio is peak memory at the largest number of users to
that at the smallest: flat memory is a ratio near 1. The last line of output is one JSON object.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from alignxplore.command import Checkable, option, planned, run

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
        left = {}
        new = iter(range(1, users + 1))
        active: list[int] = []
        while True:
            while len(active) < 50_000 and (user := next(new, None)) is not None:
                active.append(user)
                left[user] = dice.randint(*RATINGS)
            if not active:
                return count
            place = dice.randrange(len(active))
            user = active[place]
            film = int(FILMS ** dice.random())
            out.write(f"{user},{film},4.0,{1_000_000_000 + dice.randrange(10**8)}\n")
            count += 1
            left[user] -= 1
            if not left[user]:
                del left[user]
                active[place] = active[-1]
                active.pop()


def build(folder: Path) -> dict:
    """Run the builder in a process of its own."""
    start = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "alignxplore.datasets",
        "build",
        "movielens",
        "--raw",
        str(folder),
        "--out",
        str(folder / "movielens_upi.jsonl"),
        "--min-interactions",
        "5",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[1])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the builder failed with status {status}")
    counts = json.loads((folder / "movielens_upi.build.json").read_text())["counts"]
    return {
        "seconds": time.monotonic() - start,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss / 1024,
        "users": counts["users kept"],
    }


@dataclass(kw_only=True)
class BuilderOptions(Checkable):
    """How large, and where."""

    users: list[int] = option("two numbers of users, few and many", [100_000, 1_000_000])
    scratch: str | None = option("where the simulated files are written; default: the system's place", None)

    def __post_init__(self) -> None:
        if len(self.users) != 2:
            raise ValueError("--users: give two numbers, few and many")


def compare(options: BuilderOptions) -> str | None:
    """Build both, and print what each took."""
    if options.check:
        return planned(options)
    results = []
    for users in options.users:
        with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
            ratings = simulate(Path(folder), users)
            result = build(Path(folder)) | {"ratings": ratings}
            result["gb_written"] = (Path(folder) / "movielens_upi.jsonl").stat().st_size / 1e9
        results.append(result)
        print(
            f"{users:,} users, {ratings:,} ratings: peak {result['peak_mb']:.0f} MB, {result['seconds']:.0f} s "
            f"({result['cpu']:.0f} s of processor), {result['users'] / result['seconds']:,.0f} users/s, "
            f"{result['gb_written']:.1f} GB written",
            flush=True,
        )
    few, many = results
    slope = (many["cpu"] / many["ratings"]) / (few["cpu"] / few["ratings"])
    print(f"processor time per rating, many against few users: {slope:.2f} (linear: 1)")
    print(
        json.dumps(
            {
                "name": "dataset_builder",
                "ratio": many["peak_mb"] / few["peak_mb"],
                "goal": "near 1, peak below 1000 MB",
                "ours": many["peak_mb"],
                "theirs": few["peak_mb"],
                "unit": "MB peak, many against few users",
                "n": many["users"],
                "users_per_second": many["users"] / many["seconds"],
                "time_per_rating": slope,
            }
        )
    )
    return None


if __name__ == "__main__":
    run(compare, BuilderOptions, __doc__)
