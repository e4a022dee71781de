import numpy as np
import pytest
from pydantic import ValidationError

from mmcore.config import BigruSettings, CnnSettings
from mmcore.errors import DataError
from mmcore.features.encoders.base import WHOLE, Samples, scores_of
from mmcore.storage import Store
from mmcore.training.checkpoint import StoreCheckpoints
from tests.features.encoders.encoding import encoded
from tests.features.encoders.trained import KINDS, new_encoder, pictures, samples_for


@pytest.mark.parametrize("kind", KINDS)
def test_train_rows_are_scored_by_networks_that_did_not_learn_from_them(kind: str) -> None:
    train, val = samples_for(kind, 30), samples_for(kind, 9)
    made = new_encoder(kind, cross_fit=3, epochs=1)
    facts = made.fit(train, val)
    held_out = encoded(made, train.values, train.keys)
    assert scores_of(held_out, train.labels) == pytest.approx(facts["scores"]["train_held_out"], abs=1e-4)
    assert scores_of(encoded(made, val.values), val.labels) == pytest.approx(facts["scores"]["val"], abs=1e-4)
    # Another label of one row changes scores of all rows but those of its own fold.
    labels = train.labels.copy()
    labels[5] = (labels[5] + 1) % 3
    other = new_encoder(kind, cross_fit=3, epochs=1)
    other.fit(Samples(train.keys, train.values, labels), val)
    again, of_row = encoded(other, train.values, train.keys), made.parts(train.keys, None)
    together = of_row == of_row[5]
    assert 1 < together.sum() < 30
    np.testing.assert_array_equal(again[together], held_out[together])
    assert (np.abs(again - held_out).max(axis=1) > 0)[~together].all()


def test_each_network_has_its_curves_and_scores() -> None:
    train = pictures(30)
    facts = new_encoder("cnn", cross_fit=3).fit(train, pictures(9))
    assert list(facts["curves"]) == ["all", "without fold 0", "without fold 1", "without fold 2"]
    assert all(len(one["val_loss"]) == 2 for one in facts["curves"].values())
    assert sum(one["rows"] for one in facts["folds"]) == 30
    right = sum(one["rows"] * one["scores"]["held_out"]["accuracy"] for one in facts["folds"])
    assert right / 30 == pytest.approx(facts["scores"]["train_held_out"]["accuracy"], abs=1e-5)


@pytest.mark.parametrize("kind", ["cnn", "bigru"])
def test_saved_is_loaded(kind: str) -> None:
    train = samples_for(kind, 20)
    grouped = Samples(train.keys, train.values, train.labels, [f"g{n % 4}" for n in range(20)])
    made, again = (new_encoder(kind, cross_fit=3) for _ in "ab")
    made.fit(grouped, train)
    again.unpack(made.pack())
    assert again.pack() == made.pack()
    np.testing.assert_array_equal(again.parts(train.keys, grouped.groups), made.parts(train.keys, grouped.groups))
    for part in (WHOLE, 0, 1, 2):
        batch = made.collate([made.ready(value) for value in train.values])
        np.testing.assert_array_equal(again.encode(batch, part).landed()[0], made.encode(batch, part).landed()[0])


def test_the_network_of_all_rows_is_the_one_without_cross_fit() -> None:
    train = pictures(20)
    made, plain = new_encoder("cnn", cross_fit=2), new_encoder("cnn")
    made.fit(train, train)
    plain.fit(train, train)
    np.testing.assert_array_equal(encoded(made, train.values), encoded(plain, train.values))


class Killed(BaseException):
    pass


@pytest.mark.parametrize("network", [0, 1, 2, 3])
@pytest.mark.parametrize("epoch", [1, 3])
def test_a_killed_fit_goes_on_and_ends_in_the_same_bytes(
    network: int, epoch: int, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In mid-training (after the first epoch) and between two networks (after the third and last)."""
    monkeypatch.setattr("mmcore.training.keeping.CHECKPOINT_EVERY_S", 0.0)
    monkeypatch.setattr("mmcore.training.keeping.CHECKPOINT_SHARE", 1e9)
    train, val = pictures(24), pictures(9)

    def fitted(die_at: int | None, checkpoints: StoreCheckpoints | None) -> tuple[dict[str, bytes], list[int]]:
        made, told = new_encoder("cnn", cross_fit=3, epochs=3), []

        def on_epoch(number: int, most: int, _: dict[str, float]) -> None:
            assert number <= most == 12
            told.append(number)
            if number == die_at:
                raise Killed

        facts = made.fit(train, val, checkpoints=checkpoints, on_epoch=on_epoch)
        return {**made.pack(), "facts": repr(facts).encode()}, told

    whole, told = fitted(None, None)
    assert told == list(range(1, 13))
    checkpoints = StoreCheckpoints(store, "encoders/x/checkpoints/all.safetensors")
    with pytest.raises(Killed):
        fitted(3 * network + epoch, checkpoints)
    resumed, told = fitted(None, checkpoints)
    assert resumed == whole
    assert told == list(range(3 * network + epoch + 1, 13)), "nothing was done twice"


def test_a_finished_network_is_kept_though_no_checkpoint_was_due(store: Store) -> None:
    train, val = pictures(24), pictures(9)
    checkpoints = StoreCheckpoints(store, "encoders/x/checkpoints/all.safetensors")
    new_encoder("cnn", cross_fit=2).fit(train, val, checkpoints=checkpoints)
    told: list[int] = []
    new_encoder("cnn", cross_fit=2).fit(train, val, checkpoints=checkpoints, on_epoch=lambda n, *_: told.append(n))
    assert told == []


def test_rows_that_all_belong_together_cannot_be_held_out() -> None:
    train = pictures(9)
    grouped = Samples(train.keys, train.values, train.labels, ["one"] * 9)
    with pytest.raises(DataError, match="cross_fit 4 leaves nothing to learn from: all 9 rows"):
        new_encoder("cnn", cross_fit=4).fit(grouped, train)


@pytest.mark.parametrize("kept", ["keep_hidden", "keep_tokens"])
def test_what_cannot_be_compared_is_refused(kept: str) -> None:
    with pytest.raises(ValidationError, match=f"cross_fit and {kept} exclude each other"):
        CnnSettings(cross_fit=5, **{kept: True})
    assert BigruSettings(cross_fit=5).holds_out
    assert not BigruSettings().holds_out
