"""Reads the source of a fold, and of the functions that it calls, for what it does with the parts of an event.

Nothing is run. An expression is a `Value`: where it may come from. Every branch counts as taken, and what is not known
here raises, so that its reader takes everything for used.
"""

from __future__ import annotations

import ast
import builtins
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from types import FunctionType, ModuleType
from typing import Any, ClassVar

from msgspec.structs import replace

from position_ledger.projection.carrying.uses import (
    NOTHING,
    ROW,
    Column,
    Envelope,
    Field,
    Origin,
    Uses,
    Value,
    WholeRow,
    either,
)
from position_ledger.projection.definition import Row
from position_ledger.projection.source import names_of, source_tree
from position_ledger.store.envelope import Recorded

DEPTH_MAX = 20
"""How deep calls are followed."""

CALLS_MAX = 2_000
"""How many calls of one fold are followed: each is read anew wherever it is made."""


class NotUnderstoodError(Exception):
    """Source that is not known here."""


class Reading:
    """One function on its way: what its local names are, and what it may answer. Branches are all taken."""

    def __init__(
        self,
        uses: Uses,
        names: Mapping[str, Any] | None = None,
        *,
        depth: int = 0,
        calls: Iterator[int] | None = None,
    ) -> None:
        """Of a function that is called with ``names``; without them, of whoever calls the fold itself."""
        self._uses = uses
        self._names = names or {}
        self._depth = depth
        self._calls = calls or count(1)
        self._local: dict[str, Value] = {}
        self._answers: list[Value] = []

    def called(self, function: Any, arguments: Sequence[Value], keywords: Mapping[str, Value]) -> Value:
        """What a function with a source answers.

        Raises:
            NotUnderstoodError: the source has something that is not known here.
            ConfigurationError: the source cannot be read.
        """
        if not isinstance(function, FunctionType) or inspect.unwrap(function) is not function:
            raise NotUnderstoodError
        tree = source_tree(function).body[0]
        if not isinstance(tree, ast.FunctionDef) or tree.name != function.__name__:
            raise NotUnderstoodError
        if self._depth == DEPTH_MAX or next(self._calls) > CALLS_MAX:
            raise NotUnderstoodError
        inner = Reading(self._uses, names_of(function), depth=self._depth + 1, calls=self._calls)
        inner._local = _bound(function, arguments, keywords)
        inner._run(tree.body)
        return either(inner._answers)

    def _run(self, statements: Iterable[ast.stmt]) -> None:
        for statement in statements:
            match statement:
                case ast.Return(value=value):
                    self._answers.append(self._value(value) if value else NOTHING)
                case ast.Assign(targets=[target], value=value):
                    self._assign(target, value)
                case ast.AnnAssign(target=target, value=value):
                    if value is not None:
                        self._assign(target, value)
                case ast.Expr(value=value):
                    self._use(value)
                case ast.If(test=test, body=body, orelse=orelse):
                    self._test(test)
                    self._branch(body, orelse)
                case ast.Assert(test=test):
                    self._test(test)
                case ast.Raise() | ast.Pass():
                    pass  # what is raised ends the load, whatever it says
                case _:
                    raise NotUnderstoodError

    def _branch(self, body: Iterable[ast.stmt], orelse: Iterable[ast.stmt]) -> None:
        before = dict(self._local)
        self._run(body)
        taken, self._local = self._local, before
        self._run(orelse)
        names = taken.keys() | self._local.keys()
        self._local = {name: either(ways[name] for ways in (taken, self._local) if name in ways) for name in names}

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        match target, value:
            case ast.Name(id=name), _:
                self._local[name] = self._value(value)
            case ast.Tuple(elts=targets), ast.Tuple(elts=values) if len(targets) == len(values):
                if not all(isinstance(one, ast.Name) for one in targets):
                    raise NotUnderstoodError
                found = [self._value(one) for one in values]
                self._local |= {one.id: part for one, part in zip(targets, found, strict=True)}  # type: ignore[attr-defined]
            case _:
                raise NotUnderstoodError

    def _use(self, *expressions: ast.expr) -> Value:
        for expression in expressions:
            self._uses.use(self._value(expression))
        return NOTHING

    def _test(self, expression: ast.expr) -> None:
        self._uses.test(self._value(expression))

    def _value(self, node: ast.expr) -> Value:
        read = self._READ.get(type(node))
        if read is None:
            raise NotUnderstoodError
        return read(self, node)

    def _constant(self, _: ast.Constant) -> Value:
        return NOTHING

    def _inside(self, node: ast.expr) -> Value:
        """All of it is used, and what comes of it is new."""
        return self._use(*(child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)))

    def _choice(self, node: ast.IfExp) -> Value:
        self._test(node.test)
        return either([self._value(node.body), self._value(node.orelse)])

    def _first_true(self, node: ast.BoolOp) -> Value:
        found = [self._value(one) for one in node.values]
        self._uses.test(either(found[:-1]))
        return either(found)

    def _unary(self, node: ast.UnaryOp) -> Value:
        if not isinstance(node.op, ast.Not):
            return self._inside(node)
        self._test(node.operand)
        return NOTHING

    def _compare(self, node: ast.Compare) -> Value:
        match node.ops, node.comparators:
            case [ast.Is() | ast.IsNot()], [ast.Constant(value=None)]:
                self._value(node.left)  # a text is as little None as its decimal
                return NOTHING
        return self._inside(node)

    def _name(self, node: ast.Name) -> Value:
        name = node.id
        if name in self._local:
            return self._local[name]
        if name in self._names:
            return Value(objects=(self._names[name],))
        if hasattr(builtins, name):
            return Value(objects=(getattr(builtins, name),))
        raise NotUnderstoodError

    def _attribute(self, node: ast.Attribute) -> Value:
        return self._of(self._value(node.value), node.attr)

    def _of(self, whole: Value, name: str) -> Value:
        if whole.parts:
            self._uses.use(whole)
            return NOTHING
        modules = (one for one in whole.objects if isinstance(one, ModuleType) and hasattr(one, name))
        named = Value(objects=tuple(getattr(one, name) for one in modules))
        return either([named, *(self._part(origin, name) for origin in whole.origins)])

    def _part(self, origin: Origin, name: str) -> Value:
        match origin:
            case Envelope(topic=topic) if name == "body":
                return Value(frozenset({Field(topic, ())}))
            case Envelope() if name in Recorded.__struct_fields__:
                return NOTHING
            case Field(topic=topic, path=path) if (*path, name) in self._uses.fields[topic]:
                return Value(frozenset({Field(topic, (*path, name))}))
            case WholeRow() if name in self._uses.row.__struct_fields__:
                return Value(frozenset({Column(name)}))
            case _:
                self._uses.use(Value(frozenset({origin})))
                return NOTHING

    def _display(self, node: ast.Dict) -> Value:
        parts: dict[str, Value] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                parts |= self._spread(value)
            elif isinstance(key, ast.Constant) and isinstance(key.value, str):
                parts[key.value] = self._value(value)
            else:
                self._use(key, value)
        return Value(parts=parts)

    def _spread(self, expression: ast.expr) -> Mapping[str, Value]:
        """What follows two stars."""
        value = self._value(expression)
        if value.origins or value.objects:
            raise NotUnderstoodError
        return value.parts

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> Value:
        """What it walks over is used, so that its own names have no amount that is not."""
        before = dict(self._local)
        for one in node.generators:
            self._use(one.iter)
            names = (part.id for part in ast.walk(one.target) if isinstance(part, ast.Name))
            self._local |= dict.fromkeys(names, NOTHING)
            self._use(*one.ifs)
        self._use(*([node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]))
        self._local = before
        return NOTHING

    def _call(self, node: ast.Call) -> Value:
        function = self._value(node.func)
        arguments = [self._value(one) for one in node.args]
        keywords: dict[str, Value] = {}
        for keyword in node.keywords:
            keywords |= {keyword.arg: self._value(keyword.value)} if keyword.arg else self._spread(keyword.value)
        self._uses.use(function)
        if any(isinstance(one, ast.Starred) for one in node.args):  # which parameter an argument is for is not known
            return self._unread(arguments, keywords)
        match function.objects, node.args:
            case [known], [_, ast.Constant(value=str(name)), *_] if known is getattr:
                there = Value(frozenset(one for one in arguments[0].origins if not self._uses.lacks(one, name)))
                return either([self._of(there if arguments[2:] else arguments[0], name), *arguments[2:]])
            case [], _:
                return self._unread(arguments, keywords)
        return either([self._answer(known, arguments, keywords) for known in function.objects])

    def _answer(self, known: Any, arguments: Sequence[Value], keywords: Mapping[str, Value]) -> Value:
        if known is replace and len(arguments) == 1 and _is_row(arguments[0]):
            return self._row(keywords)
        if known is self._uses.row:
            return self._row({**dict(zip(known.__struct_fields__, arguments, strict=False)), **keywords})
        if isinstance(known, FunctionType):
            return self.called(known, arguments, keywords)
        return self._unread(arguments, keywords)

    def _unread(self, arguments: Iterable[Value], keywords: Mapping[str, Value]) -> Value:
        """A function of a library, or something else that cannot be read, may do anything with what it gets."""
        for value in (*arguments, *keywords.values()):
            self._uses.use(value)
        return NOTHING

    def _row(self, columns: Mapping[str, Value]) -> Value:
        for column, value in columns.items():
            self._uses.give(column, value)
        return Value(frozenset({ROW}))

    _READ: ClassVar[Mapping[type[ast.expr], Callable[[Any, Any], Value]]] = {
        ast.Constant: _constant,
        ast.Name: _name,
        ast.Attribute: _attribute,
        ast.Call: _call,
        ast.Dict: _display,
        ast.IfExp: _choice,
        ast.BoolOp: _first_true,
        ast.UnaryOp: _unary,
        ast.Compare: _compare,
        **dict.fromkeys((ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp), _comprehension),
        **dict.fromkeys((ast.BinOp, ast.Subscript, ast.Slice, ast.Starred, ast.JoinedStr, ast.FormattedValue), _inside),
        **dict.fromkeys((ast.Tuple, ast.List, ast.Set), _inside),
    }
    """How each kind of expression is read; others are not understood."""


def _is_row(value: Value) -> bool:
    """Whether it is a row of an event before, a new one, or one that is a constant; and nothing else."""
    is_row = value.origins <= {ROW} and all(isinstance(one, Row) for one in value.objects)
    return is_row and not value.parts and bool(value.origins or value.objects)


def _bound(function: FunctionType, arguments: Sequence[Value], keywords: Mapping[str, Value]) -> dict[str, Value]:
    """The parameters of a function by name; one that is not given has its default, in which no amount of an event is."""
    signature = inspect.signature(function, follow_wrapped=False)
    if any(one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in signature.parameters.values()):
        raise NotUnderstoodError
    try:
        given = signature.bind(*arguments, **keywords).arguments
    except TypeError as error:
        raise NotUnderstoodError from error
    return {name: given.get(name, NOTHING) for name in signature.parameters}
