"""Expressions over a sample's facts, as `image.width >= 64`: a small, harmless part of Python's."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Facts = Mapping[str, Any]
"""A sample: `key`, `label`, `split`, `group`, ... and `meta` by column, and per modality its facts, or None where the
sample lacks it."""

NAMES = ("key", "label", "split", "group", "domain", "weight", "meta")
"""What expressions know beside the modalities."""
LONGEST = 2_000
"""Characters of an expression."""
_OPERATORS: Mapping[type[ast.AST], Callable[..., Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda item, items: item in items,
    ast.NotIn: lambda item, items: item not in items,
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
}
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {"len": len, "lower": str.lower, "abs": abs, "min": min, "max": max}


class AbsentError(Exception):
    """The expression asks for a fact that the sample does not have."""


class Expression:
    """A checked expression. Raises ValueError for what is none, saying what is allowed."""

    def __init__(self, text: str, modalities: Sequence[str]) -> None:
        self.text = text
        if len(text) > LONGEST:
            raise ValueError(f"it has more than {LONGEST:,} characters; write a function instead")
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            how = "write one as `image.width >= 64`, or name a function as module:function"
            raise ValueError(f"it is no expression; {how}") from error
        _check(self._tree, (*NAMES, *modalities))

    def __call__(self, facts: Facts) -> Any:
        """Its value for a sample.

        Raises AbsentError where it depends on a modality or column that the sample lacks, KeyError for a fact that
        its modality does not give, and what its operators raise.
        """
        return _value(self._tree, facts)


def _check(node: ast.AST, names: Sequence[str]) -> None:
    """Raise ValueError for whatever is not a plain comparison or calculation."""
    known = f"known are {', '.join(names)}, their facts as image.width, and {', '.join(_FUNCTIONS)}"
    match node:
        case ast.Name(id=name) | ast.Attribute(value=ast.Name(id=name)):
            if name not in names:
                raise ValueError(f"{name!r} is unknown; {known}")
            inner: Sequence[ast.AST] = ()
        case ast.Constant(value=str() | int() | float() | None):
            inner = ()
        case ast.Call(func=ast.Name(id=name), args=inner, keywords=[]) if name in _FUNCTIONS:
            pass
        case ast.BoolOp(values=inner) | ast.List(elts=inner) | ast.Tuple(elts=inner) | ast.Set(elts=inner):
            pass
        case ast.Compare(left=left, ops=ops, comparators=rights) if all(type(op) in _OPERATORS for op in ops):
            inner = [left, *rights]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            inner = [left, right]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
            inner = [operand]
        case _:
            raise ValueError(f"{ast.unparse(node)!r} is not allowed; {known}")
    for part in inner:
        _check(part, names)


def _value(node: ast.AST, facts: Facts) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return facts.get(name)
        case ast.Attribute(value=ast.Name(id=name), attr=attribute):
            return _fact(facts.get(name), name, attribute)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _FUNCTIONS[name](*(_value(argument, facts) for argument in arguments))
        case ast.BoolOp(op=op, values=values):
            return _joined(values, facts, stop_at=isinstance(op, ast.Or))
        case ast.List(elts=values) | ast.Tuple(elts=values) | ast.Set(elts=values):
            return [_value(value, facts) for value in values]
        case ast.Compare(left=left, ops=ops, comparators=rights):
            terms = [_value(value, facts) for value in (left, *rights)]
            return all(_OPERATORS[type(op)](terms[n], terms[n + 1]) for n, op in enumerate(ops))
        case ast.BinOp(left=left, op=op, right=right):
            return _OPERATORS[type(op)](_value(left, facts), _value(right, facts))
        case ast.UnaryOp(op=op, operand=operand):
            return _OPERATORS[type(op)](_value(operand, facts))
    raise AssertionError(ast.dump(node))  # _check admits no other


def _fact(of_name: Any, name: str, attribute: str) -> Any:
    if of_name is None:
        raise AbsentError
    if attribute == "applied":  # left out where nothing was
        return of_name.get(attribute, [])
    if attribute not in of_name:
        raise KeyError(f"{name} has no {attribute!r}, it has {', '.join(of_name)}")
    if of_name[attribute] is None:
        raise AbsentError
    return of_name[attribute]


def _joined(nodes: Sequence[ast.AST], facts: Facts, *, stop_at: bool) -> bool:
    """`or` (`stop_at` true) or `and` of those sides that do not ask for what is absent."""
    judged = False
    for node in nodes:
        try:
            if bool(_value(node, facts)) is stop_at:
                return stop_at
            judged = True
        except AbsentError:
            continue
    if not judged:
        raise AbsentError
    return not stop_at
