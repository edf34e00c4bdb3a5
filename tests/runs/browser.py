"""A page in headless Chromium, driven over a pipe: `with open_page(url) as evaluate: evaluate("document.title")`."""

import json
import os
import shutil
import subprocess
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

# Everything that a reader sees, the insides of web components too.
TEXT = """(() => {
  const walk = node => node.nodeType === 3 ? node.textContent
    : ["SCRIPT", "STYLE"].includes(node.nodeName) ? ""
    : [...(node.shadowRoot ? [node.shadowRoot] : []), ...node.childNodes].map(walk).join(" ");
  return walk(document.body).replace(/\\s+/g, " ");
})()"""


class Page:
    """One tab; it speaks the DevTools protocol over the browser's pipe."""

    def __init__(self, write: int, read: int) -> None:
        self.write, self.read = write, read
        self.last, self.buffer, self.session = 0, b"", None

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.last += 1
        message = {"id": self.last, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.buffer:
                self.buffer += os.read(self.read, 1 << 16)
            text, _, self.buffer = self.buffer.partition(b"\0")
            answer = json.loads(text)
            if answer.get("id") == self.last:
                assert "error" not in answer, answer
                return answer["result"]

    def evaluate(self, script: str) -> Any:
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def wait_for(self, script: str, what: str, seconds: float = 40.0) -> Any:
        """Evaluate a script until it gives something true."""
        deadline = time.monotonic() + seconds
        while not (found := self.evaluate(script)):
            assert time.monotonic() < deadline, f"{what} did not come; the page says: {self.evaluate(TEXT)[:2000]}"
            time.sleep(0.2)
        return found

    def screenshot(self, path: Path) -> None:
        path.write_bytes(b64decode(self.call("Page.captureScreenshot")["data"]))


@contextmanager
def open_page(profile: Path) -> Iterator[Page]:
    """Start a browser with an empty profile, and end it by its own process."""
    to_read, write = os.pipe()
    read, to_write = os.pipe()
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
        "--window-size=1500,3000", f"--user-data-dir={profile}", "about:blank",
    ]  # fmt: skip
    # the browser reads its descriptor 3 and writes to 4
    command = ["bash", "-c", f'exec 3<&{to_read} 4>&{to_write}; exec "$@"', "bash", str(CHROMIUM), *flags]
    browser = subprocess.Popen(
        command, pass_fds=(to_read, to_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(to_read)
    os.close(to_write)
    try:
        page = Page(write, read)
        target = page.call("Target.createTarget", url="about:blank")["targetId"]
        page.session = page.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        yield page
    finally:
        browser.kill()
        browser.wait()
        os.close(write)
        os.close(read)
