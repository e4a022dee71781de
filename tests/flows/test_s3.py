"""A bucket on a real S3 server: the same shards as locally, however often the run is killed or the server fails."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmcore.shards.exclusions import Exclusion
from tests.flows.conftest import BIN, SMALL, Server, mmcore
from tests.flows.faulty_proxy import FaultyProxy

boto3 = pytest.importorskip("boto3", reason="install mmcore[dev]: the tests of buckets need moto and s3fs")
pytest.importorskip("moto")

SETTINGS = ["shards.samples=32", "compute.dask.workers=2", "data.max_rejected=1.0"]
SECRETS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


class Bucket:
    """An S3 server process with one bucket, and a client of it."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = (folder / "moto.log").open("w")
        self.process = subprocess.Popen(
            [BIN / "moto_server", "-H", "127.0.0.1", "-p", str(self.port)], stdout=self.log, stderr=subprocess.STDOUT
        )
        self.client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        for _ in range(120):
            try:
                self.client.create_bucket(Bucket="bucket")
                return
            except Exception:
                assert self.process.poll() is None, "the S3 server ended"
                time.sleep(0.5)
        raise TimeoutError("the S3 server does not answer")

    def objects(self, prefix: str) -> dict[str, str]:
        """Every object's SHA-256 by its name below the prefix."""
        found = {}
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix=f"{prefix}/"):
            for one in page.get("Contents", ()):
                body = self.client.get_object(Bucket="bucket", Key=one["Key"])["Body"].read()
                found[one["Key"].removeprefix(f"{prefix}/")] = hashlib.sha256(body).hexdigest()
        return found

    def close(self) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    running = Bucket(tmp_path_factory.mktemp("s3"))
    try:
        yield running
    finally:
        running.close()


def environment(server: Server, port: int) -> dict[str, str]:
    return {**server.env, **SECRETS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}


def made_of(objects: dict[str, str]) -> dict[str, str]:
    """What must be the same whatever happened on the way."""
    return {
        path: sha256 for path, sha256 in objects.items() if path.split("/")[0] in ("shards", "datasets", "quarantine")
    }


