"""The page of all commands, as typer describes them."""

import typer
from typer.cli import get_docs_for_click
from typer.main import get_command

from hpo.cli.app import app

HEAD = """\
# Commands

Each is `.venv/bin/python run_search.py COMMAND` or `.venv/bin/sgformer-hpo COMMAND`. Exit code 0:
done; 1: the run failed; 2: the input is wrong. This page is made of the program's own `--help`.

"""


def commands_page() -> str:
    """The page in Markdown: a section for each command, with its arguments and options."""
    command = get_command(app)
    docs = get_docs_for_click(obj=command, ctx=typer.Context(command), name="sgformer-hpo")
    _, _, sections = docs.partition("\n## ")
    return f"{HEAD}## {sections}".replace("`sgformer-hpo ", "`").replace(
        "```console\n$ ", "```text\n"
    )
