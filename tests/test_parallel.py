"""Jobs on Dask, in this process and in a child: one contract, also when processes die."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from mmcore import parallel
from mmcore.config import ComputeConfig
from mmcore.errors import ConfigError, StageError
from mmcore.parallel import Died, Pool, cluster, on_dask, open_pool, run_isolated, serial_pool
from tests import parallel_jobs as jobs
from tests.parallel_jobs import Work

ROOT = Path(__file__).resolve().parent.parent


def compute_of(*, retries: int = 2, **dask: object) -> ComputeConfig:
    return ComputeConfig.model_validate({"dask": {"workers": 2, **dask}, "retries": retries})


@pytest.fixture(scope="module")
def dask_pool() -> Iterator[Pool]:
    with open_pool(compute_of()) as pool:
        yield pool


@pytest.fixture(params=["serial", "dask"])
def pool(request: pytest.FixtureRequest) -> Pool:
    return request.getfixturevalue("dask_pool") if request.param == "dask" else serial_pool(compute_of())


def name_of(work: Work) -> str:
    return work.name


# What every pool does


def test_every_job_comes_back_and_what_it_told_comes_first(pool: Pool) -> None:
    told: list[tuple[int, int]] = []
    results = {}
    work = [Work(number) for number in range(20)]
    for job, result in pool.map(
        jobs.square, work, name=name_of, on_event=lambda w, e: told.append((w.number, e["step"]))
    ):
        results[job] = result
        assert [step for number, step in told if number == job.number] == [0, 1, 2]
    assert results == {job: job.number**2 for job in work}


def test_no_jobs(pool: Pool) -> None:
    assert list(pool.map(jobs.square, [], name=name_of)) == []


def test_an_error_is_tried_again(pool: Pool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    work = [Work(1, "flaky", str(tmp_path)), Work(2, "", str(tmp_path))]
    assert dict(pool.map(jobs.faulty, work, name=name_of)) == {work[0]: 3, work[1]: 1}
    assert [record.getMessage() for record in caplog.records] == [
        "work 1 failed and is tried again (1 of 2): OSError: the network is down",
        "work 1 failed and is tried again (2 of 2): OSError: the network is down",
    ]


def test_an_error_that_stays_names_job_cause_and_line(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(StageError) as caught:
        list(pool.map(jobs.faulty, [Work(7, "broken", str(tmp_path))], name=name_of))
    assert str(caught.value).startswith("work 7 failed 3 times: ValueError: seven is not a shape (")
    assert 'parallel_jobs.py", line' in str(caught.value)
    assert isinstance(caught.value.__cause__, ValueError)
    assert len(list(tmp_path.iterdir())) == 3


def test_our_own_errors_are_final_and_whole(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        list(pool.map(jobs.faulty, [Work(1, "final", str(tmp_path))], name=name_of))
    assert [problem.where for problem in caught.value.problems] == ["a.b", "c"]
    assert str(caught.value) == "a.b: is wrong. Mend it.\nc: too."
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("what", "told"), [("unpicklable", "nobody can send me"), ("two", "1 and 2"), ("exit", "SystemExit: 3")]
)
def test_odd_errors(pool: Pool, what: str, told: str) -> None:
    with pytest.raises(StageError, match=f"^work 1 failed 3 times: .*{told}"):
        list(pool.map(jobs.faulty, [Work(1, what)], name=name_of))


def test_an_error_in_the_listener_ends_the_map(pool: Pool) -> None:
    def listener(_work: Work, _event: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(pool.map(jobs.square, [Work(1)], name=name_of, on_event=listener))
    assert len(list(pool.map(jobs.square, [Work(1)], name=name_of))) == 1


def test_telling_outside_a_job_is_dropped() -> None:
    parallel.tell({"nobody": "listens"})
    assert not parallel.in_single_threaded_process_worker()


# Dask


def test_nothing_starts_without_a_job() -> None:
    code = (
        "import sys, tests.parallel_jobs as j; from mmcore.parallel import *; from mmcore.config import ComputeConfig\n"
        "with open_pool(ComputeConfig()) as pool:\n"
        "    assert pool.workers >= 1 and list(pool.map(j.square, [], name=str)) == []\n"
        "with open_pool(ComputeConfig.model_validate({'dask': {'workers': 0}})) as pool:\n"
        "    assert dict(pool.map(j.square, [j.Work(3)], name=str)) == {j.Work(3): 9}\n"
        "print(sorted({'dask', 'distributed', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_results_come_in_the_order_of_completion(dask_pool: Pool) -> None:
    assert [job.number for job, _ in dask_pool.map(jobs.nap, [Work(8), Work(1), Work(2)], name=name_of)] == [1, 2, 8]


def test_jobs_are_drawn_as_workers_become_free(dask_pool: Pool) -> None:
    drawn = itertools.count()
    work = (Work(next(drawn)) for _ in range(100))
    finished = 0
    for _ in dask_pool.map(jobs.square, work, name=name_of):
        finished += 1
        assert int(repr(drawn)[6:-1]) <= finished + on_dask.JOBS_PER_WORKER * dask_pool.workers
    assert finished == 100


def test_a_map_given_up_leaves_the_pool_usable(dask_pool: Pool) -> None:
    running = dask_pool.map(jobs.nap, [Work(1)] * 50, name=name_of)
    next(running)
    running.close()
    started = time.monotonic()
    assert len(list(dask_pool.map(jobs.square, [Work(1)], name=name_of))) == 1
    assert time.monotonic() - started < 2


def test_threads_share_the_workers(dask_pool: Pool) -> None:
    results: dict[int, list[int]] = {}

    def many(base: int) -> None:
        work = [Work(base + number) for number in range(30)]
        results[base] = sorted(result for _, result in dask_pool.map(jobs.square, work, name=name_of))

    threads = [threading.Thread(target=many, args=[base]) for base in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {base: [(base + number) ** 2 for number in range(30)] for base in (0, 100, 200)}


def test_log_lines_of_jobs_reach_the_driver(dask_pool: Pool, caplog: pytest.LogCaptureFixture, capfd) -> None:
    with caplog.at_level(logging.INFO, "mmcore"):
        list(dask_pool.map(jobs.log, [Work(3)], name=name_of))
    assert [(r.name, r.getMessage(), r.job) for r in caplog.records] == [
        ("mmcore.shards", "looked at work 3", "work 3")
    ]


def test_workers_start_lean_and_alone(dask_pool: Pool) -> None:
    (found,) = [result for _, result in dask_pool.map(jobs.surroundings, [Work(1)], name=name_of)]
    assert found == {"alone": True, "loaded": [], "main": "__main__"}
    assert dask_pool.process_per_job


def test_the_death_of_a_worker_is_not_seen(dask_pool: Pool, tmp_path: Path) -> None:
    work = [Work(number, "dies once" if number == 3 else "", str(tmp_path)) for number in range(8)]
    results = dict(dask_pool.map(jobs.faulty, work, name=name_of))
    assert set(results) == set(work)
    assert results[work[3]] == 2
    assert not any(isinstance(result, Died) for result in results.values())


def test_a_job_that_kills_its_workers_is_named(dask_pool: Pool, capfd) -> None:
    work = [Work(number, "dies" if number == 3 else "") for number in range(8)]
    results = dict(dask_pool.map(jobs.faulty, work, name=name_of))
    assert results.pop(work[3]) == Died("work 3", results_reason(), {"attempt": 1})
    assert set(results.values()) == {1}
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("deaths", [1, 99])
def test_workers_that_die_while_they_start(deaths: int, caplog: pytest.LogCaptureFixture) -> None:
    over = threading.Event()
    before = set(spawned())

    def kill_some() -> None:
        killed = 0
        while not over.wait(0.01) and killed < deaths:
            for pid in set(spawned()) - before:
                before.add(pid)
                os.kill(pid, signal.SIGKILL)
                killed += 1
                break

    killer = threading.Thread(target=kill_some)
    killer.start()
    try:
        with open_pool(compute_of(workers=1)) as pool:
            if deaths == 1:
                ((_, result),) = pool.map(jobs.faulty, [Work(1)], name=name_of)
                assert result == 1
            else:
                with pytest.raises(StageError, match=r"1 Dask workers do not start.*compute\.dask\.workers"):
                    list(pool.map(jobs.faulty, [Work(1)], name=name_of))
    finally:
        over.set()
        killer.join()
    assert caplog.messages[0] == "A Dask worker died while it started (1 of 3 tries)."


def spawned() -> list[int]:
    """The processes that this one started to run Python functions in."""
    return [child.pid for child in psutil.Process().children() if any("spawn_main" in word for word in child.cmdline())]


def results_reason() -> str:
    return "its worker process died twice: killed, out of memory, or a crash in native code"


def test_a_result_that_cannot_be_sent_is_an_error(dask_pool: Pool) -> None:
    with pytest.raises(StageError, match="the result cannot be sent back: .*generator"):
        list(dask_pool.map(jobs.faulty, [Work(1, "lambda")], name=name_of))


# Which pool


def test_equal_settings_share_a_pool(dask_pool: Pool) -> None:
    with open_pool(compute_of()) as again, open_pool(compute_of(retries=0)) as other:
        assert again is dask_pool
        assert other is not dask_pool
        assert list(other.map(jobs.square, [], name=name_of)) == []
    assert len(list(dask_pool.map(jobs.square, [Work(1)], name=name_of))) == 1


@contextmanager
def running_scheduler() -> Iterator[str]:
    import distributed

    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        processes=False,
        dashboard_address=None,
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        silence_logs=logging.CRITICAL,
    ) as started:
        yield started.scheduler_address


def test_a_running_scheduler(tmp_path: Path) -> None:
    with running_scheduler() as address:
        with open_pool(compute_of(address=address)) as pool:
            assert pool.workers == 2
            assert not pool.process_per_job
            work = [Work(number, "", str(tmp_path)) for number in range(10)]
            told: list[object] = []
            assert (
                len(list(pool.map(jobs.faulty, work, name=name_of, on_event=lambda *event: told.append(event)))) == 10
            )
            assert len(told) == 10
            assert not next(iter(pool.map(jobs.surroundings, [Work(1)], name=name_of)))[1]["alone"]
        with open_pool(compute_of(address=address)) as pool:
            assert len(list(pool.map(jobs.square, [Work(2)], name=name_of))) == 1


def test_no_scheduler_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 0.3)
    with open_pool(compute_of(address="tcp://127.0.0.1:9")) as pool, pytest.raises(ConfigError) as caught:
        list(pool.map(jobs.square, [Work(2)], name=name_of))
    assert "compute.dask.address: no Dask scheduler answers at tcp://127.0.0.1:9" in str(caught.value)


def test_any_cluster_class() -> None:
    settings = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": "127.0.0.1:0"}
    with open_pool(compute_of(cluster_class="distributed.LocalCluster", cluster_kwargs=settings)) as pool:
        assert dict(pool.map(jobs.square, [Work(2)], name=name_of)) == {Work(2): 4}
        assert pool.workers == 1


@pytest.mark.parametrize("path", ["no_such_module.Cluster", "distributed.NoSuchCluster", "Cluster"])
def test_no_such_cluster_class(path: str) -> None:
    with open_pool(compute_of(cluster_class=path)) as pool, pytest.raises(ConfigError, match=path):
        list(pool.map(jobs.square, [Work(2)], name=name_of))


def test_bad_cluster_kwargs() -> None:
    settings = {"no_such_option": 1}
    with (
        open_pool(compute_of(cluster_class="distributed.SpecCluster", cluster_kwargs=settings)) as pool,
        pytest.raises(ConfigError, match=r"compute.dask.cluster_kwargs.*no_such_option"),
    ):
        list(pool.map(jobs.square, [Work(2)], name=name_of))


# A child of its own


def test_isolated_result_and_events() -> None:
    told: list[object] = []
    assert run_isolated(jobs.square, Work(4), timeout_s=60, on_event=told.append) == 16
    assert told == [{"step": step} for step in range(3)]
    assert run_isolated(jobs.surroundings, Work(4), timeout_s=60)["alone"]  # type: ignore[index]


def test_isolated_errors() -> None:
    with pytest.raises(ConfigError, match=r"^a.b: is wrong. Mend it.\nc: too.$"):
        run_isolated(jobs.faulty, Work(1, "final"), timeout_s=60)
    with pytest.raises(StageError, match="^work 1 failed: ValueError: seven is not a shape"):
        run_isolated(jobs.faulty, Work(1, "broken"), timeout_s=60, name="work 1")


def test_isolated_deaths() -> None:
    killed = run_isolated(jobs.faulty, Work(1, "dies"), timeout_s=60, name="work 1")
    assert killed == Died("work 1", "killed by SIGKILL", {"attempt": 1})
    aborted = run_isolated(jobs.faulty, Work(1, "aborts"), timeout_s=60)
    assert aborted == Died("faulty", "killed by SIGABRT: codec: corrupted state", {"attempt": 1})


def test_isolated_time_limit() -> None:
    died = run_isolated(jobs.nap, Work(600), timeout_s=1.5)
    assert isinstance(died, Died)
    assert died.reason == "no end after 1.5 s"
    assert died.last_told is not None
    assert not alive(died.last_told["pid"])


def test_isolated_and_stopped() -> None:
    stop = threading.Event()
    died = run_isolated(jobs.nap, Work(600), timeout_s=60, stop=stop, on_event=lambda _: stop.set())
    assert isinstance(died, Died)
    assert died.reason == "stopped"
    assert died.last_told is not None
    assert not alive(died.last_told["pid"])


def test_isolated_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mmcore"):
        run_isolated(jobs.log, Work(3), timeout_s=60)
    assert [r.getMessage() for r in caplog.records] == ["looked at work 3"]


# The driver's own end


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def driver(how: str, errors: Path) -> Iterator[subprocess.Popen[str]]:
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.parallel_jobs", how],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )
    try:
        with process:
            yield process
            process.kill()
    finally:
        process.kill()


def first_pids(process: subprocess.Popen[str], count: int) -> list[int]:
    assert process.stdout is not None
    return [int(process.stdout.readline()) for _ in range(count)]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize(("how", "count"), [("long", 2), ("isolated", 1)])
def test_workers_die_with_their_driver(how: str, count: int, tmp_path: Path) -> None:
    with driver(how, tmp_path / "stderr") as process:
        pids = first_pids(process, count)
        assert all(alive(pid) for pid in pids)
        process.kill()
        deadline = time.monotonic() + 5
        while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not any(alive(pid) for pid in pids)


def test_ctrl_c_ends_quickly_and_silently(tmp_path: Path) -> None:
    with driver("long", tmp_path / "stderr") as process:
        first_pids(process, 2)
        os.killpg(process.pid, signal.SIGINT)
        started = time.monotonic()
        assert process.wait(20) == 130
        assert time.monotonic() - started < 4
    assert (tmp_path / "stderr").read_text() == ""


def test_a_killed_worker_leaves_no_noise(tmp_path: Path) -> None:
    with driver("short", tmp_path / "stderr") as process:
        os.kill(first_pids(process, 1)[0], signal.SIGKILL)
        assert process.stdout is not None
        assert all(line.strip().isdigit() for line in process.stdout.read().splitlines())
        assert process.wait(20) == 0
    assert (tmp_path / "stderr").read_text() == ""


def test_every_gpu_gets_one_process_that_sees_no_other() -> None:
    compute = compute_of(memory_limit="1GiB")
    with open_pool(compute) as pool:
        with parallel.open_gpu_pool(compute, pool, ["0"]) as alone:
            assert not isinstance(alone, on_dask.DaskPool), "one GPU is used by this process"
        with parallel.open_gpu_pool(compute, pool, ["3", "5"]) as both:
            assert both.workers == 2
            seen = [gpu for _, gpu in both.map(jobs.visible_gpus, [Work(n) for n in range(6)], name=name_of, gpu=True)]
            with parallel.open_gpu_pool(compute, pool, ["3", "5"]) as shared:
                assert shared is both, "modalities side by side share them"
    assert sorted(set(seen)) == ["3", "5"]
    assert len(seen) == 6


def test_jobs_for_a_gpu_go_to_the_cluster_where_it_is_one() -> None:
    with cluster.running(ComputeConfig().dask, 0, ["7"]) as (_, made):
        compute = compute_of(address=made.scheduler_address)
        with open_pool(compute) as pool, parallel.open_gpu_pool(compute, pool, []) as found:
            assert found is pool
            results = list(found.map(jobs.visible_gpus, [Work(0)], name=name_of, gpu=True))
    assert [gpu for _, gpu in results] == ["7"]
