"""The one command line of all scripts: a dataclass of options, read by TRL's parser; what goes wrong is one sentence.

    if __name__ == "__main__":
        run(perturb, PerturbOptions, __doc__)

Every option may also stand in a YAML file (`--config FILE`); the line wins. `--max_tokens` is `--max-tokens`. A script
that starts something long has `--check` (`Checkable`): it resolves and looks at everything and starts nothing.
"""

import argparse
import asyncio
import inspect
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, NoReturn, TypeVar

from alignxplore.errors import UserError, is_first_process, naming, one_sentence, program
from alignxplore.texts import not_utf_8

T = TypeVar("T")
_OUTPUTS = ("out", "output", "output_dir")
# Options of texts that are paths, besides those of the type `Path`.
_PATHS = {
    *_OUTPUTS,
    *"data train_data eval_data scores val_out report base rows prompt_set model_name_or_path".split(),
}
_HOME = re.compile("(^|[=#])~/")  # of a path, NAME=PATH or URL#TOKENIZER


def option(text: str, default: Any = MISSING, *aliases: str) -> Any:
    """A field of an options class: its help, its default (none: it must be given), older spellings (`"--output"`)."""
    metadata = {"help": text, "aliases": list(aliases)}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(kw_only=True)
class Checkable:
    """Options of a script that starts something long."""

    check: bool = option("resolve and validate all options, look at the files, print sizes, start nothing", False)


def planned(options: Checkable, *lines: str) -> str:
    """What `--check` says of a script: `lines`, then each option that has a value."""
    values = {name: value for name, value in vars(options).items() if name != "check" and value not in (None, [])}
    width = max(map(len, values))
    return "\n".join(
        [*lines, *(f"{name:{width}}  {value}" for name, value in values.items()), "check: nothing was started"]
    )


def items(text: str) -> list[str]:
    """The items of a list that is one environment variable, as `items` of shell.bash has it.

    They are separated by blanks or, where a value has blanks, stand one a line. A text that as a whole, or behind
    "name=", is an existing path is one item. A "~/" that begins a path is the home folder.
    """
    name, equals, path = (_in_home(part) for part in text.partition("="))
    if os.path.exists(_in_home(text)) or (equals and name and not re.search(r"\s", name) and os.path.exists(path)):
        return [_in_home(text)]
    parts = [line.strip() for line in text.splitlines() if line.strip()] if "\n" in text else text.split()
    return [_in_home(part) for part in parts]


