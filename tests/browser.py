"""Pages in a headless Chromium: what each shows, wide, narrow and dark, and what its console says.

A page of our own loads the pages to be looked at one after the other, in a frame, and sends back
what it finds. So no driver is needed: only Chromium itself.
"""

import functools
import http.server
import json
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--window-size=1400,1000",
]
DARK = ["--blink-settings=preferredColorScheme=0"]
WIDE, NARROW = 1280, 380

_LOOK = """<!doctype html><title>looking</title><body><script>
const pages = PAGES, acts = ACTS, found = {};
const rest = (ms) => new Promise((done) => setTimeout(done, ms));
const dark = (frame) => {
  const [r, g, b] = getComputedStyle(frame.contentDocument.body).backgroundColor
    .match(/[\\d.]+/g).map(Number);
  return (r + g + b) / 3 < 100;
};
const too_wide = (frame) => {
  const root = frame.contentDocument.documentElement;
  return root.scrollWidth > root.clientWidth + 1;
};
(async () => {
  for (const page of pages) {
    const frame = document.createElement("iframe");
    frame.style = "border:0; height:900px; width:WIDEpx";
    const loaded = new Promise((done) => frame.addEventListener("load", done));
    frame.src = page;
    document.body.replaceChildren(frame);
    await loaded;
    await rest(30);
    const inside = frame.contentDocument, one = {};
    one.title = inside.title;
    one.images = inside.images.length;
    one.pictures = one.images + inside.querySelectorAll("svg").length;
    for (const image of inside.images) image.loading = "eager";
    await Promise.all([...inside.images].map((image) => image.decode().catch(() => null)));
    one.broken = [...inside.images].filter((i) => !i.naturalWidth).map((i) => i.src);
    one.wide = too_wide(frame);
    one.dark = dark(frame);
    inside.body.dataset.theme = "dark";
    await rest(10);
    one.dark_by_choice = dark(frame); // where the page has a switch
    frame.style.width = "NARROWpx";
    await rest(30);
    one.narrow = too_wide(frame);
    if (acts[page]) {
      try { one.act = await new Function("page", "rest", acts[page])(inside, rest); }
      catch (error) { one.act = String(error); }
    }
    found[page] = one;
  }
  await fetch("/found", {method: "POST", body: JSON.stringify(found)});
})();
</script></body>"""


def look_at(
    folder: Path,
    pages: Sequence[str],
    acts: Mapping[str, str] | None = None,
    *,
    dark: bool = False,
    timeout: float = 240,
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return what each page of a folder shows, and the lines of the console.

    Parameters
    ----------
    folder : pathlib.Path
        Of the pages.
    pages : sequence of str
        Their paths in it.
    acts : mapping of str to str, optional
        For some pages, the body of an async function of JavaScript that acts on ``page``, the
        document; what it returns is found as ``act``.
    dark : bool
        Whether the reader's system asks for dark pages.
    timeout : float
        Seconds.
    """
    body = _LOOK.replace("WIDE", str(WIDE)).replace("NARROW", str(NARROW))
    wrapped = {page: f"return (async () => {{ {act} }})()" for page, act in (acts or {}).items()}
    body = body.replace("PAGES", json.dumps(list(pages))).replace("ACTS", json.dumps(wrapped))
    found: dict[str, dict[str, Any]] = {}
    done = threading.Event()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/look":
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.end_headers()
                self.wfile.write(body.encode())
            elif self.path == "/favicon.ico":
                self.send_response(204)
                self.end_headers()
            else:
                super().do_GET()

        def do_POST(self) -> None:
            found.update(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()
            done.set()

        def log_message(self, *words: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(folder))
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/look"
        log = Path(profile) / "console"
        with log.open("wb") as console:
            assert CHROMIUM is not None
            browser = subprocess.Popen(
                [
                    CHROMIUM,
                    *FLAGS,
                    *(DARK if dark else ()),
                    f"--user-data-dir={profile}/user",
                    address,
                ],
                stdout=subprocess.DEVNULL,
                stderr=console,
            )
            try:
                finished = done.wait(timeout)
            finally:
                browser.kill()
                browser.wait()
                server.shutdown()
        said = log.read_text(encoding="utf-8", errors="replace").splitlines()
    lines = [line for line in said if ":CONSOLE" in line]
    assert finished, f"Chromium did not finish within {timeout} s: {said[-5:]}"
    return found, lines
