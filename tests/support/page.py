"""The commands that a page of the docs shows, and somebody who runs them."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from command_line import Background, run
from namespaces import Node

BLOCK = re.compile(r"(?:^    .*\n)+", re.MULTILINE)
COMMENT = re.compile(r"\s+# .*$", re.MULTILINE)
# A line that is indented more than the block belongs to the line before it.
CONTINUATION = re.compile(r"\s*\\?\n {5,}")
CELL = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)
OF_THE_PROGRAM = re.compile(r"^(?=(?:jobs|resize|status|report|watch) )")
IN_A_SENTENCE = re.compile(r"`([^`]+)`")


class Page:
    """A page in Markdown, and which of its commands have been taken.

    A command is a line of an indented block, what begins a row of a table, or code with a blank
    in a sentence, other than an option or a setting.
    """

    def __init__(self, path: Path) -> None:
        self._commands = dict.fromkeys(_commands(path.read_text()), False)

    def take(self, beginning: str, placeholders: Mapping[str, str]) -> str:
        """The only command that begins so, with the words for its placeholders."""
        (found,) = (command for command in self._commands if command.startswith(beginning))
        self._commands[found] = True
        words = "|".join(map(re.escape, sorted(placeholders, key=len, reverse=True)))
        return re.sub(rf"(?<!\w)(?:{words})(?!\w)", lambda word: placeholders[word[0]], found)

    @property
    def left(self) -> list[str]:
        """The commands that were not taken."""
        return [command for command, is_taken in self._commands.items() if not is_taken]


def _commands(text: str) -> list[str]:
    """All commands, in the page's order; what only begins another one is left out."""
    found: list[tuple[int, str]] = []
    for block in BLOCK.finditer(text):
        lines = CONTINUATION.sub(" ", COMMENT.sub("", block[0])).splitlines()
        found += [(block.start(), line.strip()) for line in lines]
    found += [(cell.start(), cell[1]) for cell in CELL.finditer(text)]
    sentences = BLOCK.sub(lambda block: " " * len(block[0]), text)
    for code in IN_A_SENTENCE.finditer(sentences):
        command = " ".join(code[1].split())
        if re.match(r"[^-].*[^:] ", command):
            found.append((code.start(), command))
    commands = [command for _, command in sorted(found, key=lambda one: one[0])]
    return [
        command
        for command in commands
        if not any(other.startswith(f"{command} ") for other in commands)
    ]


class Reader:
    """Somebody who does on a machine what a page says.

    Attributes:
        placeholders: What this reader writes for the words of the page, by word.
        environment: Variables of all commands.
    """

    def __init__(
        self, page: Page, node: Node, folder: Path, placeholders: Mapping[str, str]
    ) -> None:
        self.placeholders, self.environment = dict(placeholders), dict(node.environment)
        self._page, self._inside = page, node.inside
        self._before = [f"cd {folder}"]

    def exports(self, beginning: str) -> None:
        """Sets a variable for all that follows."""
        self._before.append(self._page.take(beginning, self.placeholders))

    def runs(self, beginning: str, more: str = "", typed: str = "") -> str:
        """Runs a command to its end, with further options; returns what it prints.

        `typed` is what the command gets on standard input, since it has no terminal.
        """
        shell = (*self._inside, "setsid", "--wait", "sh", "-c")
        line = self._line(beginning, more, f"printf '{typed}' | ")
        done = run(line, program=shell, **self.environment)
        return f"{done.stdout}{done.stderr}"

    @contextmanager
    def starts(self, beginning: str, more: str = "", *, log: Path) -> Iterator[Background]:
        """Runs a command for the block."""
        line, shell = self._line(beginning, more), (*self._inside, "sh", "-c")
        started = Background(line, log=log, environment=self.environment, program=shell)
        try:
            yield started
        finally:
            started.kill_everything()

    def _line(self, beginning: str, more: str, typed: str = "") -> str:
        command = self._page.take(beginning, self.placeholders)
        command = OF_THE_PROGRAM.sub(".venv/bin/python run_search.py ", command)
        return " && ".join((*self._before, f"{typed}{command} {more}"))
