"""The search page in a real browser: what it shows after its own requests were answered."""

from __future__ import annotations

import html
import re
import shutil
import subprocess

import pytest
from served import DOCUMENTS, running

from sentemb.serve import app

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page_at():
    """The text of the page's document after everything has run, by Debian's Chromium."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser: apt-get install chromium")

    def load(url: str) -> str:
        done = subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--dump-dom", url],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        return done.stdout

    return load


def items(page: str) -> list[str]:
    """The texts of the results."""
    return [html.unescape(re.sub("<[^>]+>", "", text)) for text in re.findall(r'<p class="text">(.*?)</p>', page)]


def test_it_searches_marks_words_and_offers_filters(client, page_at):
    page = page_at(f"http://127.0.0.1:{client.port}/?q=cat+3")
    found = items(page)
    assert len(found) == 10
    assert set(found) <= {document["text"] for document in DOCUMENTS}
    assert "<mark>cat</mark>" in page
    assert re.search(r'<p id="status"[^>]*>10 results in [\d.]+ ms</p>', page)
    assert '<option value="&quot;a&quot;">a</option>' in page
    assert 'placeholder="2039"' in page
    assert "40 documents · flat" in page


def test_texts_are_never_read_as_markup(page_at, tmp_path, encoder):
    from sentemb.search import SearchIndex
    from sentemb.serve import Service

    bad = "<img src=x onerror=\"document.title='broken in'\"> cat"
    index = SearchIndex.build(tmp_path / "i", [{"id": bad, "text": bad, "<b>": bad}], encoder=encoder)
    with running(app(Service(indexes={"<i>": index}))) as client:
        page = page_at(f"http://127.0.0.1:{client.port}/?q=cat")
    assert "broken in</title>" not in page
    assert "<title>sentemb search</title>" in page
    assert "&lt;img src=x" in page


def test_without_a_query_it_says_what_to_do(client, page_at):
    page = page_at(f"http://127.0.0.1:{client.port}/")
    assert "Write what you look for." in page
    assert items(page) == []