def of_folder(folder: Path) -> dict[str, str]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def local(server: Server, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the same run makes in a folder."""
    output = tmp_path_factory.mktemp("local") / "output"
    done = mmcore("prepare", sample / "pipeline.yaml", f"output={output}", *SETTINGS, env=server.env)
    assert done.returncode == 0, done.stdout + done.stderr
    return made_of(of_folder(output))


def test_the_same_objects_as_in_a_folder(server: Server, bucket: Bucket, sample: Path, local: dict[str, str]) -> None:
    env = environment(server, bucket.port)
    command = ["prepare", sample / "pipeline.yaml", "output=s3://bucket/same", *SETTINGS]
    done = mmcore(*command, env=env)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert made_of(bucket.objects("same")) == local
    again = mmcore(*command, env=env)
    assert again.returncode == 0, again.stderr
    assert made_of(bucket.objects("same")) == local
    for arguments in (["shards", "ls", "s3://bucket/same"], ["shards", "verify", "s3://bucket/same"]):
        shown = mmcore(*arguments, env=env)
        assert shown.returncode == 0, shown.stdout + shown.stderr


@pytest.mark.slow
def test_damage_on_the_bucket_is_found(server: Server, bucket: Bucket, sample: Path, local: dict[str, str]) -> None:
    env = environment(server, bucket.port)
    command = ["prepare", sample / "pipeline.yaml", "output=s3://bucket/damaged", *SETTINGS]
    assert mmcore(*command, env=env).returncode == 0
    cut, gone, flipped = sorted(path for path in local if path.endswith(".tar") and path.startswith("shards/"))[:3]

    def body_of(path: str) -> bytes:
        data: bytes = bucket.client.get_object(Bucket="bucket", Key=f"damaged/{path}")["Body"].read()
        return data

    broken = bytearray(body_of(flipped))
    broken[600] ^= 1
    bucket.client.put_object(Bucket="bucket", Key=f"damaged/{flipped}", Body=bytes(broken))
    found = mmcore("shards", "verify", "s3://bucket/damaged", env=env)
    assert found.returncode != 0
    assert Path(flipped).name[:8] in found.stdout + found.stderr
    bucket.client.delete_object(Bucket="bucket", Key=f"damaged/{flipped}")
    bucket.client.put_object(Bucket="bucket", Key=f"damaged/{cut}", Body=body_of(cut)[:-1000])
    bucket.client.delete_object(Bucket="bucket", Key=f"damaged/{gone}")
    assert mmcore(*command, env=env).returncode == 0
    assert made_of(bucket.objects("damaged")) == local


def test_killed_and_started_again(server: Server, bucket: Bucket, sample: Path, local: dict[str, str]) -> None:
    """Whatever is there under a final name is whole at any time."""
    env = environment(server, bucket.port)
    command = [BIN / "mmcore", "prepare", sample / "pipeline.yaml", "output=s3://bucket/killed", *SETTINGS]
    for shards in (1, 4):
        run = subprocess.Popen(
            command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        while run.poll() is None and _count(bucket, "killed/shards/", ".json") < shards:
            time.sleep(0.05)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        there = made_of(bucket.objects("killed"))
        assert there.items() <= local.items()
    done = mmcore(*command[1:], env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert made_of(bucket.objects("killed")) == local


def _count(bucket: Bucket, prefix: str, ending: str) -> int:
    found: dict[str, Any] = bucket.client.list_objects_v2(Bucket="bucket", Prefix=prefix)
    return sum(one["Key"].endswith(ending) for one in found.get("Contents", ()))


def test_a_server_that_fails_now_and_then(server: Server, bucket: Bucket, sample: Path, local: dict[str, str]) -> None:
    proxy = FaultyProxy(bucket.port, 0.05)
    try:
        command = ["prepare", sample / "pipeline.yaml", "output=s3://bucket/faulty", *SETTINGS]
        done = mmcore(*command, env=environment(server, proxy.port))
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        proxy.close()
    assert proxy.failed >= 3, (proxy.failed, proxy.asked)
    assert made_of(bucket.objects("faulty")) == local


def test_manifest_and_media_on_the_bucket(
    server: Server, bucket: Bucket, sample: Path, local: dict[str, str], tmp_path: Path
) -> None:
    """The tars are the same; the recipes name other fingerprints."""
    for file in sample.rglob("*"):
        if file.is_file():
            key = f"source/{file.relative_to(sample)}"
            bucket.client.put_object(Bucket="bucket", Key=key, Body=file.read_bytes())
    config = sample / "pipeline.yaml"
    sources = ["data.manifest=s3://bucket/source/manifest.csv", f"output={tmp_path / 'output'}"]
    done = mmcore("prepare", config, *sources, *SETTINGS, env=environment(server, bucket.port))
    assert done.returncode == 0, done.stdout + done.stderr
    made = of_folder(tmp_path / "output")
    tars = {path for path in made if path.startswith("shards/") and path.endswith(".tar")}
    assert tars == {path for path in local if path.startswith("shards/") and path.endswith(".tar")}


def test_no_such_bucket(server: Server, bucket: Bucket, sample: Path) -> None:
    env = environment(server, bucket.port)
    done = mmcore("prepare", sample / "pipeline.yaml", "output=s3://no-such-bucket/out", *SETTINGS, env=env)
    assert done.returncode in {1, 2}
    assert "no-such-bucket" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_whole_pipeline_and_every_command_on_the_bucket(
    server: Server, bucket: Bucket, sample: Path, tmp_path: Path
) -> None:
    """Nothing but the sources and the YAML lies on this machine."""
    env, where = environment(server, bucket.port), "s3://bucket/whole"
    config = [sample / "pipeline.yaml", f"output={where}", *SETTINGS, *SMALL]

    def says(*arguments: str | Path) -> str:
        done = mmcore(*arguments, env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return " ".join(done.stdout.split())

    assert f"{where}/runs/" in says("run", *config)
    assert "Nothing to compute" in says("plan", *config)
    assert "outputs are there" in says("status", *config)
    page = says("report", *config)
    assert page.startswith(f"{where}/runs/digits-")
    body = bucket.client.get_object(Bucket="bucket", Key=page.removeprefix("s3://bucket/"))["Body"].read()
    assert b"</html>" in body
    written = bucket.objects("whole")
    assert {path.split("/")[0] for path in written} >= {
        "shards",
        "datasets",
        "features",
        "models",
        "evaluations",
        "runs",
    }
    assert not [path for path in written if path.startswith("tmp/")]

    aside = json.loads(mmcore("quarantine", "ls", where, "--json", env=env).stdout)
    assert {line["code"] for line in aside} == {"truncated", "unknown-format", "empty-text"}
    (bad,) = (line for line in aside if line["code"] == "truncated")
    assert "Written:" in says("quarantine", "show", where, bad["key"], "--to", tmp_path / "bad")
    (kept,) = (tmp_path / "bad").iterdir()
    assert kept.read_bytes() == (sample / bad["source"]).read_bytes()

    # A circumstance of another run on this bucket.
    exclusion = {"key": "d010", "modality": "image", "source": "0" * 32, "code": "time-limit", "message": "slow"}
    path = Exclusion(**exclusion).path
    bucket.client.put_object(Bucket="bucket", Key=f"whole/{path}", Body=json.dumps(exclusion).encode())
    assert "Nothing was changed" in says("quarantine", "retry", where)
    assert path in bucket.objects("whole")
    assert "Removed 1 entry" in says("quarantine", "retry", where, "--yes")
    assert path not in bucket.objects("whole")

    assert "encoding utf-8" in says("shards", "ls", where)
    assert "sample" in says("shards", "show", where, "d010", "--to", tmp_path / "shown")
    assert len(list((tmp_path / "shown").iterdir())) == 3
    assert "300 samples" in says("shards", "verify", where)
    for kind in ("tars", "folder", "parquet"):
        assert "train 180, val 60, test 60 samples" in says("shards", "export", where, tmp_path / kind, "--to", kind)
    assert {path: sha for path, sha in bucket.objects("whole").items() if path in written} == written
