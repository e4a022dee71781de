"""Bad input: one paragraph that names file and key and what to do, exit code 2, nothing half-written."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.flows.conftest import SMALL, Server, mmcore


def rewrite(manifest: Path, change) -> None:
    with manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows = change(rows)
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["id"])
        writer.writeheader()
        writer.writerows(rows)


def without_column(name: str):
    return lambda rows: [{k: v for k, v in row.items() if k != name} for row in rows]


def only(**wanted: str):
    return lambda rows: [row for row in rows if all(row[k] == v for k, v in wanted.items())]


CASES = {
    "no manifest": (lambda folder: (folder / "manifest.csv").unlink(), ["manifest.csv"]),
    "empty manifest": (lambda folder: (folder / "manifest.csv").write_text(""), ["manifest.csv"]),
    "no rows": (
        lambda folder: (folder / "manifest.csv").write_text("id,label,split,image,audio,text\n"),
        ["manifest.csv"],
    ),
    "binary manifest": (lambda folder: (folder / "manifest.csv").write_bytes(b"\xff\x00\xfe" * 99), ["manifest.csv"]),
    "no label column": (
        lambda folder: rewrite(folder / "manifest.csv", without_column("label")),
        ["label", "data.columns"],
    ),
    "no split column": (lambda folder: rewrite(folder / "manifest.csv", without_column("split")), ["split"]),
    "two columns missing": (
        lambda folder: rewrite(folder / "manifest.csv", lambda r: without_column("text")(without_column("audio")(r))),
        ["audio", "text"],
    ),
    "one class": (lambda folder: rewrite(folder / "manifest.csv", only(label="three")), ["class", "three"]),
    "no test rows": (
        lambda folder: rewrite(folder / "manifest.csv", lambda rows: [r for r in rows if r["split"] != "test"]),
        ["test"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_faults_of_the_manifest(case: str, own_sample: Path, server: Server) -> None:
    spoil, words = CASES[case]
    spoil(own_sample)
    for command in ("check", "run") if case == "no label column" else ("check",):
        done = mmcore(command, own_sample / "pipeline.yaml", env=server.env)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "Traceback" not in done.stderr + done.stdout
        for word in words:
            assert word in done.stderr, done.stderr
    assert not list((own_sample / "output").glob("shards/*"))


def test_config_and_input_faults_name_file_and_key(own_sample: Path, server: Server) -> None:
    yaml = own_sample / "pipeline.yaml"
    yaml.write_text(yaml.read_text().replace("encoder: cnn", "encodr: cnn"))
    done = mmcore("run", yaml, "data.max_rejectd=1", "data.limit=none at all", env=server.env)
    assert done.returncode == 2
    for text in ("pipeline.yaml: features.image", "Did you mean 'max_rejected'", "data.limit"):
        assert text in done.stderr, done.stderr


def test_too_many_rejects_stop_the_run_and_say_which(own_sample: Path, server: Server) -> None:
    for file in sorted((own_sample / "image").glob("*.png"))[:60]:
        data = file.read_bytes()
        file.write_bytes(data[: len(data) * 2 // 3])
    done = mmcore("run", own_sample / "pipeline.yaml", *SMALL, env=server.env)
    assert done.returncode == 3, done.stdout + done.stderr
    for text in ("truncated", "max_rejected", "5.0%"):
        assert text in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    # With a higher limit the same command goes on from the shards that were made.
    done = mmcore(
        "run", own_sample / "pipeline.yaml", *SMALL, "data.max_rejected=50%", "fusion.methods=[concat]", env=server.env
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_output_that_cannot_be_written(sample: Path, tmp_path: Path, server: Server) -> None:
    (tmp_path / "file").write_text("in the way")
    done = mmcore("run", sample / "pipeline.yaml", f"output={tmp_path / 'file' / 'out'}", env=server.env)
    assert done.returncode == 2
    assert "output: cannot write below" in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_commands_and_options(server: Server) -> None:
    assert mmcore("rum", env=server.env).returncode == 2
    assert mmcore("run", env=server.env).returncode == 2
    assert mmcore("run", "x.yaml", "--fast", env=server.env).returncode == 2


def test_help_reads_well(server: Server) -> None:
    done = mmcore("--help", env=server.env)
    assert done.returncode == 0
    for command in ("run", "plan", "check", "status", "report", "compare", "serve", "sample"):
        assert command in done.stdout
    assert "Exit codes" in done.stdout
