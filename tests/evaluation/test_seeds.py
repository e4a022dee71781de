"""Several seeds in one table."""

from __future__ import annotations

import pytest

from mmcore.evaluation.seeds import across_seeds


def board(**accuracies: float) -> dict[str, object]:
    best = max(accuracies, key=lambda name: accuracies[name])
    rows = [
        {
            "model": name,
            "baseline": name == "late",
            "chosen": name == best,
            "accuracy": a,
            "macro_f1": a,
            "log_loss": -a,
        }
        for name, a in accuracies.items()
    ]
    return {"rows": rows}


def test_mean_and_sample_standard_deviation() -> None:
    rows = across_seeds([board(concat=0.9, late=0.5), board(concat=0.7, late=0.8), board(concat=0.8, late=0.5)])
    assert [(row["model"], row["seeds"], row["chosen"], row["baseline"]) for row in rows] == [
        ("concat", 3, 2, False),
        ("late", 3, 1, True),
    ]
    assert rows[0]["accuracy"] == {"mean": pytest.approx(0.8), "sd": pytest.approx(0.1)}
    assert rows[1]["log_loss"]["mean"] == pytest.approx(-0.6)


def test_one_seed_has_no_spread() -> None:
    assert across_seeds([board(concat=0.9)])[0]["accuracy"] == {"mean": 0.9, "sd": 0.0}
