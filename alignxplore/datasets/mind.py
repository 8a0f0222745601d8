"""MIND → records: a user's click history, then the clicks in later impressions in order of time.

    python -m alignxplore.datasets build mind --raw DIR --out mind_upi.jsonl

Reads `news.tsv` and `behaviors.tsv` from the folder or from the folders in it (MINDsmall_train, MINDsmall_dev, ...); a
user's longest history counts. The order of files and lines changes nothing. What is set against a clicked article:

* published: for a click of the history (whose impression is unknown) any listed article; for a click in an impression
  an article of the same impression that was not clicked. So targets are mostly harder than the history.
* matched: an article about as popular; of the same impression where that holds fitting ones. A click that has no such
  article is dropped and counted.
* matched_both: as popular before the click as well, for a click in an impression. When an article of the history was
  clicked is not told: it is matched over all time, and a target of that kind has no popularity before it.

How popular an article was at a moment is what the impressions before it tell (histories and clicks).

With `--whole` the target is the last impression, all of it (impressions.py), and the history what was clicked before.

A user is kept whose clicks with something set against them are enough (--min-interactions).
"""

import random
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

from alignxplore.datasets import impressions
from alignxplore.datasets.building import Example, Job
from alignxplore.datasets.catalogue import Catalogue
from alignxplore.datasets.drawing import Choice, Sampler, sampler_of
from alignxplore.datasets.engine import Engine
from alignxplore.datasets.groups import UserGroups
from alignxplore.datasets.parts import Drawer, Records
from alignxplore.datasets.recommendation import Pair, finish
from alignxplore.datasets.takings import Others, Takings
from alignxplore.records import RecordError, hash_seed
from alignxplore.texts import table_id

_EDITIONS = {156_965 + 73_152: "MINDsmall", 2_232_748 + 376_471: "MINDlarge"}  # by the impressions of train and dev


class Click(NamedTuple):
    """An article, when it was clicked (None: before the first impression), and the unclicked ones beside it."""

    item: int
    time: int | None
    unclicked: list[int]


def sources(job: Job) -> list[Path]:
    """The raw files that `build` reads; FileNotFoundError for another layout, ValueError for several editions."""
    news, behaviors = job.find("news.tsv"), job.find("behaviors.tsv")
    if not news or not behaviors:
        raise job.unknown_layout()
    # MINDsmall is a part of MINDlarge: its impressions would count twice.
    folders = " ".join(str(path.relative_to(job.raw).parent).lower() for path in behaviors)
    editions = sorted({f"MIND{size}" for size in re.findall("mind(small|large|demo)", folders)})
    if len(editions) > 1:
        raise ValueError(f"{job.raw}: holds several editions ({', '.join(editions)}); give a folder with one")
    return [*news, *behaviors]


def build(job: Job) -> Records:
    """Records of all the folders of a MIND edition taken together."""
    files = sources(job)
    news, behaviors = ([path for path in files if path.name == name] for name in ("news.tsv", "behaviors.tsv"))
    with Engine(job) as engine:
        catalogue = Catalogue(engine.folder)
        for path in news:
            _add_news(path, catalogue, job)
        catalogue.sort()
        catalogue.close()
        groups = UserGroups(engine, job)
        for path in behaviors:
            _add_behaviors(path, catalogue, groups, job)
        impression_count = job.counts["impressions read"]
        job.edition = _EDITIONS.get(impression_count, f"{impression_count:,} impressions")
        job.counts["users read"] = len(groups)
        takings = _takings(engine, len(catalogue))
        return Records(engine, job, MindDrawer(job, catalogue, takings), groups.chunks, len(groups))


def _add_news(path: Path, catalogue: Catalogue, job: Job) -> None:
    for number, line in job.lines(path):
        fields = line.split("\t")
        if len(fields) != 8:
            raise RecordError(f"found {len(fields)} fields, news.tsv has 8", path, number)
        if fields[3].lower() == "title" and fields[4].lower() == "abstract":
            raise RecordError("a header, which news.tsv has not; delete this line", path, number)
        job.counts["news read"] += 1
        title, abstract = job.plain(fields[3]), job.plain(fields[4])
        if title.strip():
            text = f"Title: {title}" + (f"\nAbstract: {abstract}" if abstract.strip() else "")
            catalogue.add(fields[0], text, "news article", job)
        else:
            job.counts["dropped: an article without a title"] += 1


