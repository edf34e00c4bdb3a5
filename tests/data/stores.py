"""Servers of tables on this machine: moto for S3, an emulator of Google's storage, and one that can misbehave."""

import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def send(url, data=b"", method="PUT", **headers):
    """Send a request and return the body of the answer."""
    request = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": "text/plain", **headers})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read()


@contextmanager
def process(*command) -> Iterator[str]:
    """Run a server, whose last argument is its port, in a process of its own. Yields its URL."""
    address = f"http://127.0.0.1:{command[-1]}"
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                send(address, None, "GET")
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                assert server.poll() is None, "the server ended"
                time.sleep(0.05)
        yield address
    finally:
        os.kill(server.pid, signal.SIGKILL)
        server.wait()


def moto():
    """A server of S3."""
    return process(sys.executable, "-m", "moto.server", "-p", str(free_port()))


def google():
    """A server of Google's storage, with a bucket `tables`."""
    start = "from gcp_storage_emulator.__main__ import main; main()"
    options = ("start", "--in-memory", "--default-bucket=tables", "--host=127.0.0.1", "--port")
    return process(sys.executable, "-c", start, *options, str(free_port()))


class Web:
    """A web server of files in memory, by path, which also answers what arrow asks of S3: HEAD, and GET of a part.

    It records requests: method, path with query, headers. behaviour: `ranges` (whether parts are sent), `tags` (whether
    there is an ETag), `status` (an error for every request), `cut` (bytes after which a long answer ends), `swaps`
    (contents by path that replace those of the files after the first long part), `heads` (whether HEAD is allowed),
    `login` (whether a request needs credentials).
    """

    def __init__(self):
        self.files, self.requests, self.n_sent = {}, [], 0
        self.ranges, self.tags, self.status, self.cut, self.swaps = True, True, 200, None, {}
        self.heads, self.login = True, False

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.answer(self)

            def do_HEAD(self):
                self.answer(self)

            def log_message(self, *_):
                pass

        Handler.answer = staticmethod(self.answer)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, request):
        path = request.path.partition("?")[0]
        self.requests.append(
            (request.command, request.path, {name.lower(): value for name, value in request.headers.items()})
        )
        content = self.files.get(path)
        status = self.status if self.status != 200 else 404 if content is None else 200
        if self.login and not request.headers.get("Authorization"):
            status = 401
        if request.command == "HEAD" and not self.heads:
            status = 403
        if status != 200:
            request.send_response(status)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        total, part = len(content), content
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        if match and self.ranges:
            first, last = int(match[1]), min(int(match[2] or total), total - 1)
            part = content[first : last + 1]
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {first}-{last}/{total}")
        else:
            request.send_response(200)
        request.send_header("Content-Length", str(len(part)))
        if self.tags:
            request.send_header("ETag", f'"{hashlib.md5(content).hexdigest()}"')
            request.send_header("Last-Modified", formatdate(0, usegmt=True))
        request.end_headers()
        if request.command == "HEAD":
            return
        if self.cut is not None and len(part) > self.cut:
            part, request.close_connection = part[: self.cut], True
        self.n_sent += len(part)
        try:
            request.wfile.write(part)
        except OSError:  # the client needed only the beginning
            request.close_connection = True
        if len(part) > 10_000:
            self.files |= self.swaps
