"""Whether an answer is the library's own: what it calls, by its syntax tree, and whether it reads as a copy.

The library is installed beside the student, so a check that passes says that the answer is right, not whose it is. A remark tells an instructor
where to look; it is no verdict. Only what the answer reaches counts: the function, and what else of the notebook it uses by name.
"""
from __future__ import annotations

import ast
import difflib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

PACKAGE = "m2kd_lite"
ALIKE = 0.9             # share of tokens in common from which on two functions are called alike
SHORT = 3               # a function of fewer statements is the same in many honest answers


def remark(sources: Sequence[str], function: str, solving: Sequence[Callable]) -> str:
    """What an instructor should know of an answer, or nothing.

    Parameters
    ----------
    sources : the code of the notebook's cells, in order, the lesson's imports first.
    function : the name of the answer.
    solving : functions of the library that solve the exercise; see `solves`.
    """
    trees = [tree for tree in map(_parsed, sources) if tree is not None]
    defined, bound = _definitions(trees), _bindings(trees)
    reached = _reached(function, defined)
    named = [name for node in reached.values() for name in _library_names(node, bound, defined)]
    if function not in defined and function in bound:
        named.append(bound[function])
    called = [one for one in solving if any(_resolved(name) is one for name in named)]
    if called:
        return f"calls {', '.join(sorted(map(name_of, called)))}"
    bodies = [node for node in reached.values() if isinstance(node, ast.FunctionDef)]
    alike = [(_likeness(node, original), original) for node in bodies for original in [*solving, *_helpers(solving)]]
    share, original = max(alike, key=lambda pair: pair[0], default=(0.0, None))
    if original is None or share < ALIKE:
        return ""
    return f"reads as {name_of(original)} does ({100 * share:.0f} % alike)"


def solves(solution: str, imports: str, reference: Callable) -> list[Callable]:
    """The library's functions that solve an exercise: what the lesson's own solution calls, and what the check compares with.

    Where one of them only hands on to another, as `distillation_loss` does, that other one solves it too.
    """
    trees = [ast.parse(imports), ast.parse(solution)]
    bound = _bindings(trees)
    found: list[Callable] = [thing for name in _library_names(trees[1], bound, {}) if inspect.isfunction(thing := _resolved(name))]
    found += [reference]
    found += [other for one in found if _statements(_tree(one)) == 1 for other in _callees(one)]
    return list({id(one): one for one in found}.values())


def name_of(function: Callable) -> str:
    """As a lesson writes it: `losses.distillation_loss`."""
    return f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"


def _parsed(source: str) -> ast.Module | None:
    """The tree of a cell, without lines that only IPython reads; None if it is no Python."""
    plain = "\n".join("" if re.match(r"\s*[%!?]", line) else line for line in source.splitlines())
    try:
        return ast.parse(plain)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _definitions(trees: Sequence[ast.Module]) -> dict[str, ast.AST]:
    """What the cells define at their top: name to the last definition or assignment of it."""
    found: dict[str, ast.AST] = {}
    for node in (node for tree in trees for node in tree.body):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found[node.name] = node
        elif isinstance(node, ast.Assign):
            found |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
    return found


def _bindings(trees: Sequence[ast.Module]) -> dict[str, str]:
    """What names stand for by imports, anywhere, and by plain assignments of these: `L` to "m2kd_lite.method.losses"."""
    bound: dict[str, str] = {}
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound |= {alias.asname: alias.name} if alias.asname else {alias.name.partition(".")[0]: alias.name.partition(".")[0]}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [alias for alias in node.names if alias.name != "*"]
            if len(names) < len(node.names) and node.module.partition(".")[0] == PACKAGE:
                bound |= {name: f"{node.module}.{name}" for name in vars(_resolved(node.module) or object) if not name.startswith("_")}
            bound |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in names}
        elif isinstance(node, ast.Assign) and (dotted := _dotted(node.value, bound)):
            bound |= {target.id: dotted for target in node.targets if isinstance(target, ast.Name)}
    return {name: dotted for name, dotted in bound.items() if dotted.partition(".")[0] == PACKAGE}


def _dotted(node: ast.AST, bound: dict[str, str]) -> str:
    """`losses.distillation_loss`, or `getattr(losses, "distillation_loss")`, as a full name; empty for anything else."""
    if isinstance(node, ast.Name):
        return bound.get(node.id, "")
    if isinstance(node, ast.Attribute):
        root, name = node.value, node.attr
    elif (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr" and len(node.args) > 1
          and isinstance(node.args[1], ast.Constant)):
        root, name = node.args[0], str(node.args[1].value)
    else:
        return ""
    before = _dotted(root, bound)
    return f"{before}.{name}" if before else ""


def _reached(function: str, defined: dict[str, ast.AST]) -> dict[str, ast.AST]:
    """The definitions that an answer uses, itself first."""
    reached: dict[str, ast.AST] = {}
    waiting = [function]
    while waiting:
        name = waiting.pop()
        if name in defined and name not in reached:
            reached[name] = defined[name]
            waiting += [node.id for node in ast.walk(defined[name]) if isinstance(node, ast.Name)]
    return reached


def _library_names(tree: ast.AST, bound: dict[str, str], defined: dict[str, ast.AST]) -> Iterator[str]:
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Name) and isinstance(defined.get(node.id), ast.FunctionDef)):
            if dotted := _dotted(node, bound):
                yield dotted


def _resolved(dotted: str) -> Any:
    try:
        return pkgutil.resolve_name(dotted)
    except (AttributeError, ImportError, ValueError):
        return None


def _callees(function: Callable) -> list[Callable]:
    """The library's functions that a function of the library calls by their bare names."""
    plain: Any = inspect.unwrap(function)
    named = [plain.__globals__.get(name) for name in plain.__code__.co_names]
    return [other for other in named if inspect.isfunction(other) and other.__module__.partition(".")[0] == PACKAGE]


def _helpers(functions: Sequence[Callable]) -> list[Callable]:
    return [other for function in functions for other in _callees(function)]


def _tree(function: Callable) -> ast.FunctionDef:
    definition = ast.parse(inspect.cleandoc("\n" + inspect.getsource(inspect.unwrap(function)))).body[0]
    assert isinstance(definition, ast.FunctionDef)
    return definition


def _statements(definition: ast.FunctionDef) -> int:
    return sum(isinstance(node, ast.stmt) for statement in _body(definition) for node in ast.walk(statement))


def _body(definition: ast.FunctionDef) -> list[ast.stmt]:
    return definition.body[ast.get_docstring(definition, clean=False) is not None:]


def _likeness(answer: ast.FunctionDef, original: Callable) -> float:
    """The share of tokens that two functions have in common, all local names taken for one; 0 if either is short."""
    library = _tree(original)
    if min(_statements(answer), _statements(library)) < SHORT:
        return 0.0
    return difflib.SequenceMatcher(None, _tokens(answer), _tokens(library), autojunk=False).ratio()


def _tokens(definition: ast.FunctionDef) -> list[str]:
    nodes = [node for statement in _body(definition) for node in ast.walk(statement)]
    local = {argument.arg for argument in ast.walk(definition.args) if isinstance(argument, ast.arg)}
    local |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    text = "\n".join(map(ast.unparse, _body(definition)))
    return ["_" if token in local else token for token in re.findall(r"\w+|[^\w\s]", text)]
