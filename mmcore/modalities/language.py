"""Which language a text is in."""

from __future__ import annotations

from functools import cache
from typing import Any

from mmcore.errors import StageError

UNSURE = "und"
"""ISO 639-2's code for what cannot be told."""
LEAST = 0.5
"""Probability from which on an answer is given."""
LOOKED_AT = 4_000
"""Characters."""


def of_text(text: str) -> str:
    """The ISO 639-1 code of the most probable language, or `und`. Raises StageError without py3langid."""
    code, probability = _identifier().classify(text[:LOOKED_AT])
    return str(code) if probability >= LEAST else UNSURE


@cache
def _identifier() -> Any:
    try:
        from py3langid import langid
    except ImportError as error:
        raise StageError("language needs py3langid on every worker; install mmcore[language].") from error
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
