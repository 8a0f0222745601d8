"""The page of the demo: what stands where, and what a click does."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gradio as gr

from alignxplore.ask.histories import HOW, Person, of_benchmark, typed
from alignxplore.ask.models import Chooser, Policy, Verdict
from alignxplore.ask.telling import short
from alignxplore.demo import views
from alignxplore.errors import UserError
from alignxplore.evaluation.benchmarks import Benchmark
from alignxplore.summarize import Summaries

PERSONS = 1000  # of the benchmark that can be chosen
TICK = 0.15  # seconds between two looks at what is being written
MODES = {"all at once": 1, "in two slices": 2, "in three slices": 3}
NOBODY = "none"
LONGEST = 6_000_000  # characters of a history that can be pasted
EXAMPLE = "Heat (1995) > The Matrix (1999)\nToy Story\nAlien (1979) > Clueless (1995)"


@dataclass(frozen=True)
class Version:
    """What one side wrote last, and for whom; `before` is what stood there before that."""

    policy: str = ""
    summary: str = ""
    before: str = ""
    person: str = ""


@dataclass
class Focus:
    """Whose history one visitor sees now, and for whom was written last. All events of a visitor share it: each of the
    other parts is as it was when its event began.
    """

    key: str
    written: str = ""


@dataclass
class Side:
    """The parts of the page that belong to one policy."""

    policy: gr.Dropdown
    stages: gr.HTML
    summary: gr.Textbox
    evidence: gr.HTML
    change: gr.HTML
    version: gr.State = field(default_factory=lambda: gr.State(Version()))


class Demo:
    """What the page asks of the models.

    Args:
        policies: one or more.
        choosers: downstream models.
        benchmark: its persons can be chosen.
        complete: makes of a text that was typed what the models know; `request`: what its choices answer.
    """

    def __init__(
        self,
        policies: Sequence[Policy],
        choosers: Sequence[Chooser],
        benchmark: Benchmark,
        complete: Callable[[str], str] = str,
        request: str | None = None,
    ):
        self.complete, self.request = complete, request
        self.policies = {policy.name: policy for policy in policies}
        self.choosers = list(choosers)
        self.benchmark = benchmark
        self.records = {record.user: record for record in benchmark.records[:PERSONS]}

    def person(self, user: str) -> Person:
        """A person of the benchmark."""
        return of_benchmark(self.benchmark, self.records[user]).completed(self.complete, self.request)

    def show(self, person: Person, focus: Focus) -> tuple[Any, ...]:
        """A person's history and items: all that hangs on who it is. What is being written of another one ends."""
        focus.key = person.key
        target, items = person.target, [gr.skip()] * 3  # without a target the items stay what they are
        if target:
            items = [*target.candidates[:2], target.query or ""]
        places = views.shown_places(len(person.history))
        choices = [(f"{place + 1}: {short(person.history[place].chosen, 60)}", place) for place in places]
        omissions = gr.Dropdown(choices=choices, value=[])
        blank_side = (views.told(""), "", Version())
        return person, views.history(person.history), omissions, *items, views.told(""), *blank_side, *blank_side

    def choose(self, user: str, focus: Focus) -> tuple[Any, ...]:
        """Someone of the benchmark is chosen."""
        return self.show(self.person(user), focus)

    def read(self, text: str, focus: Focus) -> tuple[Any, ...]:
        """A history was pasted. One that cannot be read leaves all as it is."""
        try:
            return self.show(typed(text[:LONGEST]).completed(self.complete, self.request), focus)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None

    def strike(self, person: Person, omissions: list[int]) -> str:
        """Interactions are left out, or are not any more."""
        return views.history(person.history, omissions)

    async def write(
        self, person: Person, omissions: list[int], mode: str, names: Sequence[str], versions: Sequence[Version]
    ) -> AsyncGenerator[list[tuple[Any, ...]]]:
        """Each side's (stages, summary, version) while its policy writes."""
        try:
            visible_person = person.without(omissions)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None
        slices, policies = visible_person.slices(MODES[mode]), [self.policies.get(name) for name in names]
        answers: list[dict[int, str]] = [{} for _ in names]
        tasks = [
            asyncio.create_task(policy.write(visible_person, MODES[mode], answers[side].__setitem__))
            if policy
            else None
            for side, policy in enumerate(policies)
        ]
        jobs = [task for task in tasks if task]
        try:
            while jobs and not all(task.done() for task in jobs):
                await asyncio.wait(jobs, timeout=TICK)
                yield [
                    (views.stages(texts, slices, None, "think") if policy else views.told(""), gr.skip(), gr.skip())
                    for policy, texts in zip(policies, answers)
                ]
            yield [
                self._written(policy, task.result() if task else None, texts, slices, version, person)
                for policy, task, texts, version in zip(policies, tasks, answers, versions)
            ]
        finally:  # whoever watched has gone
            for task in jobs:
                task.cancel()

    def _written(
        self,
        policy: Policy | None,
        summaries: Summaries | None,
        answers: dict[int, str],
        slices: Sequence[Sequence[Any]],
        version: Version,
        person: Person,
    ) -> tuple[Any, ...]:
        """One side when its policy has ended."""
        if policy is None or summaries is None:
            return views.told(""), "", Version()
        is_same = (version.policy, version.person) == (policy.name, person.key)
        new_version = Version(policy.name, summaries.summary, version.summary if is_same else "", person.key)
        answers |= {number: stage.text for number, stage in enumerate(summaries.stages)}
        return views.stages(answers, slices, summaries, policy.sampling.form), summaries.summary, new_version

    def tell(self, side: int, text: str, version: Version, person: Person, omissions: list[int]) -> tuple[str, str]:
        """What a summary rests on, and how it differs: from what was written, or that from what was before."""
        is_edited = text.strip() != version.summary
        base = version.summary if is_edited else version.before
        return views.evidence(side, text, person.history, omissions), views.difference(base, text)

    async def ask(
        self, person: Person, item_a: str, item_b: str, query: str, texts: Sequence[str], versions: Sequence[Version]
    ) -> str:
        """What each downstream model chooses by each text, and without one."""
        items = [self.complete(item.strip()) for item in (item_a, item_b)]
        if not all(items) or items[0] == items[1]:
            return views.told("Give two different items, and the downstream models choose between them.")
        summaries: dict[str, str | None] = {"no summary": None}
        for text, version in zip(texts, versions):
            if version.person not in ("", person.key):  # of somebody else
                continue
            if version.before and version.before != version.summary:
                summaries[f"{version.policy}, before"] = version.before
            if version.summary:
                summaries[version.policy] = version.summary
            if text.strip() and text.strip() != version.summary:
                summaries[f"{version.policy or 'your text'}, edited"] = text.strip()
        calls = [(name, chooser, summary) for name, summary in summaries.items() for chooser in self.choosers]
        verdicts: list[Verdict] = await asyncio.gather(
            *(chooser.choose(summary, items, query.strip() or None) for _, chooser, summary in calls)
        )
        rows = [(name, verdict) for (name, _, _), verdict in zip(calls, verdicts)]
        return views.verdicts(rows, items, person.target.chosen if person.target else None)


