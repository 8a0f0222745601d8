"""A prompt set of one's own: a folder of templates, and what is said of one that cannot be used."""

import pytest

from alignxplore.prompts import PromptError, PromptSet
from alignxplore.records import Interaction

HISTORY = [Interaction("a quiet film", "a loud film", "Which film?"), Interaction("a sea film")]


def write_set(folder, **templates):
    folder.mkdir(exist_ok=True)
    for purpose, text in templates.items():
        (folder / f"{purpose}.jinja").write_text(text, encoding="utf-8")
    return folder


def test_an_empty_summary_reaches_a_template_as_none(tmp_path):
    prompts = PromptSet(
        write_set(
            tmp_path / "mine", infer="#--- user\n{{ past_summary is none }}", judge="#--- user\n{{ summary is none }}"
        )
    )
    assert prompts.infer(HISTORY, "") == prompts.judge("", None, "a", "b") == [{"role": "user", "content": "True"}]


def test_a_set_of_ones_own(tmp_path):
    folder = write_set(
        tmp_path / "mine",
        judge="#--- user\nJe sais: {{ summary }}\n#--- assistant\nD'accord.\n#--- user\n{{ item_a }} / {{ item_b }}",
    )
    prompts = PromptSet(str(folder))
    assert prompts.name == "mine" and list(prompts.hashes) == ["judge"]
    assert prompts.judge("s", None, "one", "two") == [
        {"role": "user", "content": "Je sais: s"},
        {"role": "assistant", "content": "D'accord."},
        {"role": "user", "content": "one / two"},
    ]
    with pytest.raises(
        PromptError, match=r"mine/infer\.jinja: no such template; the set 'mine' cannot be used for 'infer'"
    ):
        prompts.infer(HISTORY)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("#--- user\n{{ summry }}", r"judge\.jinja: 'summry' is undefined"),
        ("#--- user\n{{ summary.text }}", r"judge\.jinja: 'str object' has no attribute 'text'"),
        ("#--- user\nok\n#--- user\n\n{% if %}", r"judge\.jinja:5: "),
        ("#--- user\n{% if %}", r"judge\.jinja:2: "),
        ("Hello\n#--- user\nx", r"judge\.jinja: the first line must be '#--- system' or '#--- user'"),
        ("no message", r"judge\.jinja: the first line must be"),
    ],
)
def test_a_broken_template_is_named(tmp_path, template, message):
    with pytest.raises(PromptError, match=message):
        PromptSet(write_set(tmp_path / "mine", judge=template)).judge("s", "q", "a", "b")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{% include "history.jinja" %}', "cannot include others"),
        ('{% extends "history.jinja" %}', "cannot include others"),
        ("{% for x in interactions %}{{ x.rejected | length }}{% endfor %}", "has no len"),
        ("{{ 1 / (interactions | length - 2) }}", "division by zero"),
        ('{{ "a".index("b") }}', "substring not found"),
        ("{{ {}.pop(1) }}", "1"),
        ("{% if past_summary %}{{ past_summary.text }}{% endif %}", "no attribute 'text'"),
    ],
)
def test_a_template_that_cannot_be_filled_is_named_when_it_is_tried_out(tmp_path, line, message):
    prompts = PromptSet(write_set(tmp_path / "mine", infer=f"#--- user\n{line}"))
    with pytest.raises(PromptError, match=rf"mine/infer\.jinja: .*{message}"):
        prompts.try_out()


def test_a_folder_without_templates_is_named(tmp_path):
    with pytest.raises(PromptError, match=r"no \*\.jinja templates here; give a folder like"):
        PromptSet(tmp_path)
    with pytest.raises(PromptError, match="nosuchset"):
        PromptSet("nosuchset")


@pytest.fixture
def own_set(tmp_path):
    """`own_set(bytes)`: a set of one template, `judge`."""

    def write(content: bytes) -> PromptSet:
        (tmp_path / "judge.jinja").write_bytes(content)
        return PromptSet(tmp_path)

    return write


def test_a_byte_order_mark_and_windows_ends_change_no_prompt(own_set):
    marked = own_set(b"\xef\xbb\xbf#--- system\r\nYou judge.\r\n#--- user\r\n{{ item_a }} or {{ item_b }}?\r\n")
    assert marked.judge(None, None, "x", "y") == [
        {"role": "system", "content": "You judge."},
        {"role": "user", "content": "x or y?"},
    ]


@pytest.mark.parametrize(
    "encoding, problem",
    [("latin-1", "byte 14 is not UTF-8; convert the file from its own"), ("utf-16", "UTF-16, not UTF-8; convert it")],
)
def test_a_template_in_another_encoding_is_named(own_set, encoding, problem):
    with pytest.raises(PromptError, match=f"judge.jinja: {problem}"):
        own_set("#--- user\ncaf\u00e9 {{ item_a }}".encode(encoding)).judge(None, None, "x", "y")


def test_brackets_without_end_are_named(tmp_path):
    (tmp_path / "infer.jinja").write_text("#--- user\n{{" + "[" * 5000 + "}}\n")
    with pytest.raises(PromptError, match=r"infer\.jinja:2: brackets nested too deep"):
        PromptSet(str(tmp_path)).infer([Interaction("a", "b")])
