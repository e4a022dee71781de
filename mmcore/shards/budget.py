"""How many rows may be set aside before a run stops and says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmcore.errors import TooManyRejectsError
from mmcore.records import Json, Reject, count_by
from mmcore.shards.exclusions import FOLDER, PASSING
from mmcore.shards.filters import FILTERED

EXAMPLES = 5


def rejects_of(receipt: Mapping[str, Json]) -> list[Reject]:
    """What making this shard set aside."""
    return [Reject(**reject) for reject in receipt["rejects"]]


class RejectBudget:
    """Counts the rows that have a reject; empty cells are none, and what filters leave out was not wanted."""

    def __init__(self, rows: int, share: float) -> None:
        self._rows = rows
        self._share = share
        self._rejected = 0
        self._rejects: list[Reject] = []

    def add_receipt(self, receipt: Mapping[str, Json]) -> int:
        """Count a shard; returns how many of its rows have a reject. Raises TooManyRejectsError."""
        rejects = rejects_of(receipt)
        rows = len({reject.key for reject in rejects if reject.code != FILTERED})
        self.add(rejects, rows)
        return rows

    def add(self, rejects: Sequence[Reject], rows: int) -> None:
        """Count rejects on `rows` distinct rows. Raises TooManyRejectsError as soon as there are too many in all."""
        self._rejects += rejects
        self._rejected += rows
        if self._rejected > self._share * self._rows:
            raise TooManyRejectsError(self._message())

    def _message(self) -> str:
        # 'no-modality' and 'dropped' follow from other rejects of the same row, except for rows that name no file.
        causes = [reject for reject in self._rejects if reject.source]
        codes = count_by(reject.code for reject in causes)
        counts = ", ".join(f"{code} {count:,}" for code, count in codes.items())
        share = f"{self._rejected:,} of {self._rows:,} rows ({self._rejected / self._rows:.1%})"
        what = f"{share} have been set aside so far, and data.max_rejected allows {self._share:.1%}: {counts}."
        fix = "Correct or remove these rows and files, or raise data.max_rejected, and run the same command again; "
        lines = [what, *map(_line, _examples(causes, codes)), f"{fix}what was finished is kept."]
        if lasting := sorted({reject.code for reject in causes if reject.circumstantial} - PASSING):
            lines.append(
                f"What was set aside as {' or '.join(lasting)} is tried again once its file below {FOLDER}/ in "
                "the output is removed."
            )
        return "\n".join(lines)


def examples(rejects: Sequence[Reject]) -> list[str]:
    """A few rejects in words, of as many kinds as there are; those that only follow from others left out."""
    causes = [reject for reject in rejects if reject.source]
    return [_line(reject).strip() for reject in _examples(causes, count_by(reject.code for reject in causes))]


def _examples(causes: Sequence[Reject], codes: Mapping[str, int]) -> list[Reject]:
    """A few rejects, of as many kinds as there are."""
    firsts = [next(reject for reject in causes if reject.code == code) for code in codes]
    others = [reject for reject in causes if all(reject is not first for first in firsts)]
    return (firsts + others)[:EXAMPLES]


def _line(reject: Reject) -> str:
    what = f"{reject.modality} of {reject.key!r}" if reject.modality else f"{reject.key!r}"
    return f"  {what} ({reject.source}): {reject.code}, {reject.message}"
