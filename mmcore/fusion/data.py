"""Views: what a fusion model reads. One array per modality, and which rows have it."""

from __future__ import annotations

from collections.abc import Collection, ItemsView, Iterator, KeysView, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from mmcore.errors import FusionError
from mmcore.fusion.stored import StoredRows
from mmcore.records import Dataset, EncoderEntry

if TYPE_CHECKING:
    from mmcore.features.reading import Features
    from mmcore.storage import Store

Array = npt.NDArray[Any]
Rows = slice | Sequence[int] | Array
"""A slice, whole numbers, or a mask of booleans."""


@dataclass(frozen=True, eq=False)
class View:
    """One modality of n samples: `values` (n, d) or (n, t, d), `present` (n,), `lengths` (n,) of sequences or None.

    Values of absent rows mean nothing and are never read. Raises FusionError where the shapes do not fit together.
    """

    values: Array
    present: Array
    lengths: Array | None = None

    def __post_init__(self) -> None:
        values: Any = self.values if isinstance(self.values, StoredRows) else np.asarray(self.values)
        present = np.asarray(self.present)
        if values.ndim not in (2, 3):
            raise FusionError(f"a view's values need the shape (n, d) or (n, t, d), and these have {values.shape}")
        if present.dtype != np.bool_ or present.shape != values.shape[:1]:
            raise FusionError(
                f"a view's `present` needs booleans of shape {values.shape[:1]}, got {present.dtype} of {present.shape}"
            )
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "present", present)
        if self.lengths is not None:
            lengths = np.asarray(self.lengths)
            if lengths.shape != present.shape:
                raise FusionError(f"a view's `lengths` need the shape {present.shape}, got {lengths.shape}")
            object.__setattr__(self, "lengths", lengths)

    def __len__(self) -> int:
        return len(self.present)

    def __getitem__(self, rows: Rows) -> View:
        return View(self.values[rows], self.present[rows], None if self.lengths is None else self.lengths[rows])

    @property
    def shape(self) -> tuple[int, ...]:
        """One sample's shape: (d,) or (t, d)."""
        return tuple(self.values.shape[1:])

    @classmethod
    def of(cls, values: Any) -> View:
        """A view as it is; an array, in which rows that are NaN throughout are absent; or `Features`, read whole."""
        if isinstance(values, View):
            return values
        if hasattr(values, "present") and hasattr(values, "modality"):
            return _vectors(values)
        array = np.asarray(values)
        if array.dtype.kind != "f" or array.ndim not in (2, 3) or not array.size:
            return cls(array, np.ones(array.shape[:1], bool))
        return cls(array, ~np.isnan(array).all(axis=tuple(range(1, array.ndim))))

    @classmethod
    def stored(cls, features: Features) -> View:
        """`features` that are read as they are needed by the methods that can, whole by the others."""
        values: Any = StoredRows(features, features.present)
        return cls(values, values.present)

    def read(self) -> View:
        """The same with its values in memory."""
        return View(self.values.read(), self.present) if isinstance(self.values, StoredRows) else self

    @classmethod
    def absent(cls, rows: int, shape: tuple[int, ...]) -> View:
        """A view that no row has."""
        return cls(np.full((rows, *shape), np.nan, np.float32), np.zeros(rows, bool))


