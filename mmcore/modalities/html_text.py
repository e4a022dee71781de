"""The text that a reader of an HTML page sees."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

DROPPED = frozenset({"script", "style", "template", "title", "iframe", "noembed", "noframes", "svg", "math"})
"""Elements whose content is no text of the page."""
BLOCKS = frozenset(
    {
        *("address", "article", "aside", "blockquote", "body", "br", "caption", "center", "dd", "details", "dialog"),
        *("dir", "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4"),
        *("h5", "h6", "head", "header", "hr", "html", "legend", "li", "main", "menu", "nav", "ol", "optgroup"),
        *("option", "p", "pre", "search", "section", "select", "summary", "table", "tbody", "tfoot", "thead", "tr"),
        "ul",
    }
)
"""Elements that start and end a line."""
_CELLS = frozenset({"td", "th"})
_SPACES = re.compile(r"[ \t\n\r\f\v]+")


def visible_text(html: str) -> str:
    """The page's text: a line per block, runs of white space as one, entities decoded, scripts and styles dropped.

    Raises ImportError without selectolax; Python's own parser takes quadratic time on hostile pages.
    """
    from selectolax.lexbor import LexborHTMLParser

    lines: list[list[str]] = [[]]
    for node, entered in _walk(LexborHTMLParser(html).root):
        tag = node.tag
        if tag == "-text":
            if entered:
                lines[-1].append(node.text_content or "")
        elif tag in BLOCKS:
            lines.append([])
        elif tag in _CELLS:
            lines[-1].append(" ")
    plain = (_SPACES.sub(" ", "".join(line)).strip() for line in lines)
    return "\n".join(line for line in plain if line)


def _walk(root: Any) -> Iterator[tuple[Any, bool]]:
    """Each node as it is entered (true) and left (false), without those that are dropped and all in them."""
    node, depth = root, 0
    while node is not None:
        dropped = node.tag in DROPPED
        if not dropped:
            yield node, True
            if (child := node.child) is not None:
                node, depth = child, depth + 1
                continue
            yield node, False
        while depth and node.next is None:
            node, depth = node.parent, depth - 1
            yield node, False
        node = node.next if depth else None
