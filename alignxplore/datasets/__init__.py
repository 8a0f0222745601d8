"""The benchmarks by name: task, default query, column of the paper's tables, and the module that builds each from raw
files.

    python -m alignxplore.datasets list
    python -m alignxplore.datasets describe movielens
    python -m alignxplore.datasets build movielens --raw ml-32m --out movielens_upi.jsonl

Published ready-made files (`<name>_upi.jsonl`) need no building: `locate` finds them in a folder or on the hub.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from alignxplore.records import check_file

PUBLISHED = "VanillaH1/AlignXplorePlus-Benchmark"  # the authors' ready-made files on the hub
DEFAULT_QUERY = "what stands in for null queries; default: that of the data set which the file is named after"


@dataclass(frozen=True)
class Dataset:
    """What the project knows about one benchmark.

    Attributes:
        name: published name, as in `<name>_upi.jsonl`.
        column: heading of its column in the paper's tables ("" for the simulated world).
        task: "recommendation" (what will the user take next), "selection" (which answer does the user prefer) or
            "generation" (write the answer). It decides how a history is cut into stages.
        default_query: stands in where a row's query is null ("": it stays null).
        module: module of `alignxplore.datasets` that builds it; None where the rows come from `alignxplore.world`.
        layouts: raw files that `--raw` may hold, one line for each official layout.
        terms: licence of the raw data.
        protocols: how the rejected item is drawn; the first is the default, and the published way where that is known.
        min_interactions: of a user who is kept, the target included (published value).
        split: of the users, as published.
        editions: raw files of the published benchmark as the builders name them; empty where there is but one edition.
        public: how the published benchmark was made of the raw files is public. Where it is not, what is built here is
            another benchmark.
        published: command-line options that give the published benchmark, or come nearest to it.
        where: what must be known of where the raw files are.
        in_domain: the paper's policy was trained on this set.
        sampled: it tells what users took only, so that targets can be choices among k items with drawn alternatives.
        whole: it tells all that was offered, so that targets can be whole choices.
        windows: it tells what users took in the order of time, and its builder gives a user the rows of `Job.rows`.
    """

    name: str
    column: str
    task: str
    default_query: str
    module: str | None = None
    layouts: tuple[str, ...] = ()
    terms: str = ""
    protocols: tuple[str, ...] = ("published",)
    min_interactions: int = 2
    split: str = "all"
    editions: tuple[str, ...] = ()
    public: bool = True
    published: str = ""
    where: str = ""
    in_domain: bool = False
    sampled: bool = False
    whole: bool = False
    windows: bool = False


_ANSWER = "Answer in the way that I prefer."
_BALANCED = ("published", "matched")
_PSOUPS_TERMS = "none stated by AlignX-Family nor by RLPHF, where the texts come from"

_ALL = (
    Dataset(
        "mind",
        "MIND",
        "recommendation",
        "Recommend a news article that I would like to read.",
        "mind",
        ("news.tsv and behaviors.tsv, or folders MIND{small,large}_{train,dev} that hold them",),
        "Microsoft Research License Terms: non-commercial research only",
        protocols=("published", "matched", "matched_both"),
        min_interactions=9,
        split="test",
        editions=("MINDsmall", "MINDlarge"),  # which of the two is not published
        published="--split test --users 3000 --markup kept",
        in_domain=True,
        whole=True,
        windows=True,
    ),
    Dataset(
        "amazon",
        "Amazon",
        "recommendation",
        "Recommend a product that I would like to buy.",
        "amazon",
        (
            "2018: <Category>_5.json(.gz) and meta_<Category>.json(.gz)",
            "2023: <Category>.jsonl(.gz) and meta_<Category>.jsonl(.gz), also as raw/review_categories and "
            "raw/meta_categories of the hub",
            "2023, ready-made: <Category>.csv(.gz) or .parquet of benchmark/5core/rating_only, beside the metadata "
            "(also meta_<Category>.parquet)",
        ),
        "none stated; ask its authors before redistributing",
        protocols=("published", "reviewed", "matched", "matched_both", "liked"),
        min_interactions=17,
        split="test",
        editions=("Books_5 of 2018",),
        published="--split test --users 3000 --markup kept (category Books, 2018)",
        where="The 2018 files are no longer at their old place (datarepo.eng.ucsd.edu). Those of 2023 stand in for "
        "them: McAuley-Lab/Amazon-Reviews-2023 on the hub, or mcauleylab.ucsd.edu/public_datasets/data/amazon_2023. "
        "What is built of them is not the published benchmark.",
        in_domain=True,
        sampled=True,
        windows=True,
    ),
    Dataset(
        "movielens",
        "MovieLens",
        "recommendation",
        "Recommend a movie that I would like to watch.",
        "movielens",
        (
            "ml-32m, ml-25m, ml-20m, ml-latest, ml-latest-small: ratings.csv and movies.csv",
            "ml-20m of Kaggle: rating.csv and movie.csv",
            "ml-1m, ml-10m: ratings.dat and movies.dat",
            "ml-100k: u.data and u.item",
        ),
        "GroupLens: research, non-commercial, acknowledgement; 100K and 1M may not be redistributed",
        protocols=("published", "matched", "matched_both", "liked"),
        min_interactions=17,
        split="test",
        editions=("ml-32m",),
        published="--split test --users 3000 (ml-32m)",
        sampled=True,
        windows=True,
    ),
    Dataset(
        "alignx",
        "AlignX",
        "selection",
        _ANSWER,
        "alignx",
        ("*.json or *.jsonl with AlignX rows (AlignX, AlignX-test)",),
        "none stated",
        protocols=_BALANCED,
        public=False,
        published="--users 3000",
        in_domain=True,
    ),
    Dataset(
        "personamem",
        "PersonaMem",
        "selection",
        _ANSWER,
        "personamem",
        (
            "v1: questions_{32k,128k,1M}.csv and shared_contexts_{32k,128k,1M}.jsonl",
            "v2: benchmark/text/benchmark.csv and data/chat_history_32k/*.json",
        ),
        "v1 MIT, v2 CC-BY-4.0",
        protocols=("evidence", "matched", "chat"),
        public=False,
        published="v2, --users 5000",
        whole=True,
    ),
    *(
        Dataset(name, column, "selection", _ANSWER, "psoups", (f"{name}.json",), _PSOUPS_TERMS, _BALANCED)
        for name, column in (
            ("concise_detail", "Info."),
            ("friendly_unfriendly", "Style"),
            ("student_phd", "Expertise"),
        )
    ),
    Dataset(
        "hicupid",
        "HiCUPID",
        "generation",
        _ANSWER,
        "hicupid",
        ("dialogue and qa subsets: folders or files named dialogue*, qa* (JSON, JSONL or parquet)",),
        "Apache-2.0",
        protocols=("published", "matched", "evidence"),
        public=False,
        published="--protocol evidence",
    ),
    Dataset("world_films", "", "selection", ""),
    Dataset("world_news", "", "selection", ""),
)
DATASETS = {dataset.name: dataset for dataset in _ALL}


def get(name: str) -> Dataset:
    """The dataset of that name.

    Raises:
        KeyError: unknown, with the names there are.
    """
    if name not in DATASETS:
        raise KeyError(f"no data set named '{name}'; there are: {', '.join(DATASETS)}")
    return DATASETS[name]


def name_of(path: str | Path) -> str | None:
    """The data set a benchmark file belongs to, by its name: `mind_upi.jsonl`, `test_world_films_upi.jsonl` → the
    known name."""
    stem = Path(path).name.removesuffix(".jsonl").removesuffix("_upi")
    names = [name for name in DATASETS if re.search(rf"(?:^|[_.-]){name}(?:$|[_.-])", stem)]
    return max(names, key=len, default=None)


def default_query(path: str | Path, query: str | None = None) -> str | None:
    """What stands in for a null query in this file: what is given, else the default of the data set that it is named
    after."""
    return query or (DATASETS[name].default_query if (name := name_of(path)) else "") or None


def locate(data: str | Path = PUBLISHED, names: list[str] | None = None) -> dict[str, Path]:
    """Benchmark files by data set name, from a file, a folder of `<name>_upi.jsonl` files, or a data set on the hub.

    Args:
        data: path, or hub id[@revision] such as the default. With HF_HUB_OFFLINE=1 the hub's local cache is used.
        names: only these, in this order; a missing one is an error. None: all that are there.

    Raises:
        FileNotFoundError: with what was looked for and where.
        ValueError: two files of one name.
    """
    path = Path(data)
    if path.is_dir():
        files = sorted(path.glob("*_upi.jsonl"))
    elif path.exists():
        check_file(path)
        files = [path]
    else:
        files = sorted(_download(str(data), names).rglob("*_upi.jsonl"))
    path_of: dict[str, Path] = {}
    for file in files:
        name = name_of(file) or file.stem.removesuffix("_upi")
        if name in path_of and name in (names or path_of):
            raise ValueError(
                f"{data}: {path_of[name].name} and {file.name} are both {name}; name the files, each of another name, "
                "or move one away"
            )
        path_of[name] = file
    absent_names = [name for name in names or () if name not in path_of]
    if absent_names or not path_of:
        raise FileNotFoundError(
            f"{data}: no {', '.join(f'{x}_upi.jsonl' for x in absent_names) or '*_upi.jsonl'} here; it holds: "
            f"{', '.join(path_of) or 'no benchmark file'}"
        )
    return {name: path_of[name] for name in names} if names else path_of


def hub_of(path: str | Path) -> str | None:
    """owner/name@commit of a file that lies in a snapshot of the hub's cache; None for any other file."""
    match = re.search(r"/datasets--([\w.-]+?)--([\w.-]+)/snapshots/(\w+)/", Path(path).absolute().as_posix())
    return "{}/{}@{}".format(*match.groups()) if match else None


def _download(source: str, names: list[str] | None) -> Path:
    """Folder of the snapshot that holds the benchmarks of a hub data set and what lies beside them."""
    repository, _, revision = source.partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository) or repository.startswith((".", "/")):
        raise FileNotFoundError(
            f"{source}: neither a file nor a folder nor a hub id (owner/name or owner/name@revision)"
        )
    from huggingface_hub import snapshot_download

    offline = os.environ.get("HF_HUB_OFFLINE", "0") not in ("0", "")
    patterns = [f"*{name}_upi.*json*" for name in names or ("",)]
    return Path(
        snapshot_download(
            repository,
            repo_type="dataset",
            revision=revision or None,
            allow_patterns=patterns,
            local_files_only=offline,
        )
    )