def _add_behaviors(path: Path, catalogue: Catalogue, groups: UserGroups, job: Job) -> None:
    """Each impression as: time, history, clicked, unclicked (numbers of listed articles)."""
    numbers = {key: str(number) for key, number in catalogue.index.items()}
    for number, line in job.lines(path):
        fields = line.split("\t")
        try:
            impression, user, timestamp, history, articles_shown = fields
            time = seconds(timestamp)
        except ValueError:
            raise RecordError(
                "expected 5 fields: impression, user, time like 11/11/2019 9:05:58 AM, history, impressions",
                path,
                number,
            ) from None
        articles = table_id(history).split()
        # The test set has no labels: nothing to learn.
        labels = [article.rpartition("-") for article in articles_shown.split()]
        if odd := next((x for x in labels if x[1] and x[2] not in ("0", "1")), None):
            problem = f"{''.join(odd)!r:.60} ends neither in -1, clicked, nor in -0; repair or delete this line"
            raise RecordError(problem, path, number, "impressions")
        lists = (
            articles,
            [a for a, _, label in labels if label == "1"],
            [a for a, _, label in labels if label == "0"],
        )
        number_lists = [[numbers[article] for article in names if article in numbers] for names in lists]
        job.counts["impressions read"] += 1
        if not table_id(user):
            job.counts["dropped: an impression without a user"] += 1
            continue
        job.counts["impressions with an empty history"] += not articles
        if job.whole:
            job.counts["left out of an impression: not listed"] += len(lists[2]) - len(number_lists[2])
        job.counts["dropped: a clicked article is not listed"] += sum(map(len, lists[:2])) - sum(
            map(len, number_lists[:2])
        )
        groups.add(user, "\t".join([str(time), impression, *(" ".join(names) for names in number_lists)]))


def seconds(timestamp: str) -> int:
    """Seconds since 1970 of a time like 11/11/2019 9:05:58 AM; ValueError for another form."""
    day, clock, half = timestamp.split(" ")
    hours, minutes, seconds = map(int, clock.split(":"))
    if not (1 <= hours <= 12 and 0 <= minutes < 60 and 0 <= seconds < 60 and half.upper() in ("AM", "PM")):
        raise ValueError("no time of a day")
    return _midnight(day) + 3600 * (hours % 12 + 12 * (half.upper() == "PM")) + 60 * minutes + seconds


@lru_cache(maxsize=1 << 10)
def _midnight(day: str) -> int:
    return int(datetime.strptime(day, "%m/%d/%Y").replace(tzinfo=UTC).timestamp())


def _clicks(rows: list[str]) -> tuple[list[Click], dict[int, int]]:
    """A user's clicks in order (the longest history, of several the first one, then impressions by time), and when
    each article ever clicked was known to be: the time of the first impression that tells of it."""
    impressions: list[tuple[int, str, list[str], list[str], list[int]]] = []
    time_of: dict[int, int] = {}
    for row in rows:
        moment, impression, *lists = row.split("\t")
        time = int(moment)
        history, clicked, unclicked = (names.split() for names in lists)
        for item in map(int, (*history, *clicked)):
            time_of[item] = min(time, time_of.get(item, time))
        impressions.append((time, impression, history, clicked, [int(item) for item in unclicked]))
    impressions.sort()
    longest_history = max((history for _, _, history, _, _ in impressions), key=len)  # the first one by time
    clicks = [Click(int(item), None, []) for item in longest_history]
    for time, _, _, clicked, passed_over in impressions:
        clicks += [Click(int(item), time, passed_over) for item in clicked]
    return clicks, time_of


