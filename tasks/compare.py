"""The comparison as Prefect tasks: the models of all seeds to scores, one table, two CSV files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from mmcore.config.metrics import METRIC_WORDS
from mmcore.evaluation import comparison_words as words
from mmcore.evaluation.comparison import compare_seeds
from mmcore.evaluation.evaluate import evaluate_models
from mmcore.evaluation.verdict import signed
from mmcore.fusion.fit import standing
from mmcore.records import EncoderEntry, EvaluationEntry, Json, ModelEntry
from mmcore.shards.read import read_dataset
from tasks.context import Run


@task(task_run_name="evaluate {run.config.name}", cache_policy=NO_CACHE, persist_result=False)
def evaluate_seeds(
    run: Run, dataset: str, encoders: list[EncoderEntry], fitted: list[list[ModelEntry]]
) -> list[list[EvaluationEntry]]:
    """Score the models that stand for their methods, of all seeds at once, where that was not done yet."""
    stand = [standing(models, run.config.metric) for models in fitted]
    every = [model for models in stand for model in models]
    with run.stage("evaluate", run.config.name) as progress:
        found = iter(
            evaluate_models(
                run.config, read_dataset(run.store, dataset), encoders, every, run.store, run.pool, progress
            )
        )
    scored = [[next(found) for _ in models] for models in stand]
    run.write(evaluations=[asdict(one) for one in scored[0]])
    run.terminal.line(f"[bold]evaluate[/]   {progress.counted()}{progress.timed()}")
    return scored


@task(task_run_name="compare {run.config.name}", cache_policy=NO_CACHE, persist_result=False)
def tabulate(
    run: Run, seeds: Sequence[int], fitted: list[list[ModelEntry]], scored: list[list[EvaluationEntry]]
) -> None:
    """One table over all seeds: for the record, the UI, and as `leaderboard.csv` and `fits.csv`."""
    board, found = compare_seeds(run.config, seeds, fitted, scored, run.store)
    run.store.publish_bytes(f"{run.folder}/leaderboard.csv", words.leaderboard_csv(board, found).encode())
    run.store.publish_bytes(f"{run.folder}/fits.csv", words.fits_csv(found, board["metrics"]).encode())
    run.write(comparison=found, leaderboard=board)
    create_table_artifact(
        key="comparison",
        table=_rows(board, found),
        description=" ".join([f"Test split of {run.config.name}, {len(seeds)} seeds.", *board["verdict"]]),
    )


def _rows(board: Json, found: Json) -> list[dict[str, str]]:
    """The table as people read it."""
    shown = []
    for row in board["rows"]:
        about = found["models"][row["model"]]
        against, costs = words.against(board, row["model"], "single"), about["costs"]
        shown.append(
            {
                "model": row["model"],
                "role": "chosen" if row["chosen"] else words.role(row, board),
                METRIC_WORDS[board["headline"]]: words.spread(row["score"], row["sd"][board["headline"]]),
                "95% interval": words.interval(row),
                "against single": signed(against["difference"]) if against else "",
                "Holm's p": words.corrected(against),
                "chosen by": words.chosen(row, about),
                "setting": words.settings(row),
                "fit": words.seconds(costs),
                "memory": words.memory(costs["peak_bytes"]),
                "parameters": words.amount(costs["parameters"]),
                "rows/s": words.amount(costs["rows_per_second"]),
            }
        )
    return shown
