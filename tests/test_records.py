"""Digests and the value types that cross stage borders."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcore.records import DataFile, Dataset, Reject, ShardEntry, canonical_json, canonical_texts, count_by, digest

numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


class TestDigest:
    def test_is_the_start_of_sha256_of_the_canonical_json(self) -> None:
        assert digest({"b": 1, "a": [None, "ü"]}) == hashlib.sha256(b'{"a":[null,"\xc3\xbc"],"b":1}').hexdigest()[:32]

    def test_order_of_keys_does_not_matter(self) -> None:
        assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})

    def test_type_matters(self) -> None:
        assert len({digest(1), digest("1"), digest(True), digest([1]), digest(None)}) == 5

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_refuses_what_json_cannot_hold(self, value: float) -> None:
        with pytest.raises(ValueError):
            digest({"x": value})

    def test_file_names_that_are_not_utf8_have_a_digest(self) -> None:
        assert digest("a\udcff") != digest("a")

    @given(values)
    def test_survives_a_round_through_json(self, value: object) -> None:
        spelt = canonical_json(value)
        assert canonical_json(json.loads(spelt.decode("utf-8", "surrogatepass"))) == spelt

    @given(st.lists(values))
    def test_many_at_once_are_spelt_as_each_by_itself(self, several: list[object]) -> None:
        assert canonical_texts(several) == [canonical_json(one).decode("utf-8", "surrogatepass") for one in several]

    @pytest.mark.parametrize("value", ["\0", ["\0", 1], {"\0": "\0"}, 'a"\0', "\\\0", "\\u0000", "a\0"])
    def test_many_at_once_may_hold_any_text(self, value: object) -> None:
        several = [value, {"a": 1}, value]
        assert canonical_texts(several) == [canonical_json(one).decode() for one in several]


class TestDataset:
    def test_survives_a_round_through_json(self) -> None:
        file = DataFile("shards/x.tar", "x" * 32, 10)
        dataset = Dataset(
            shards=(ShardEntry("r", "train", 3, {"image": "v"}, "l", {"image": 2}, file, None),),
            rejects=(Reject("k", "image", "corrupt", "broken", "a.png"),),
            rows=4,
            classes=("a", "b"),
            modalities={"image": {"kind": "image"}},
            facts={"kept": 3},
        )
        again = Dataset.from_json(json.loads(json.dumps(dataset.as_json())))
        assert again == dataset
        assert again.digest == dataset.digest
        assert again.of("val") == ()
        assert again.of("train", "val") == dataset.shards


def test_count_by_puts_the_most_frequent_first() -> None:
    assert list(count_by(["b", "a", "c", "c"]).items()) == [("c", 2), ("a", 1), ("b", 1)]
