"""The evaluate stage and the report as Prefect tasks: models to scores, a table, one HTML page."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from mmcore.config.metrics import METRIC_WORDS
from mmcore.evaluation.comparison_words import left_out, settings
from mmcore.evaluation.evaluate import evaluate_models, leaderboard
from mmcore.records import EncoderEntry, EvaluationEntry, Json, ModelEntry
from mmcore.report.build import build_report
from mmcore.shards.read import read_dataset
from tasks.context import Run


@task(task_run_name="evaluate {run.config.name}", cache_policy=NO_CACHE, persist_result=False)
def evaluate(run: Run, dataset: str, encoders: list[EncoderEntry], models: list[ModelEntry]) -> list[EvaluationEntry]:
    """Score the models on the test split where that was not done yet; the leaderboard goes to the record."""
    with run.stage("evaluate", run.config.name) as progress:
        evaluations = evaluate_models(
            run.config, read_dataset(run.store, dataset), encoders, models, run.store, run.pool, progress
        )
        board = leaderboard(run.config, models, evaluations, run.store)
        board["verdict"] = [*board["verdict"], *left_out(run.record.get("left_out", []))]
    run.write(leaderboard=board)
    create_table_artifact(key="leaderboard", table=_rows(board), description=f"Test split of {run.config.name}")
    run.terminal.line(f"[bold]evaluate[/]   {progress.counted()}{progress.timed()}")
    return evaluations


@task(task_run_name="report {run.config.name}", cache_policy=NO_CACHE, persist_result=False)
def write_report(run: Run) -> str:
    """Publish the run's page and link it; where it is."""
    path = f"{run.folder}/report/index.html"
    run.store.publish_bytes(path, build_report(run.store, run.record).encode())
    where = run.store.url(path)
    if run.store.local:
        text = f"[Report]({'file://' + where}) at `{where}`"
        create_markdown_artifact(key="report", markdown=text, description=f"Report of {run.run_id}: {where}")
    else:
        create_link_artifact(key="report", link=where, link_text="Report", description=f"Report of {run.run_id}")
    return where


def _rows(board: Json) -> list[dict[str, str]]:
    """The leaderboard as people read it: rounded, an interval in one column, scores without a modality beside it."""
    return [
        {
            "model": row["model"],
            "setting": settings(row),
            "role": "chosen" if row["chosen"] else "floor" if row["floor"] else "baseline" if row["baseline"] else "",
            METRIC_WORDS[board["headline"]]: f"{row['score']:.3f}",
            "95% interval": f"{row['low']:.3f} – {row['high']:.3f}",
            **{METRIC_WORDS[name]: f"{row[name]:.3f}" for name in board["metrics"][1:]},
            **{f"without {name}": f"{value:.3f}" for name, value in row["without"].items() if value is not None},
            "rows": f"{row['n']:,}",
        }
        for row in board["rows"]
    ]
