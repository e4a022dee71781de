"""Six real views of handwritten digits: accuracies that plain implementations reach."""

from __future__ import annotations

import numpy as np
import pytest

from mmcore.fusion.autoencoder import AutoencoderFusion
from mmcore.fusion.cca import CcaFusion
from mmcore.fusion.concat import ConcatFusion
from mmcore.fusion.gcca import GccaFusion
from mmcore.fusion.late import LateFusion
from mmcore.fusion.multiplicative import MultiplicativeFusion
from mmcore.fusion.weighted import WeightedFusion


@pytest.mark.parametrize(
    ("make", "least"),
    [
        (ConcatFusion, 0.975),
        (LateFusion, 0.97),
        (CcaFusion, 0.96),
        (GccaFusion, 0.96),
        (lambda: WeightedFusion(epochs=30), 0.97),
        (lambda: AutoencoderFusion(epochs=30), 0.97),
        (lambda: LateFusion(modalities=["pix"]), 0.95),
        (lambda: ConcatFusion(C=10.0, head="kernel"), 0.975),
        (lambda: ConcatFusion(C=1.0, head="tree"), 0.97),
        (lambda: LateFusion(combine="learned"), 0.97),
        (lambda: MultiplicativeFusion(C=0.1, modalities=["fac", "kar"]), 0.95),
    ],
    ids=[
        "concat",
        "late",
        "cca",
        "gcca",
        "weighted",
        "autoencoder",
        "only-pix",
        "concat-kernel",
        "concat-tree",
        "late-learned",
        "multiplicative",
    ],
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
