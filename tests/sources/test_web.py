"""Media at addresses, from a real server on this machine that is slow, wrong and unreliable by turns."""

from __future__ import annotations

import socket
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
from mmcore.shards.prepare import foresee_shards, prepare
from mmcore.sources import web
from mmcore.storage import Store
from tests.shards.conftest import Tally


class Site:
    """Answers by the path: /text/N, /gone/…, /busy/…, /once/…, /large, /cut, /turn, /file, /slow/N."""

    def __init__(self, port: int = 0) -> None:
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

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
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


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_a_host_that_gives_nothing_is_given_up_and_gets_another_chance(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = web.Hosts()
    for number in range(web.GIVEN_UP_AFTER - 1):
        with pytest.raises(OSError, match="time and again"):
            hosts.ask(f"{site.url}/busy/{number}", 100)
    # Any answer, if only that there is nothing, shows that it lives.
    assert isinstance(hosts.ask(f"{site.url}/gone/1", 100), Rejected)
    for number in range(web.GIVEN_UP_AFTER):
        with pytest.raises(OSError, match="time and again"):
            hosts.ask(f"{site.url}/busy/{number}", 100)
    asked = len(site.asked)
    with pytest.raises(OSError, match="gave nothing for 6 addresses in a row"):
        hosts.ask(f"{site.url}/text/1", 100)
    assert len(site.asked) == asked
    assert web.Hosts().ask(f"{site.url}/text/1", 100) == b"/text/1"
    assert web.hosts_of("one") is web.hosts_of("one") is not web.hosts_of("two")
    monkeypatch.setattr(web, "GIVEN_UP_S", 0.0)
    assert hosts.ask(f"{site.url}/text/1", 100) == b"/text/1"


def test_bytes_that_drip_are_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "TOTAL_S", -1.0)
    with pytest.raises(OSError, match="not whole after"):
        web.fetch(f"{site.url}/text/1", 100)


def test_the_caller_is_told_while_it_waits(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "BEAT_S", 0.01)
    told: list[float] = []
    fetcher = web.Fetcher(iter(()))
    try:
        assert fetcher.read(f"{site.url}/slow/1", 100, lambda: told.append(time.monotonic())) == b"/slow/1"
    finally:
        fetcher.close()
    assert len(told) >= 3


def test_a_dead_host_costs_its_own_samples_only(site: Site, tmp_path: Path) -> None:
    dead = _free_port()
    rows = []
    for n in range(120):
        url = f"http://127.0.0.1:{dead}" if n % 4 == 3 else site.url
        rows.append(f"k{n:03},{'ab'[n // 4 % 2]},{('train', 'val', 'test')[n // 40]},{url}/text/{n}")
    (tmp_path / "rows.csv").write_text("\n".join(["id,label,split,page", *rows]) + "\n")
    data = {
        "manifest": str(tmp_path / "rows.csv"),
        "modalities": {"page": {"kind": "text", "column": "page"}},
        "max_rejected": 1.0,
        "allow_remote": True,
    }
    config = RunConfig.model_validate({"data": data, "shards": {"samples": 16}, "output": str(tmp_path / "output")})
    store, pool, tally = Store(tmp_path / "output").open(), serial_pool(config.compute), Tally()
    first = prepare(config, store, pool, tally)
    assert sorted(site.asked) == sorted(f"/text/{n}" for n in range(120) if n % 4 != 3)
    assert {reject.key for reject in first.rejects if reject.code == "io-error"} == {
        f"k{n:03}" for n in range(3, 120, 4)
    }
    assert any("more) is set aside for this run" in line for line in tally.lines)
    assert store.listing("exclusions") == {}

    # The next run tries the dead host alone, and as it is still dead, what was made stands.
    before = {name: (tmp_path / "output/shards" / name).stat().st_mtime_ns for name in store.listing("shards")}
    assert prepare(config, store, pool, Silent()) == first
    assert len(site.asked) == 90
    after = {name: (tmp_path / "output/shards" / name).stat().st_mtime_ns for name in store.listing("shards")}
    assert after == before
    steps = [step.reason for step in foresee_shards(config, store)[2]]
    assert set(steps) == {"page could not all be read, and is tried again"}

    # Back again, it gives all.
    revived = Site(dead)
    try:
        made = prepare(config, store, pool, Silent())
        assert made.rejects == ()
        assert set(revived.asked) == {f"/text/{n}" for n in range(3, 120, 4)}
    finally:
        revived.close()
    shards = open_dataset(tmp_path / "output", dataset=made.digest)
    assert {sample["page"].decode() for sample in shards.read(range(len(shards)))} == {f"/text/{n}" for n in range(120)}
    asked = len(site.asked)
    again = prepare(config, store, pool, Silent())
    assert (again.digest, len(site.asked)) == (made.digest, asked)
