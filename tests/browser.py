"""A real browser for tests of pages: Debian's Chromium, driven by Playwright."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

WIDE, NARROW = (1280, 800), (380, 760)
"""Viewports of a desk and of a telephone, pixels."""

TIMEOUT_MS = 120_000
"""Beside other tests a page takes its time."""


@contextmanager
def browser_page(viewport: tuple[int, int] = WIDE, **context: Any) -> Iterator[Any]:
    """A Playwright page of a fresh browser; the test is skipped where there is none.

    Args:
        viewport: width and height.
        context: options of Playwright's `new_context`, such as `has_touch` or `base_url`.

    Raises:
        AssertionError: at the end, if a script of the page threw an error.
    """
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no browser: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            width, height = viewport
            page = browser.new_context(
                viewport={"width": width, "height": height}, **context
            ).new_page()
            page.set_default_timeout(TIMEOUT_MS)
            errors: list[str] = []
            page.on("pageerror", lambda error: errors.append(str(error)))
            yield page
        finally:
            browser.close()
    assert errors == []
