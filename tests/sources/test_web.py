"""Media at addresses, from a real server on this machine that is slow, wrong and unreliable by turns."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mmcore.config import RunConfig
from mmcore.modalities.base import Rejected
from mmcore.parallel import serial_pool
from mmcore.progress import Silent
from mmcore.shards import open_dataset
from mmcore.shards.prepare import prepare
from mmcore.sources import web
from mmcore.storage import Store


class Site:
    """Answers by the path: /text/N, /gone/…, /busy/…, /once/…, /large, /cut, /turn, /file, /slow/N."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.most_at_once = self._at_once = 0
        lock, site = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with lock:
                    site.asked.append(self.path)
                self._answer(self.path.split("/")[1])

            def _work(self) -> None:
                """Takes a while; counted only until the answer begins."""
                with lock:
                    site._at_once += 1
                    site.most_at_once = max(site.most_at_once, site._at_once)
                time.sleep(0.05)
                with lock:
                    site._at_once -= 1

            def _answer(self, kind: str) -> None:
                if kind == "gone":
                    self.send_error(404)
                elif kind == "busy" or (kind == "once" and site.asked.count(self.path) == 1):
                    self.send_response(503)
                    self.send_header("Retry-After", "0")
                    self.end_headers()
                elif kind in ("turn", "file"):
                    self.send_response(302)
                    self.send_header("Location", "/text/9" if kind == "turn" else "file:///etc/passwd")
                    self.end_headers()
                else:
                    if kind == "slow":
                        self._work()
                    body = b"x" * 5000 if kind == "large" else self.path.encode()
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(body) + (100 if kind == "cut" else 0)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(web, "WAITS_S", (0.01, 0.02))
    running = Site()
    try:
        yield running
    finally:
        running.close()


def test_what_a_server_may_answer(site: Site) -> None:
    assert web.fetch(f"{site.url}/text/1", 100) == b"/text/1"
    assert web.fetch(f"{site.url}/once/1", 100) == b"/once/1"
    assert web.fetch(f"{site.url}/turn", 100) == b"/text/9"
    gone = web.fetch(f"{site.url}/gone/1", 100)
    assert isinstance(gone, Rejected)
    assert (gone.code, site.asked.count("/gone/1")) == ("missing-file", 1)
    large = web.fetch(f"{site.url}/large", 1000)
    assert isinstance(large, Rejected)
    assert large.code == "too-many-bytes"
    for path in ("busy/1", "cut"):
        with pytest.raises(OSError, match="time and again|ended after"):
            web.fetch(f"{site.url}/{path}", 1000)
        assert site.asked.count(f"/{path}") == 3
    refused = web.fetch(f"{site.url}/file", 100)
    assert isinstance(refused, Rejected)
    with pytest.raises(OSError, match="cannot be read"):
        web.fetch("http://127.0.0.1:9/nobody-listens", 100)


def test_fetched_ahead_in_order_some_at_a_time(site: Site) -> None:
    addresses = [f"{site.url}/slow/{number}" for number in range(40)]
    fetcher = web.Fetcher((address, 100) for address in addresses)
    try:
        started = time.monotonic()
        # Some are left out, as those of excluded cells are.
        found = [fetcher.read(address, 100) for address in addresses if not address.endswith("7")]
        assert time.monotonic() - started < 0.05 * 40
    finally:
        fetcher.close()
    assert found == [f"/slow/{number}".encode() for number in range(40) if number % 10 != 7]
    assert 2 <= site.most_at_once <= web.PER_HOST


@pytest.mark.parametrize("allowed", [True, False])
def test_a_manifest_of_addresses(site: Site, tmp_path: Path, allowed: bool) -> None:
    kinds = ["text"] * 9 + ["gone"]
    rows = [f"k{n},{'ab'[n % 2]},{('train', 'val', 'test')[n // 10]},{site.url}/{kinds[n % 10]}/{n}" for n in range(30)]
    (tmp_path / "rows.csv").write_text("\n".join(["id,label,split,page", *rows]) + "\n")
    data = {
        "manifest": str(tmp_path / "rows.csv"),
        "modalities": {"page": {"kind": "text", "column": "page"}},
        "max_rejected": 1.0,
        "allow_remote": allowed,
    }
    config = RunConfig.model_validate({"data": data, "shards": {"samples": 8}, "output": str(tmp_path / "output")})
    if not allowed:
        with pytest.raises(Exception, match="outside-root"):
            prepare(config, Store(tmp_path / "output").open(), serial_pool(config.compute), Silent())
        assert site.asked == []
        return
    made = prepare(config, Store(tmp_path / "output").open(), serial_pool(config.compute), Silent())
    assert {(reject.key, reject.code) for reject in made.rejects if reject.modality} == {
        ("k9", "missing-file"),
        ("k19", "missing-file"),
        ("k29", "missing-file"),
    }
    shards = open_dataset(tmp_path / "output", dataset=made.digest)
    for sample in shards.read(range(len(shards))):
        assert sample["page"] == f"/text/{sample['__key__'][1:]}".encode()
    asked = len(site.asked)
    assert prepare(config, Store(tmp_path / "output"), serial_pool(config.compute), Silent()).digest == made.digest
    assert len(site.asked) == asked == 30
