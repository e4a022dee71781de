"""Media at http(s) addresses: fetched ahead of their turn, some at a time, patiently, within limits."""

from __future__ import annotations

import email.utils
import http.client
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from mmcore import __version__
from mmcore.modalities.base import Rejected
from mmcore.sources.references import Reference

FINGERPRINT = "web"
"""Stands for what lies at an address: it is not asked again once it was read."""
CONNECTIONS = 16
"""Requests of one worker at a time."""
PER_HOST = 6
"""Of these to one host."""
AHEAD = 2 * CONNECTIONS
TIMEOUT_S = 10.0
"""Without a byte for so long, a request is given up."""
TOTAL_S = 120.0
"""However steadily the bytes drip, a request is given up after so long."""
GIVEN_UP_AFTER = 6
"""So many addresses of a host in a row that give nothing, each tried three times, and it is not asked for a while."""
GIVEN_UP_S = 300.0
"""After so long one more address of it is tried."""
BEAT_S = 5.0
"""While an answer is waited for, the caller is told this often."""
WAITS_S = (0.5, 2.0)
"""Between tries, unless the server says how long."""
LONGEST_WAIT_S = 20.0
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that another try may change."""
_BLOCK = 1 << 16


def is_address(path: str) -> bool:
    return path.startswith(("http://", "https://"))


def of_address(reference: Reference) -> str | None:
    """The address in a reference; None for any other."""
    return str(reference[1]) if isinstance(reference, list) and reference and reference[0] == "web" else None


class Hosts:
    """What one process knows of the hosts that it asks: how many requests each has, and which gave nothing."""

    def __init__(self) -> None:
        self._turns: dict[str, threading.Semaphore] = {}
        self._failed: dict[str, tuple[int, float]] = {}
        self._lock = threading.Lock()

    def ask(self, address: str, max_bytes: int) -> bytes | Rejected:
        """What `fetch` gives, when it is the address's turn. Raises OSError, at once for a host that is given up."""
        host = urlsplit(address).netloc
        with self._lock:
            turn = self._turns.setdefault(host, threading.Semaphore(PER_HOST))
        with turn:
            if self._given_up(host):
                raise OSError(f"{host} gave nothing for {GIVEN_UP_AFTER} addresses in a row, and is not asked further")
            try:
                found = fetch(address, max_bytes)
            except OSError:
                with self._lock:
                    self._failed[host] = self._failed.get(host, (0, 0.0))[0] + 1, time.monotonic()
                raise
            with self._lock:
                self._failed.pop(host, None)
            return found

    def _given_up(self, host: str) -> bool:
        with self._lock:
            times, since = self._failed.get(host, (0, 0.0))
            if times < GIVEN_UP_AFTER:
                return False
            if time.monotonic() - since < GIVEN_UP_S:
                return True
            # This one is the trial; until it gives something, the others still fail at once.
            self._failed[host] = times, time.monotonic()
            return False


@lru_cache(maxsize=4)
def hosts_of(_run: str) -> Hosts:
    """What this process knows of hosts in one run: the next run gives each another chance."""
    return Hosts()


class Fetcher:
    """The bytes at addresses, in the order in which they will be asked for; close it when done."""

    def __init__(self, coming: Iterable[tuple[str, int]], hosts: Hosts | None = None) -> None:
        """`coming` are addresses with the most bytes that each may have."""
        self._coming = iter(coming)
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="fetch")
        self._started: deque[tuple[str, Future[bytes | Rejected]]] = deque()
        self._hosts = hosts or Hosts()

    def read(self, address: str, max_bytes: int, waiting: Callable[[], None] = lambda: None) -> bytes | Rejected:
        """The bytes, or why they are unfit; `waiting` is called now and then until they are there, and once then.

        Raises OSError where the server gives none time and again.
        """
        self._fill()
        # What was foreseen but not asked for (an excluded cell) is passed over.
        while self._started:
            url, future = self._started.popleft()
            self._fill()
            if url == address:
                break
        else:
            future = self._threads.submit(self._hosts.ask, address, max_bytes)
        while not wait((future,), BEAT_S).done:
            waiting()
        waiting()
        return future.result()

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _fill(self) -> None:
        while len(self._started) < AHEAD:
            following = next(self._coming, None)
            if following is None:
                return
            self._started.append((following[0], self._threads.submit(self._hosts.ask, *following)))


def fetch(address: str, max_bytes: int) -> bytes | Rejected:
    """One address, tried up to three times. Raises OSError where it gives none."""
    for wait_s in (*WAITS_S, None):
        try:
            return _once(address, max_bytes)
        except urllib.error.HTTPError as error:
            with error:
                if error.code not in PASSING:
                    return Rejected("missing-file", f"the server answers {error.code} {error.reason}")
                if wait_s is None:
                    raise OSError(f"the server answers {error.code} {error.reason} time and again") from error
                wait_s = _asked_for(error.headers.get("Retry-After")) or wait_s  # noqa: PLW2901
        except (OSError, http.client.HTTPException) as error:
            if wait_s is None:
                raise OSError(f"the address cannot be read ({_short(error)})") from error
        except ValueError as error:  # an address that is none
            return Rejected("missing-file", f"no address that can be asked ({error})")
        time.sleep(wait_s)
    raise AssertionError("the last try returns or raises")


def _once(address: str, max_bytes: int) -> bytes | Rejected:
    headers = {"User-Agent": f"mmcore/{__version__}"}
    request = urllib.request.Request(address, headers=headers)  # noqa: S310  # the opener knows http and https only
    with _OPENER.open(request, timeout=TIMEOUT_S) as answer:
        says = answer.headers.get("Content-Length")
        if says is not None and says.isdigit() and int(says) > max_bytes:
            return Rejected("too-many-bytes", f"{int(says):,} bytes; max_bytes is {max_bytes:,}")
        data, until = bytearray(), time.monotonic() + TOTAL_S
        while block := answer.read1(_BLOCK):
            data += block
            if time.monotonic() > until:
                raise TimeoutError(f"not whole after {TOTAL_S:g} s")
            if len(data) > max_bytes:
                return Rejected("too-many-bytes", f"more than max_bytes ({max_bytes:,})")
        if says is not None and says.isdigit() and len(data) < int(says):
            raise OSError(f"the connection ended after {len(data):,} of {int(says):,} bytes")
        return bytes(data)


def _opener() -> Any:
    """Opens http and https only: a redirection to a file on this machine is refused."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


_OPENER = _opener()


def _asked_for(retry_after: str | None) -> float | None:
    """Seconds that a server asks to wait, within reason."""
    if not retry_after:
        return None
    if retry_after.isdigit():
        return min(float(retry_after), LONGEST_WAIT_S)
    try:
        until = email.utils.parsedate_to_datetime(retry_after).timestamp()
    except ValueError:
        return None
    return min(max(until - time.time(), 0.0), LONGEST_WAIT_S)


def _short(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    return str(reason or type(error).__name__)[:150]
