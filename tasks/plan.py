"""What a run would compute and why, as the run's first task: it is on record before any work begins."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from mmcore.planning import make_plan, stage_lines
from tasks.context import Run


@task(task_run_name="plan {run.config.name}", cache_policy=NO_CACHE, persist_result=False)
def plan_run(run: Run) -> None:
    """Publish `plan.json`: every output, whether it is computed or reused, and the reason."""
    run.terminal.wait("reading the manifest and what is there already")
    plan = make_plan(run.config, run.store)
    run.shards = plan.shards
    run.store.publish_json(f"{run.folder}/plan.json", plan.as_json())
    for line in stage_lines(plan):
        get_run_logger().info("%s", line)
    create_table_artifact(key="plan", table=plan.summary(), description=f"What {run.run_id} is about to do, and why")
