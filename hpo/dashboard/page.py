"""optuna-dashboard's script, with what the page lacks: paused trials, and asking for changes."""

import gzip
import hashlib
import json
from functools import cached_property
from importlib import resources
from typing import Final

from hpo.dashboard.words import PAUSED

SCRIPT: Final = "bundle.js"
OWN: Final = ("page.css", "changes.js")
# What the script has, and what it gets in its place. Source: optuna-dashboard 0.21.
_CURVES: Final = (
    'e.filter(e=>!r&&"Complete"===e.state||!n&&"Pruned"===e.state&&e.values&&e.values.length>0'
    '||"Running"===e.state'
)
_FIGURES: Final = "plotly_graph_objects.map(e=>(0,r.jsx)"
PATCHES: Final = (
    # It asks again for all trials from the first of these states on.
    ('["Running","Waiting"].includes', f'["Running","Waiting","{PAUSED}"].includes'),
    # It draws the curves of paused trials as well, and of ten thousand trials only some.
    (f"const o={_CURVES})", f'const o=fewCurves({_CURVES}||"{PAUSED}"===e.state))'),
    ('children:"Intermediate values"', 'children:"Intermediate values (some hundred trials)"'),
    ('?"(running)":t?', f'?"(running)":"{PAUSED}"===e.state?"(paused)":t?'),
    # The timeline, which begins with the last hundred, knows a thousand.
    ('Running:"green",Waiting:"gray"}', f'Running:"green",{PAUSED}:"gold",Waiting:"gray"}}'),
    ("const r=e.filter(e=>e.state===t)", "const r=e.slice(-1e3).filter(e=>e.state===t)"),
    # The list of trials can be filtered by the state.
    ('"Fail","Running","Waiting"]', f'"Fail","Running","{PAUSED}","Waiting"]'),
    # A path that it has kept without a page gets the one with the table of trials.
    ('page:"trialTable"', 'page:"trialSelection"'),
    # The number beside the longest bar of the importances would be cut.
    ('textposition:"outside",hover', 'textposition:"outside",cliponaxis:!1,hover'),
    # Saved figures lack the distance from one another that all others have.
    (f"{_FIGURES}(qd,{{xs:6", f"{_FIGURES}(qd,{{item:!0,xs:6"),
)
COMPRESSION: Final = 6


class PageScript:
    """The script that the page loads.

    Args:
        may_edit: Whether the page offers what changes studies.

    Attributes:
        knows_paused: Whether the script could be told of paused trials; if not, as another
            version has other words, these must be called running.
    """

    def __init__(self, *, may_edit: bool = False) -> None:
        self._may_edit = may_edit
        found = resources.files("optuna_dashboard").joinpath("public", SCRIPT)
        self._original = found.read_text(encoding="utf-8")
        self.knows_paused = all(before in self._original for before, _ in PATCHES)

    @cached_property
    def content(self) -> bytes:
        """The script."""
        text = self._original
        for before, after in PATCHES if self.knows_paused else ():
            text = text.replace(before, after)
        folder = resources.files("hpo.dashboard")
        style, changes = (folder.joinpath(name).read_text("utf-8") for name in OWN)
        settings = json.dumps({"style": style, "isReadOnly": not self._may_edit})
        return f"const hpoPage = {settings};\n{changes}\n{text}".encode()

    @cached_property
    def tag(self) -> str:
        """A text that changes with the script."""
        return hashlib.sha256(self.content).hexdigest()[:16]

    @cached_property
    def compressed(self) -> bytes:
        """The script, by gzip."""
        return gzip.compress(self.content, COMPRESSION, mtime=0)
