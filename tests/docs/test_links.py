"""Every relative link of the README and the pages leads to a file that is there, and to a heading in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, name_of

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def text_without_code(page: Path) -> str:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(?<!\[)`[^`\n]*`(?!\])", "", text)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target in LINK.findall(text_without_code(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        leads_to = (page.parent / path).resolve() if path else page
        assert leads_to.is_relative_to(ROOT) and leads_to.exists(), f"{name_of(page)} links to {target}"
        assert not anchor or anchor in anchors(leads_to), f"{name_of(page)} links to {target}: no such heading"


def test_every_page_is_in_the_navigation_of_the_site():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in PAGES[1:]:
        assert f": {page.relative_to(ROOT / 'docs')}\n" in navigation, name_of(page)


def test_the_index_leads_to_every_part_of_the_documentation():
    """And the README to the index."""
    index = ROOT / "docs" / "index.md"
    linked = {f"docs/{link}" for link in LINK.findall(index.read_text(encoding="utf-8"))}
    parts = {name_of(page) for page in PAGES[1:] if page.parent.name != "results"}
    assert parts - linked == {"docs/index.md"}
    assert "docs/index.md" in LINK.findall((ROOT / "README.md").read_text(encoding="utf-8"))


def test_the_links_of_the_tests_are_found():
    assert len(LINK.findall(text_without_code(ROOT / "README.md"))) > 15
