"""The decision rules of a paper's study, read from its source: what the code decides by is what the page says.

    ```{rules} side
    ```

reads `memlib/papers/side/study/rules.py`, and after it files like `training_rules.py` beside it. Each public function
there whose name is a claim in lower case (`s1`, `i9a`) decides that claim; its docstring states the rule, in MyST. The
files are parsed, not imported: a page needs no torch.
"""

import ast
import re
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

CLAIM = re.compile(r"^[a-z]\d+[a-z]?$")
PAPER = re.compile(r"^[a-z]\w*$")  # a folder of memlib/papers, not a path that leads out of it


def rules(source: str) -> list[tuple[str, str]]:
    """Each rule in Python `source` as (claim id, docstring), in the order of the file: `s1` gives S1.

    Raises ValueError where there is none, or where one has no docstring; SyntaxError where `source` is no Python.
    """
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    found = [(node.name.capitalize(), ast.get_docstring(node) or "") for node in functions if CLAIM.match(node.name)]
    if not found:
        raise ValueError("no function has the name of a claim, like s1 or i9a")
    silent = [name.lower() for name, text in found if not text.strip()]
    if silent:
        raise ValueError(f"no docstring states the rule of {', '.join(silent)}")
    return found


class Rules(SphinxDirective):
    """A definition list: a claim's id, and the rule that decides it."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        paper = self.arguments[0]
        if not PAPER.match(paper):
            raise self.error(f"{paper!r} does not name a paper: give a folder of memlib/papers")
        name = f"memlib/papers/{paper}/study/rules.py"
        source = Path(self.env.srcdir)  # a copy below the project, where the chapters were executed first
        path = next((place for above in (source, *source.parents) if (place := above / name).is_file()), None)
        if path is None:
            raise self.error(f"{name} does not exist: the rules of {paper!r} are read from there")
        found = []
        for file in (path, *sorted(path.parent.glob("*_rules.py"))):
            self.env.note_dependency(str(file))
            try:
                found += rules(file.read_text(encoding="utf8"))
            except (SyntaxError, ValueError) as problem:
                raise self.error(f"{Path(name).with_name(file.name).as_posix()}: {problem}") from None
        return [nodes.definition_list("", *[self.item(*rule, name) for rule in found], classes=["rules"])]

    def item(self, claim: str, text: str, name: str) -> nodes.definition_list_item:
        term = nodes.term("", "", nodes.strong("", claim), ids=[f"rule-{claim.lower()}"])
        rule = nodes.definition()
        self.state.nested_parse(StringList(text.splitlines(), name), self.content_offset, rule)
        return nodes.definition_list_item("", term, rule)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register `rules`."""
    app.add_directive("rules", Rules)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
