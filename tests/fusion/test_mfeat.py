"""Six real views of handwritten digits: accuracies that plain implementations reach."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import StratifiedShuffleSplit

from mmcore.fusion.autoencoder import AutoencoderFusion
from mmcore.fusion.cca import CcaFusion
from mmcore.fusion.concat import ConcatFusion
from mmcore.fusion.gcca import GccaFusion
from mmcore.fusion.kcca import KccaFusion
from mmcore.fusion.late import LateFusion
from mmcore.fusion.pls import PlsFusion
from mmcore.fusion.weighted import WeightedFusion


@pytest.mark.parametrize(
    ("make", "least"),
    [
        (ConcatFusion, 0.975),
        (LateFusion, 0.97),
        (CcaFusion, 0.96),
        (GccaFusion, 0.96),
        (PlsFusion, 0.96),
        (lambda: WeightedFusion(epochs=30), 0.97),
        (lambda: AutoencoderFusion(epochs=30), 0.97),
        (lambda: LateFusion(modalities=["pix"]), 0.95),
    ],
    ids=["concat", "late", "cca", "gcca", "pls", "weighted", "autoencoder", "only-pix"],
)
def test_accuracy_on_the_test_split_whole_and_with_half_of_the_views_hidden(mfeat, make, least: float) -> None:
    train, val, test = mfeat["train"], mfeat["val"], mfeat["test"]
    model = make().fit(train.views, train.labels, validation=val)
    assert model.score(test.views, test.labels) >= least
    if len(model.modalities_) > 1:
        assert model.score(test.views.without("fac", "pix", "mor"), test.labels) >= 0.9
    proba = model.predict_log_proba(test.views)
    codes = model.label_codes(test.labels)
    assert -proba[np.arange(len(codes)), codes].mean() < 0.2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "views", "reads", "wanted"),
    [
        (CcaFusion, ("fac", "kar"), "each", 95.08),
        (KccaFusion, ("fac", "kar"), "each", 96.00),
        (CcaFusion, ("fou", "fac", "kar", "pix", "zer"), "each", 97.60),
        (GccaFusion, ("fou", "fac", "kar", "pix", "zer"), "mean", 96.4),
    ],
    ids=["ridge-cca", "kcca", "mcca", "gcca"],
)
def test_subspaces_on_half_splits_are_what_cca_zoo_reaches(mfeat, make, views, reads: str, wanted: float) -> None:
    parts = [mfeat[split] for split in ("train", "val", "test")]
    order = np.argsort(np.concatenate([part.keys for part in parts]).astype(int))
    X = {name: np.concatenate([part.views[name].values for part in parts])[order] for name in views}
    y = np.concatenate([part.labels for part in parts])[order]
    scores = []
    for train, test in StratifiedShuffleSplit(5, train_size=0.5, random_state=0).split(y, y):
        model = make(n_components=20, C=1.0, reads=reads)
        model.fit({name: values[train] for name, values in X.items()}, y[train])
        scores.append(100 * model.score({name: values[test] for name, values in X.items()}, y[test]))
    assert np.mean(scores) == pytest.approx(wanted, abs=0.3)
