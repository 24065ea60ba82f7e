"""The commands that are printed for the user, as the program was called."""

import shlex
import sys
from pathlib import Path
from typing import Final

INSTALLED: Final = "sgformer-hpo"


def command_line(*words: object) -> str:
    """A command of this program, quoted for a shell: `sgformer-hpo ...` where it is installed.

    In a checkout that is `python run_search.py ...`.
    """
    name = Path(sys.argv[0]).stem
    program = INSTALLED if name == INSTALLED else "python run_search.py"
    return f"{program} {shlex.join(map(str, words))}"
