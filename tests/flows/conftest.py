"""A real Prefect server, and a small data set on which the whole pipeline takes seconds."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from tests.flows.deployed import Deployed

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = Path(sys.executable).parent
SMALL = ["features.image.epochs=3", "features.audio.epochs=3", "compute.dask.workers=2"]
"""Overrides that keep the sample's pipeline short; what it learns is not looked at."""


def clean_environment(home: Path, **more: str) -> dict[str, str]:
    """This process's environment without Prefect settings, with a Prefect home of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**kept, "PREFECT_HOME": str(home), "COLUMNS": "160", **more}


def mmcore(*arguments: str | Path, env: dict[str, str], timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """The `mmcore` command as a user starts it."""
    return subprocess.run(
        [BIN / "mmcore", *map(str, arguments)], capture_output=True, text=True, env=env, timeout=timeout, check=False
    )


class _Patient(httpx.HTTPTransport):
    """Asks again where the server's database is locked, as Prefect's own client does."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        for _ in range(60):
            answer = super().handle_request(request)
            if answer.status_code != 503:
                break
            answer.read()
            time.sleep(0.5)
        return answer


class Server:
    """A Prefect server process: its API's URL, an environment that points to it, and a client."""

    def __init__(self, home: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.home = home
        quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_LOGGING_SERVER_LEVEL": "WARNING"}
        quiet["PREFECT_SERVER_DATABASE_TIMEOUT"] = "60"
        self.env = clean_environment(home, PREFECT_API_URL=self.url, **quiet)
        self.log = (home / "server.log").open("w")
        self.process = subprocess.Popen(
            [BIN / "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)],
            env={name: value for name, value in self.env.items() if name != "PREFECT_API_URL"},
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        self.client = httpx.Client(base_url=self.url, timeout=60, transport=_Patient())

    def wait(self, limit_s: float = 180) -> None:
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self.home / "server.log").read_text()
            try:
                if self.client.get("/health").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.3)
        raise TimeoutError((self.home / "server.log").read_text())

    def post(self, path: str, **body: object) -> list[dict[str, object]] | dict[str, object]:
        answer = self.client.post(path, json=body)
        answer.raise_for_status()
        return answer.json()

    def prefect(self, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [BIN / "prefect", "--no-prompt", *arguments],
            capture_output=True,
            text=True,
            env=self.env,
            cwd=cwd,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def close(self) -> None:
        self.client.close()
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Prefect server on a free port with an empty database."""
    running = Server(tmp_path_factory.mktemp("prefect"))
    try:
        running.wait()
        yield running
    finally:
        running.close()


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits sample with 300 rows, made once; do not change it."""
    from mmcore.samples.digits import make_digits

    folder = tmp_path_factory.mktemp("sample") / "digits"
    make_digits(folder, samples=300, seed=0)
    return folder


@pytest.fixture
def own_sample(sample: Path, tmp_path: Path) -> Path:
    """A copy of the sample that a test may change; times are kept, so that fingerprints are."""
    return Path(shutil.copytree(sample, tmp_path / "digits"))


@pytest.fixture(scope="session")
def deployed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """The repository's deployments on that server, and a worker for them."""
    from tests.flows.deployed import Deployed

    running = Deployed(server, tmp_path_factory.mktemp("worker"))
    try:
        yield running
    finally:
        running.close()
