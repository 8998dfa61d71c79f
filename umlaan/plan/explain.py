"""What each stage and operation declares, read from the code itself and from docs/procedure.md.

Nothing is told twice: a stage is a @deploy function of tasks/, in the order of deploy.py; what it
calls are operations; their docstrings say what they declare; the page's lines stand in the table.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import NamedTuple


class Line(NamedTuple):
    """One row of docs/procedure.md."""

    text: str
    by: str
    note: str


@dataclass(frozen=True)
class Call:
    """An operation as a stage calls it; title is the constant beginning of its name."""

    operation: str
    title: str

    def matches(self, stage: str, named: str) -> bool:
        """Whether pyinfra's name of an operation of a run is this call's."""
        head, _, tail = named.partition(" | ")
        return head == stage and tail.startswith(self.title)


@dataclass(frozen=True)
class Stage:
    """A @deploy function."""

    name: str
    task: str
    says: str
    page: str
    calls: tuple[Call, ...]


@dataclass(frozen=True)
class Operation:
    """An operation of umlaan/operations/."""

    name: str
    says: str
    page: str


def lines_of(table: str) -> list[Line]:
    """The rows of the table in docs/procedure.md."""
    rows = []
    for line in table.splitlines():
        # A cell may hold \\| as a character of its own.
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 3 and not set(cells[0]) <= set("-: ") and cells[1] != "declared by":
            rows.append(Line(*(cell.replace("\\|", "|") for cell in cells)))
    return rows


def lines_for(operation: str, lines: list[Line]) -> list[Line]:
    """The page's lines that an operation (network.up) declares."""
    noun = operation.partition(".")[0]
    named = re.compile(rf"`operations\.({re.escape(operation)}|{re.escape(noun)})`")
    return [line for line in lines if named.search(line.by)]


def stages_of(deploy: str, tasks: dict[str, str]) -> list[Stage]:
    """All stages, those that deploy.py calls first and in its order. Sources by module name."""
    found = {stage.task: stage for name, text in tasks.items() for stage in _stages(name, text)}
    order = [task for task in _called(ast.parse(deploy)) if task in found]
    rest = [task for task in found if task not in order]
    return [found[task] for task in dict.fromkeys([*order, *rest])]


def _called(tree: ast.AST) -> list[str]:
    """``network.bridge`` for each call of that form, in the source's order."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    calls.sort(key=lambda node: (node.lineno, node.col_offset))
    out = []
    for call in calls:
        function = call.func
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
            out.append(f"{function.value.id}.{function.attr}")
    return out


def _stages(module: str, text: str) -> list[Stage]:
    tree = ast.parse(text)
    page = _first(ast.get_docstring(tree) or "")
    nouns = _nouns(tree)
    out = []
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef):
            continue
        title = next((t for d in node.decorator_list if (t := _deploy_name(d))), None)
        if title is None:
            continue
        calls = [call for inner in ast.walk(node) if (call := _call(inner, nouns))]
        says = _prose(ast.get_docstring(node) or "")
        out.append(Stage(title, f"{module}.{node.name}", says, page, tuple(dict.fromkeys(calls))))
    return out


def _nouns(tree: ast.Module) -> dict[str, str]:
    """{name in this file: noun} of what is imported from umlaan.operations."""
    found: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "umlaan.operations":
            found |= {alias.asname or alias.name: alias.name for alias in node.names}
    return found


def _deploy_name(decorator: ast.expr) -> str | None:
    if isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name):
        first = decorator.args[0] if decorator.args else None
        if decorator.func.id == "deploy" and isinstance(first, ast.Constant):
            return str(first.value)
    return None


def _call(node: ast.AST, nouns: dict[str, str]) -> Call | None:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return None
    owner = node.func.value
    if not (isinstance(owner, ast.Name) and owner.id in nouns):
        return None
    title = next((k.value for k in node.keywords if k.arg == "name"), None)
    if isinstance(title, ast.JoinedStr):
        title = title.values[0]
    if not isinstance(title, ast.Constant):
        return None
    return Call(f"{nouns[owner.id]}.{node.func.attr}", str(title.value))


def operations_of(sources: dict[str, str]) -> list[Operation]:
    """Every @operation of umlaan/operations/. Sources by module name."""
    out = []
    for module, text in sources.items():
        tree = ast.parse(text)
        page = _first(ast.get_docstring(tree) or "")
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and any(map(_is_operation, node.decorator_list)):
                says = _prose(ast.get_docstring(node) or "")
                out.append(Operation(f"{module}.{node.name}", says, page))
    return out


def _is_operation(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(called, ast.Name) and called.id == "operation"


def _first(text: str) -> str:
    """A docstring's first paragraph in one line."""
    return " ".join(text.strip().split("\n\n")[0].split())


def _prose(text: str) -> str:
    """A docstring without its lists of arguments and its example."""
    kept = []
    for part in text.split("\n\n"):
        line = part.strip()
        if line.startswith("**Example"):
            break
        if line and not line.startswith("+ "):
            kept.append(" ".join(line.split()))
    return "\n".join(kept)


def stages_named(word: str, stages: list[Stage]) -> list[Stage]:
    """The stages that a person means: Network, network, network.tap."""
    wanted = word.lower().removeprefix("tasks.")
    return [
        stage
        for stage in stages
        if wanted in (stage.name.lower(), stage.task, stage.task.partition(".")[0])
    ]


def operations_named(word: str, operations: list[Operation]) -> list[Operation]:
    """The operations that a person means: network.tap, operations.network.tap, network."""
    wanted = word.lower().removeprefix("umlaan.").removeprefix("operations.")
    exact = [one for one in operations if one.name == wanted]
    return exact or [one for one in operations if one.name.partition(".")[0] == wanted]
