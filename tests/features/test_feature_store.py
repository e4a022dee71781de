from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mmcore.errors import DamagedError
from mmcore.features.store import Made, Table, finished_views, read_view, write_view
from mmcore.records import EncoderEntry
from mmcore.storage import Store

ENTRY = EncoderEntry("image", "e0", "cnn", 3, True)


def states_of(store: Store, views: dict[str, bool], weights: str) -> dict[str, str]:
    return {view: state for view, (state, _) in finished_views(store, "e0", views, weights).items()}


def write(store: Store, view: str = "v0", weights: str = "w0") -> np.ndarray:
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    write_view(
        store, "e0", view, Table(["a", "b", "c", "d"], values, np.array([True, False, True, True])), Made(weights)
    )
    return values


def test_what_is_written_is_read(store: Store) -> None:
    written = write(store)
    found = read_view(store, ENTRY, "v0")
    keys, values, present = found.keys, found.vectors, found.present
    assert keys == ["a", "b", "c", "d"]
    assert present.tolist() == [True, False, True, True]
    np.testing.assert_array_equal(values[present], written[present])
    assert values.dtype == np.float32


def test_the_file_is_plain_arrow_with_null_for_what_is_missing(store: Store) -> None:
    write(store)
    with pa.memory_map(store.url("features/e0/v0.arrow")) as file:
        table = pa.ipc.open_file(file).read_all()
        assert table.schema.field("vector").type == pa.list_(pa.float32(), 3)
        assert table["vector"].to_pylist() == [[0, 1, 2], None, [6, 7, 8], [9, 10, 11]]


def test_local_vectors_are_the_file_itself(store: Store) -> None:
    write(store)
    values = read_view(store, ENTRY, "v0").vectors
    assert not values.flags.owndata
    assert not values.flags.writeable


def test_a_bucket_gives_the_same(store: Store) -> None:
    remote = Store(f"memory://{store.root}")
    written = write(remote)
    found = read_view(remote, ENTRY, "v0")
    keys, values, present = found.keys, found.vectors, found.present
    assert keys[0] == "a"
    np.testing.assert_array_equal(values[present], written[present])
    assert states_of(remote, {"v0": False, "v1": False}, "w0") == {"v0": "finished"}


def test_equal_views_have_equal_bytes(store: Store) -> None:
    write(store)
    first = {name: store.read_bytes(f"features/e0/{name}") for name in ("v0.arrow", "v0.json")}
    write(store)
    assert first == {name: store.read_bytes(f"features/e0/{name}") for name in first}


def test_empty_and_wholly_missing_views(store: Store) -> None:
    write_view(store, "e0", "empty", Table([], np.zeros((0, 3)), np.zeros(0, bool)), Made("w0"))
    write_view(store, "e0", "none", Table(["a", "b"], np.full((2, 3), np.nan), np.zeros(2, bool)), Made("w0"))
    assert read_view(store, ENTRY, "empty").vectors.shape == (0, 3)
    found = read_view(store, ENTRY, "none")
    keys, values, present = found.keys, found.vectors, found.present
    assert (keys, values.shape, present.tolist()) == (["a", "b"], (2, 3), [False, False])


def test_damage_is_seen(store: Store) -> None:
    for view in ("v0", "v1", "v2", "v3"):
        write(store, view, "w1" if view == "v3" else "w0")
    Path(store.url("features/e0/v1.arrow")).write_bytes(b"short")
    Path(store.url("features/e0/v2.json")).write_text("{}")
    states = states_of(store, dict.fromkeys(["v0", "v1", "v2", "v3", "v4"], False), "w0")
    assert states == {"v0": "finished", "v1": "damaged", "v2": "damaged", "v3": "stale"}
    for view, words in (("v1", "cut off"), ("v2", "no feature table"), ("v4", "missing")):
        with pytest.raises(DamagedError, match=words):
            read_view(store, ENTRY, view)


def test_garbage_of_the_right_size_is_named(store: Store) -> None:
    write(store)
    path = Path(store.url("features/e0/v0.arrow"))
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(DamagedError, match="not the file that its receipt names"):
        read_view(store, ENTRY, "v0")


def test_a_vector_that_was_altered_is_named(store: Store) -> None:
    write(store)
    path = Path(store.url("features/e0/v0.arrow"))
    data = path.read_bytes()
    altered = data.replace(np.float32(11).tobytes(), np.float32(12).tobytes())
    assert altered != data
    path.write_bytes(altered)
    for root in (store, Store(f"file://{store.root}")):
        with pytest.raises(DamagedError, match=r"v0\.arrow is not the file that its receipt names"):
            read_view(root, ENTRY, "v0")


def test_vectors_of_other_weights_are_refused(store: Store) -> None:
    write(store, weights="w1")
    assert read_view(store, ENTRY, "v0", weights="w1").keys == ["a", "b", "c", "d"]
    with pytest.raises(DamagedError, match=r"v0\.arrow was made by other weights"):
        read_view(store, ENTRY, "v0", weights="w2")


def test_held_out_scores_do_not_stand_for_others(store: Store) -> None:
    table = Table(["a"], np.ones((1, 3), np.float32), np.ones(1, bool))
    write_view(store, "e0", "v0", table, Made("w0", held_out=True))
    write_view(store, "e0", "v1", table, Made("w0"))
    assert states_of(store, {"v0": True, "v1": False}, "w0") == {"v0": "finished", "v1": "finished"}
    assert states_of(store, {"v0": False, "v1": True}, "w0") == {"v0": "moved", "v1": "moved"}
    assert states_of(store, {"v0": False}, "w1") == {"v0": "stale"}
