"""Headless Chromium for the tests of this folder. Without it they are skipped, but in CI they fail."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# Run files with known content are made where the tests of the analysis are.
sys.path.insert(0, str(Path(__file__).parents[1] / "analysis"))

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
)  # fmt: skip


@dataclass
class Opened:
    """A page in the browser, and everything that it complained about or asked for."""

    page: "Page"
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        return self.page.evaluate(expression)


def _cannot(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Chromium of this machine, with a new and empty profile.

    It ends with the module: until then this thread has a running event loop, and other tests run loops of their own.
    """
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415
    except ImportError:
        _cannot("playwright is not installed (pip install playwright), so no browser can be driven")
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if program is None:
        _cannot("Chromium is not installed (apt-get install chromium), and the pages are looked at in it")
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=_ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def open_report(browser: "Browser") -> Iterator[Callable[..., Opened]]:
    """Opens a report and waits until its plots are drawn: `open_report(path, width=420, scheme="dark")`.

    What is open already is given again; `fresh=True` is for tests that change the page. `before` is a script that runs
    before those of the page; `drawn=False` does not wait for plots, and `scripts=False` switches JavaScript off.
    """
    contexts = []
    kept: dict[tuple[Path, int, str], Opened] = {}

    def opening(
        path: Path,
        *,
        width: int = 1400,
        scheme: Any = "light",
        fresh: bool = False,
        before: str = "",
        drawn: bool = True,
        scripts: bool = True,
    ) -> Opened:
        fresh |= bool(before) or not drawn
        if not fresh and (path, width, scheme) in kept:
            return kept[path, width, scheme]
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=scripts
        )
        if before:
            context.add_init_script(before)
        contexts.append(context)
        opened = Opened(context.new_page())
        page = opened.page
        page.on("console", lambda said: opened.complaints.append(f"{said.type}: {said.text}"))
        page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        page.on("dialog", lambda dialog: opened.complaints.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: opened.requests.append(request.url))
        page.goto(path.as_uri(), wait_until="load" if drawn else "domcontentloaded")
        if drawn:
            page.wait_for_selector("html[data-drawn=yes]", state="attached")
        return opened if fresh else kept.setdefault((path, width, scheme), opened)

    yield opening
    for context in contexts:
        context.close()