def build(demo: Demo) -> gr.Blocks:
    """The page."""
    first = demo.person(next(iter(demo.records)))
    policies, judges = ", ".join(demo.policies), ", ".join(chooser.name for chooser in demo.choosers)
    with gr.Blocks(title="AlignXplore", analytics_enabled=False) as blocks:
        gr.Markdown(f"# A person in words\nPolicies: {policies}. Downstream models: {judges}.")
        with gr.Row():
            with gr.Column(scale=4, min_width=320):
                person, focus = gr.State(first), gr.State(Focus(first.key))
                with gr.Tab("A person of the test"):
                    user = gr.Dropdown(list(demo.records), value=first.name, label="Person", elem_id="person")
                with gr.Tab("Your own history"):
                    paste_box = gr.Textbox(
                        lines=6,
                        max_lines=12,
                        label=f"Type or paste {HOW}; or JSONL, or CSV with a header",
                        placeholder=EXAMPLE,
                        max_length=LONGEST,
                        elem_id="pasted",
                    )
                    read_button = gr.Button("Read it", elem_id="read")
                history_box = gr.HTML()
                omissions = gr.Dropdown(multiselect=True, label="Leave out", elem_id="left-out")
            with gr.Column(scale=6, min_width=320):
                with gr.Row():
                    mode = gr.Radio(list(MODES), value=next(iter(MODES)), label="The history is read", elem_id="reads")
                    write_button = gr.Button("Write the summary", variant="primary", elem_id="write")
                with gr.Row():
                    sides = [_side(number, list(demo.policies)) for number in range(2)]
                items = [gr.Textbox(label=f"Item {name}", lines=2, elem_id=f"item-{name}") for name in "AB"]
                query = gr.Textbox(label="What is asked", elem_id="query")
                ask_button = gr.Button("Ask the downstream models", elem_id="ask")
                choice = gr.HTML(elem_id="choice")
        side_outputs = [part for side in sides for part in (side.stages, side.summary, side.version)]
        person_outputs = [person, history_box, omissions, *items, query, choice, *side_outputs]
        # Nobody waits in a queue of the page, unseen: the servers of the models have their own.
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
        gr.on([user.change, blocks.load], demo.choose, [user, focus], person_outputs, **quiet)
        read_button.click(demo.read, [paste_box, focus], person_outputs, **quiet)
        omissions.change(demo.strike, [person, omissions], history_box, **quiet)
        ask_inputs = [focus, person, *items, query, *(part for side in sides for part in (side.summary, side.version))]
        write_parts = (part for side in sides for part in (side.policy, side.version))
        write_inputs = [focus, person, omissions, mode, *write_parts]
        write_event = write_button.click(partial(_write, demo), write_inputs, side_outputs, **quiet)
        write_event.then(partial(_ask_when_written, demo), ask_inputs, choice, **quiet)
        ask_button.click(partial(_ask, demo), ask_inputs, choice, **quiet)
        for number, side in enumerate(sides):
            gr.on(
                [side.summary.change, side.version.change, omissions.change],
                partial(demo.tell, number),
                [side.summary, side.version, person, omissions],
                [side.evidence, side.change],
                **quiet,
            )
    return blocks


