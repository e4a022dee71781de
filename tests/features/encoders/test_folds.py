import numpy as np
import pytest
from sklearn.model_selection import GroupKFold

from mmcore.features.encoders.folds import Folds

KEYS = [f"k{n}" for n in range(200)]


def test_no_other_row_moves_a_row_without_a_group() -> None:
    folds = Folds.dealt(KEYS, None, 5)
    of_all = folds.of(KEYS, None)
    assert set(of_all) == set(range(5))
    assert Folds.dealt(KEYS[7:9], None, 5).of(KEYS[7:9], None).tolist() == of_all[7:9].tolist()
    assert np.bincount(of_all).min() > 20


@pytest.mark.parametrize(("speakers", "count"), [(5, 5), (6, 4), (40, 5)])
def test_groups_stay_together_and_folds_are_as_even_as_scikit_learn_makes_them(speakers: int, count: int) -> None:
    random = np.random.default_rng(speakers)
    groups = [f"s{n}" for n in (speakers * random.random(200) ** 2).astype(int)]
    found = Folds.dealt(KEYS, groups, count).of(KEYS, groups)
    assert all(
        len({int(fold) for fold, one in zip(found, groups, strict=True) if one == group}) == 1 for group in groups
    )
    peer = [len(held) for _, held in GroupKFold(count).split(KEYS, groups=groups)]
    assert sorted(np.bincount(found, minlength=count)) == sorted(peer)


def test_the_order_of_rows_does_not_matter() -> None:
    groups = [f"s{n % 13}" for n in range(200)]
    order = np.random.default_rng(0).permutation(200)
    mixed = Folds.dealt([KEYS[n] for n in order], [groups[n] for n in order], 3)
    assert dict(mixed.of_group) == dict(Folds.dealt(KEYS, groups, 3).of_group)


def test_some_rows_without_a_group_and_groups_that_came_later() -> None:
    groups = [None if n % 2 else f"s{n % 6}" for n in range(200)]
    folds = Folds.dealt(KEYS, groups, 4)
    found = folds.of(KEYS, groups)
    assert found[1::2].tolist() == Folds(4).of(KEYS[1::2], None).tolist()
    late = folds.of(["new", "other"], ["later", "later"])
    assert late[0] == late[1]
    assert 0 <= late[0] < 4