def _takings(engine: Engine, articles: int) -> Takings:
    """When each user's articles were first known to be clicked, out of the rows as `_add_behaviors` writes them."""
    parts = 'SELECT "user", string_split(text, chr(9)) AS part FROM rows'
    clicks = "unnest(string_split(part[3] || ' ' || part[4], ' '))"
    engine.run(
        "CREATE TABLE taken AS SELECT item::INTEGER AS item, min(time) AS time FROM "
        f'(SELECT "user", part[1]::BIGINT AS time, {clicks} AS item FROM ({parts})) '
        "WHERE item <> '' GROUP BY \"user\", item",
        "clicks",
    )
    return Takings(engine, "taken", articles)


class MindDrawer(Drawer):
    """Makes rows of what users clicked."""

    def __init__(self, job: Job, catalogue: Catalogue, takings: Takings):
        super().__init__(job)
        self.catalogue, self.takings = catalogue, takings

    @cached_property
    def everywhere(self) -> Sampler:
        """Draws from all articles."""
        articles = range(len(self.catalogue))
        pool = (
            articles if self.job.protocol == "published" else [item for item in articles if self.takings.counts[item]]
        )
        return sampler_of(self.job, pool, self.catalogue.twin, self.takings)

    def examples(self, chunk: list[tuple[str, list[str]]]) -> Iterator[Example]:
        job, catalogue = self.job, self.catalogue
        for user, rows in chunk:
            clicks, time_of = _clicks(rows)
            others = Others(self.takings, time_of)
            if not job.wanted(user):
                job.counts[f"users left out: {job.unwanted}"] += 1
            elif job.whole:
                yield from _whole(user, rows, others, self.everywhere, catalogue, job)
            elif len(clicks) < job.least:
                job.counts[f"users dropped: fewer than {job.least} clicks on listed articles"] += 1
            else:
                yield from finish(user, _pairs(user, clicks, others, self.everywhere, job), catalogue, others, job)


def _whole(
    user: str, rows: list[str], others: Others, everywhere: Sampler, catalogue: Catalogue, job: Job
) -> Iterator[Example]:
    """The rows of a user whose targets are whole impressions."""
    for name, target, earlier in impressions.targets(user, impressions.read(rows), catalogue.twin, job):
        clicks = [Click(item, None, []) for item in target.history]
        clicks += [
            Click(item, impression.time, impression.unclicked) for impression in earlier for item in impression.clicked
        ]
        # Of the target nothing stands in the history as passed over.
        pairs = _pairs(user, clicks, others, everywhere, job, target.unclicked)
        yield from impressions.example(name, target, pairs, catalogue, others, job)


def _pairs(
    user: str, clicks: list[Click], others: Others, everywhere: Sampler, job: Job, reserved: Iterable[int] = ()
) -> list[Pair]:
    """A user's clicks, with what is set against each; a repeated click is dropped.

    Args:
        never: articles that are set against nothing.
    """
    dice, twin = random.Random(hash_seed(job.seed, job.dataset.name, user)), everywhere.twin
    first_click: dict[int, Click] = {}
    for click in clicks:
        first_click.setdefault(twin[click.item], click)
    job.counts["dropped: the user clicked the same article before"] += len(clicks) - len(first_click)
    exclusions, pairs = {twin[item] for item in (*others.own_times, *reserved)}, []
    # The last clicks draw first: an impression offers few articles, the clicks of the history can draw from all.
    for click in reversed(first_click.values()):
        samplers = [everywhere]
        if click.time is not None:
            local_sampler = sampler_of(job, click.unclicked, twin, others.takings, was_shown=True)
            samplers = [local_sampler] if job.protocol == "published" else [local_sampler, everywhere]
        choice = Choice(click.item, click.time, others)
        draws = (sampler.draw(choice, exclusions, dice) for sampler in samplers)
        rejected = next((item for item in draws if item is not None), None)
        if rejected is None:
            job.counts["dropped: no article to set against it"] += 1
        else:
            exclusions.add(twin[rejected])
            pairs.append((click.item, rejected, click.time))
    return pairs[::-1]