@dataclass(kw_only=True)
class Plain:
    """Options of flags, texts and paths only, which can be read before anything is installed."""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """The description as it is written, and each default that says something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        if isinstance(action, argparse._StoreFalseAction):  # what the parser adds to a flag that is on
            return f"turn off --{action.dest}: do not {action.help}"
        if default is None or default is False or default in ("", [], argparse.SUPPRESS):
            return action.help
        return (
            f"{action.help} (default: {' '.join(map(str, default)) if isinstance(default, list) else '%(default)s'})"
        )


def parse(options: type | tuple[type, ...], doc: str | None, argv: Sequence[str] | None = None) -> tuple:
    """One object of each options class; exits with one sentence and code 2 where the line cannot be meant."""
    return _parser(options, doc).parse_args_and_config(_with_config(options, at_home(argv)))


def parse_known(options: type[T], doc: str | None, argv: Sequence[str] | None = None) -> tuple[T, list[str]]:
    """(options, the words that are none of ours), for a script that passes them on, `--config` included."""
    values, words = _parser(options, doc).parse_args_into_dataclasses(at_home(argv), return_remaining_strings=True)
    return values, words


def at_home(argv: Sequence[str] | None) -> list[str]:
    """The command line (default: this script's) with the home folder for each "~/" that the shell left as it was,
    behind a "=" or in quotes: a folder called "~" would be made."""
    return [_in_home(word) for word in (sys.argv[1:] if argv is None else argv)]


def _in_home(text: str) -> str:
    return _HOME.sub(lambda match: match[1] + os.path.expanduser("~/"), text)


def _refuse_empty(options: type | tuple[type, ...], name: str, value: Any, source: str) -> None:
    """Raise a ValueError where a path is empty: it would be the current folder, or no path at all.

    Args:
        value: None where a YAML file has nothing behind the name.
        source: what stands before the name where it was found.
    """
    classes = options if isinstance(options, tuple) else (options,)
    own = next((part for kind in classes for part in fields(kind) if part.name == name), None)
    is_path = name in _PATHS or own is not None and "Path" in str(own.type)
    parts = value if isinstance(value, list) else [value]
    is_empty = "" in parts or (value is None and own is not None and bool(own.default))
    if is_path and is_empty:
        place = "a place to write to" if name in _OUTPUTS else "a file or a folder"
        raise ValueError(f"{source}{name} is empty; name {place}, or leave the option out")


def _with_config(options: type | tuple[type, ...], argv: Sequence[str]) -> list[str]:
    """The command line with `--config=FILE` as TRL's parser knows it. Raises a ValueError unless that names one
    file that is there, and where a path is empty."""
    for word, following in zip(argv, [*argv[1:], "nothing"]):
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            _refuse_empty(options, name[2:].replace("-", "_"), value if equals else following, "--")
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    files = [following for word, following in zip(words, [*words[1:], ""]) if word == "--config"]
    if len(files) > 1:
        raise ValueError(f"--config names {len(files)} files ({', '.join(files)}); name one")
    if files and (not files[0] or files[0].startswith("--")):
        raise ValueError("--config names no file; give one in YAML")
    if files and not os.path.exists(files[0]):
        raise ValueError(f"--config {files[0]}: no such file; a path begins in the folder that this is started in")
    return words


def _with_home(value: Any) -> Any:
    """A value of a YAML file, with the home folder as on the command line."""
    if isinstance(value, list):
        return [_with_home(part) for part in value]
    return _in_home(value) if isinstance(value, str) else value


def first_word(options: type, argv: Sequence[str]) -> list[str]:
    """The command line with its first word, where that is no option, as the first one that has to be given."""
    needs = [f"--{field.name}" for field in fields(options) if field.default is field.default_factory]  # both missing
    return [*needs[:1], *argv] if argv and not argv[0].startswith("-") else list(argv)


def run(
    work: Callable[..., Any],
    options: type | tuple[type, ...],
    doc: str | None,
    argv: Sequence[str] | None = None,
) -> None:
    """Parse, then work; a text that `work` returns (or its coroutine, which is run) is printed.

    Of several options classes `work` takes one each.
    """
    with one_sentence():
        _work(work, *checked(lambda: parse(options, doc, argv)))


def run_commands(
    commands: dict[str, tuple[Callable[[Any], Any], type]], doc: str | None, argv: Sequence[str] | None = None
) -> None:
    """`SCRIPT COMMAND ...`: each command has its own work and options (`first_word`: `describe movielens`)."""
    names = ", ".join(commands)
    name, *words = (sys.argv[1:] if argv is None else argv) or [""]
    if name in ("-h", "--help"):
        hint = f"Each of them explains itself: {program()} {next(iter(commands))} --help"
        print(f"usage: {program()} {{{names}}} [options]\n\n{doc}\n{hint}")
        sys.exit(0)
    with one_sentence():
        if name not in commands:
            _refuse(f"unknown command '{name}'; choose from {names}" if name else f"a command is missing: {names}")
        work, options = commands[name]
        parser = _parser(options, inspect.getdoc(work), f"{program()} {name}")
        _work(
            work,
            *checked(lambda: parser.parse_args_and_config(_with_config(options, at_home(first_word(options, words))))),
        )


def check_encoding() -> None:
    """Raise a UserError where Python would read and write files in another encoding than UTF-8."""
    if (encoding := sys.getfilesystemencoding()) != "utf-8":
        raise UserError(f"files are read and written as {encoding} here, and ours are UTF-8; set PYTHONUTF8=1")


def _parser(options: type | tuple[type, ...], doc: str | None, name: str | None = None) -> Any:
    check_encoding()
    try:
        from trl import TrlParser  # takes a part of a second, which an import of the library should not
    except ModuleNotFoundError as error:
        if isinstance(options, type) and issubclass(options, Plain):
            return _PlainParser(options, prog=name or program(), description=doc, formatter_class=_Formatter)
        problem = f"{error.name} is not installed; commands need the pinned packages: pip install -r requirements.txt"
        raise UserError(problem) from None

    usage = "%(prog)s --config FILE [--option value ...]" if isinstance(options, tuple) else None  # or a page of names
    parser = TrlParser(
        options, prog=name or program(), usage=usage, description=doc, formatter_class=_Formatter, allow_abbrev=False
    )
    parser.error = _refuse  # type: ignore[method-assign]  # argparse would print all options first
    of_yaml = parser.set_defaults_with_config

    def set_defaults(**values: Any) -> Any:
        for key, value in values.items():
            _refuse_empty(options, key, value, "in the file of --config, ")
        return of_yaml(**{key: _with_home(value) for key, value in values.items()})

    parser.set_defaults_with_config = set_defaults
    return parser


class _PlainParser(argparse.ArgumentParser):
    """Stands in for TRL's parser, without YAML."""

    def __init__(self, options: type[Plain], **texts: Any):
        super().__init__(allow_abbrev=False, **texts)
        self.options = options
        for setting in fields(options):
            kind: dict[str, Any] = {"action": "store_true"} if setting.type is bool else {"type": setting.type}
            self.add_argument(f"--{setting.name}", default=setting.default, help=setting.metadata["help"], **kind)

    def parse_args_and_config(self, argv: Sequence[str] | None) -> tuple[Plain]:
        return (self.options(**vars(self.parse_args(argv))),)

    def error(self, problem: str) -> NoReturn:
        _refuse(problem)


def _refuse(problem: str) -> NoReturn:
    if is_first_process():
        print(f"{program()}: {problem} (--help explains all options)", file=sys.stderr)
    sys.exit(2)


def checked(read: Callable[[], T]) -> T:
    """What `read` returns. A ValueError in it, of options that cannot be meant, ends the script with one sentence and
    code 2."""
    try:
        return read()
    except UnicodeDecodeError as error:
        _refuse(f"the file of --config: {not_utf_8(error)}")
    except ValueError as error:  # of an options class, which knows what cannot be meant, or of TRL's parser
        _refuse(str(error).replace("Some specified arguments are not used by the HfArgumentParser", "unknown options"))
    except Exception as error:
        if not type(error).__module__.startswith("yaml."):  # a bare Python has no such module to name here
            raise
        _refuse(" ".join(str(error).split()))


def say_what_matters() -> None:
    """Our words reach the console, and of the libraries' those that tell of something wrong."""
    logging.basicConfig(format="%(message)s")
    for name in ("alignxplore", "__main__"):  # libraries tell each of their requests
        logging.getLogger(name).setLevel(logging.INFO)
    # Prompts are measured before they are shortened: a long one is no error, whatever transformers says of it.
    logging.getLogger("transformers.tokenization_utils_base").addFilter(
        lambda record: "indexing errors" not in record.getMessage()
    )


def _folder(*options: Any) -> str:
    """Where most of what a script makes goes."""
    paths = (getattr(part, name, None) for part in options for name in ("out", "output_dir"))
    return next((str(path) for path in paths if path), "a file of this run")


def _work(work: Callable[..., Any], *options: Any) -> None:
    say_what_matters()
    with naming(_folder(*options)):
        result = work(*options)
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
    if isinstance(result, str):
        print(result)