def _side(number: int, names: list[str]) -> Side:
    """The parts of one policy; the last two are set side by side at first."""
    default = names[-2:][number] if number < len(names[-2:]) else NOBODY
    with gr.Column(min_width=260):
        return Side(
            gr.Dropdown([*names, NOBODY], value=default, label=f"Policy {number + 1}", elem_id=f"policy-{number}"),
            gr.HTML(elem_id=f"stages-{number}"),
            gr.Textbox(label="Summary (edit it)", lines=3, max_lines=12, elem_id=f"summary-{number}"),
            gr.HTML(elem_id=f"evidence-{number}"),
            gr.HTML(elem_id=f"change-{number}"),
        )


async def _write(
    demo: Demo, focus: Focus, person: Person, omissions: list[int], mode: str, *sides: Any
) -> AsyncIterator[tuple[Any, ...]]:
    """`Demo.write` in the order of the page's parts: (policy, version) of each side come in. It ends where somebody
    else is shown."""
    focus.written = ""
    async with contextlib.aclosing(demo.write(person, omissions, mode, sides[::2], sides[1::2])) as all_outputs:
        async for outputs in all_outputs:
            if focus.key != person.key:
                break
            yield tuple(part for side in outputs for part in side)
    # What was sent a moment ago may have come after the other person. Gradio sends the last outputs twice.
    if focus.key == person.key:
        focus.written = person.key
        yield (gr.skip(),) * (3 * len(sides) // 2)
    else:
        yield (views.told(""), "", Version()) * (len(sides) // 2)


async def _ask(
    demo: Demo, focus: Focus, person: Person, item_a: str, item_b: str, query: str, *sides: Any
) -> AsyncIterator[Any]:
    """`Demo.ask` in the order of the page's parts: (text, version) of each side come in. Of a person who is shown no
    more nothing is told."""
    table = await demo.ask(person, item_a, item_b, query, sides[::2], sides[1::2])
    if focus.key == person.key:
        yield table
    yield gr.skip() if focus.key == person.key else views.told("")


async def _ask_when_written(demo: Demo, focus: Focus, person: Person, *parts: Any) -> AsyncIterator[Any]:
    """`_ask` after a writing, unless it was ended because somebody else was chosen."""
    if focus.written == person.key:
        async for table in _ask(demo, focus, person, *parts):
            yield table
