"""The site that `make site` builds: it has every page, needs no network, and is usable on a desktop and a phone."""

import re
from html.parser import HTMLParser

import pytest

from tests.conftest import ROOT
from tests.runs.browser import CHROMIUM, open_page
from tests.test_documentation import generator

FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site. A link that leads nowhere, and a page of docs/ that is not in the navigation, end the build."""
    return generator("make_site").build_site(tmp_path_factory.mktemp("site"))


def test_the_site_has_every_page_and_no_other_file_of_docs(site):
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert {path.stem for path in site.glob("*.html")} == pages | {
        "404",
        "index",
        "changelog",
        "contributing",
        "security",
    }
    assert sorted(path.name for path in site.glob("*.ipynb")) == ["tutorial.ipynb"]
    assert list(site.rglob("*.py")) == []
    navigation = (site / "index.html").read_text()
    for page in pages:
        assert f'href="{page}.html"' in navigation


def test_a_link_that_leads_nowhere_and_a_page_without_a_place_end_the_build(tmp_path, monkeypatch, caplog):
    make_site = generator("make_site")
    page = tmp_path / "lost.md"
    page.write_text("# Lost\n\n[Nothing](nothing.md), [no such heading](tables.md#none).\n")
    monkeypatch.setattr(make_site, "PAGES", [*make_site.PAGES, page])
    monkeypatch.setattr(
        make_site, "place", lambda path, place=make_site.place: "lost.md" if path == page else place(path)
    )
    with pytest.raises(SystemExit):
        make_site.build_site(tmp_path / "build")
    warnings = "\n".join(record.getMessage() for record in caplog.records)
    assert 'not included in the "nav" configuration:\n  - lost.md' in warnings
    assert "'lost.md' contains a link 'nothing.md'" in warnings
    assert "does not contain an anchor '#none'" in warnings


class Fetched(HTMLParser):
    """Collects what a page fetches when it is opened."""

    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag in FETCHED and attributes.get("rel") not in ("canonical", "next", "prev"):
            self.addresses += [attributes[FETCHED[tag]]] if FETCHED[tag] in attributes else []


def test_no_page_fetches_anything_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        fetched = Fetched()
        fetched.feed(page.read_text())
        assert len(fetched.addresses) >= 5
        for address in fetched.addresses:
            assert not re.match(r"\w+:|//", address), (page, address)
            assert page.name == "404.html" or (page.parent / address).exists(), (page, address)
    for sheet in site.rglob("*.css"):
        assert re.findall(r"url\([\"']?(?![\"']|data:|#)[^)]*\)|@import[^;]*", sheet.read_text()) == [], sheet


def test_lists_and_tables_look_as_in_the_repository(site):
    exact, cli = (site / "exact.html").read_text(), (site / "cli.html").read_text()
    assert re.search(r"the training\.<ul>\s*<li><code>HC0</code>", exact)
    assert "<code>CKPT|RUN</code>" in cli
    assert '<a href="spec.html">The experiment spec</a>' in (site / "index.html").read_text()
    assert '<a href="files/tests/test_textbook.py.html">' in (site / "index.html").read_text()
    assert "assert_same" in (site / "files" / "tests" / "test_textbook.py.html").read_text()


@pytest.mark.skipif(CHROMIUM is None, reason="no browser (chromium)")
def test_pages_fit_a_desktop_and_a_phone_and_can_be_searched_without_a_server(site, tmp_path):
    with open_page(tmp_path) as page:
        for width, phone in ((1280, False), (390, True)):
            page.call("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=phone)
            for path in sorted(site.glob("*.html")):
                if path.name == "404.html":
                    continue  # its addresses are those of a server
                page.call("Page.navigate", url=path.as_uri())
                page.wait_for(f"document.readyState === 'complete' && location.href === '{path.as_uri()}'", path.name)
                assert page.evaluate("document.documentElement.scrollWidth") <= width, path.name
                scroll = "[...document.querySelectorAll('article pre, article table, article img')].filter(e =>"
                scroll += " e.getBoundingClientRect().width > innerWidth && !e.closest('.md-typeset__scrollwrap, pre')).length"
                assert page.evaluate(scroll) == 0, path.name
        page.evaluate(
            "document.querySelector('label[for=__search]').click(); document.querySelector('[name=query]').focus()"
        )
        page.call("Input.insertText", text="halving")
        found = page.wait_for("document.querySelector('.md-search-result__link')?.innerText", "a result")
        assert "Choosing a model" in found