class Views:
    """Several modalities of the same samples, by name.

    `views["image"]` is one `View`; `views[rows]` are all of them for some rows (a slice, whole numbers or a mask), and
    `len` counts rows, so that scikit-learn's cross-validation, searches and pipelines can cut it.
    Raises FusionError for no views at all or views of different lengths.
    """

    def __init__(self, views: Mapping[str, Any]) -> None:
        self._views = {str(name): View.of(view) for name, view in views.items()}
        if not self._views:
            raise FusionError("no views: give at least one modality, as {'image': array}")
        lengths = {name: len(view) for name, view in self._views.items()}
        if len(set(lengths.values())) > 1:
            raise FusionError(
                "views need equally many rows, got " + ", ".join(f"{name} {count}" for name, count in lengths.items())
            )

    @classmethod
    def of(cls, views: Views | Mapping[str, Any]) -> Views:
        """`views` as they are, or made from a mapping. Raises FusionError for anything else."""
        if isinstance(views, Views):
            return views
        if isinstance(views, Mapping):
            return cls(views)
        raise FusionError(
            f"views need to be `Views` or a mapping of modality names to arrays, got {type(views).__name__}"
        )

    def __len__(self) -> int:
        return len(next(iter(self._views.values())))

    @property
    def shape(self) -> tuple[int, int]:
        """Samples, and all views' widths together."""
        return len(self), sum(view.values.shape[-1] for view in self._views.values())

    @overload
    def __getitem__(self, rows: str) -> View: ...
    @overload
    def __getitem__(self, rows: Rows | tuple[Rows, Any]) -> Views: ...
    def __getitem__(self, rows: str | Rows | tuple[Rows, Any]) -> View | Views:
        if isinstance(rows, str):
            return self._views[rows]
        if isinstance(rows, tuple):
            # scikit-learn cuts rows as X[rows, ...].
            if len(rows) != 2 or rows[1] is not Ellipsis:
                raise FusionError(f"views are cut by row or by name, not by {rows!r}")
            rows = rows[0]
        if not isinstance(rows, slice):
            rows = np.asarray(rows)
            if rows.ndim != 1:
                raise FusionError("rows need to be a slice, a list of whole numbers or a mask")
            rows = rows.astype(np.intp) if rows.size == 0 else rows
        return Views({name: view[rows] for name, view in self._views.items()})

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __contains__(self, name: object) -> bool:
        return name in self._views

    def keys(self) -> KeysView[str]:
        return self._views.keys()

    def items(self) -> ItemsView[str, View]:
        return self._views.items()

    def only(self, names: Sequence[str]) -> Views:
        """These modalities alone, in this order."""
        return Views({name: self._views[name] for name in names})

    def read(self) -> Views:
        """The same with all values in memory."""
        return Views({name: view.read() for name, view in self._views.items()})

    def without(self, *names: str) -> Views:
        """The same samples as if no row had these modalities."""
        return Views(
            {name: View.absent(len(view), view.shape) if name in names else view for name, view in self._views.items()}
        )

    def __repr__(self) -> str:
        inside = ", ".join(
            f"{name} {view.values.shape} ({view.present.mean():.0%} present)" if len(view) else name
            for name, view in self._views.items()
        )
        return f"Views({len(self)} rows: {inside})"


@dataclass(frozen=True, eq=False)
class LabelledViews:
    """Views with the label and key of every row, in shard order."""

    views: Views
    labels: Array
    keys: Array

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Rows) -> LabelledViews:
        return LabelledViews(self.views[rows], self.labels[rows], self.keys[rows])


def load_views(
    store: Store,
    dataset: Dataset,
    encoders: Sequence[EncoderEntry],
    *splits: str,
    tokens: Collection[str] = (),
    stored: bool = False,
) -> LabelledViews:
    """The features and labels of these splits, shard after shard: (n, d) float32 per modality.

    Of the modalities in `tokens` it is their sequences: (n, t, d), padded with 0 to the longest. Labels, by the data
    set's task a name, a list of names or a number (None or NaN where a row has none), come from the shard
    indexes, vectors from the feature store; the data set's `removed` are left out. Raises DamagedError where the
    keys of the two differ (of `stored` vectors, which are left where they are, when they are read), and FusionError
    where the splits have no shards or an encoder keeps no sequences.
    """
    from mmcore.features.opening import open_encoder

    if not dataset.of(*splits):
        raise FusionError(f"the data set has no shards of {' and '.join(splits)}")
    if len({encoder.modality for encoder in encoders}) < len(encoders):
        raise FusionError("two encoders of one modality: give either the configured ones or their floors")
    views: dict[str, View] = {}
    keys: list[str] = []
    labels: list[Any] = []
    first: Features | None = None
    for encoder in encoders:
        features = open_encoder(store, dataset, encoder, splits=splits, beside=first)
        first = first or features
        # Read before the vectors, so that each file's keys are compared with them.
        keys, labels = features.keys, features.labels
        as_view = _sequences if encoder.modality in tokens else View.stored if stored else _vectors
        views[encoder.modality] = as_view(features)
    return LabelledViews(Views(views), _labels(labels, dataset.task), np.array(keys, dtype=np.str_))


def _labels(labels: Sequence[Any], task: str) -> Array:
    """Labels as models take them: class names (n,), lists of names, or numbers; None or NaN where there is none."""
    if task == "regression":
        return np.array([np.nan if label is None else label for label in labels], np.float64)
    if task == "classes" and None not in labels:
        return np.array(labels, dtype=np.str_)
    found = np.empty(len(labels), dtype=object)
    found[:] = labels
    return found


def _vectors(features: Features) -> View:
    # Sums of float16 lose digits that the store kept.
    return View(features[:].astype(np.float32, copy=False), features.present)


def _sequences(features: Features) -> View:
    if not features.has_tokens:
        raise FusionError(f"the {features.entry.name} encoder of {features.modality} keeps no sequences, only vectors")
    rows = features.tokens()
    lengths = np.array([0 if row is None else len(row) for row in rows], np.int64)
    widths = {row.shape[1] for row in rows if row is not None}
    values = np.zeros((len(rows), int(lengths.max(initial=0)), max(widths, default=0)), np.float32)
    for number, row in enumerate(rows):
        if row is not None:
            values[number, : len(row)] = row
    return View(values, features.present, lengths)
