"""The page loads nothing, trusts no file, and its filters hide what they should."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree.ElementTree import Element

import pytest

from tests.reporting.dom import rows_of, text_of, tree

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def in_browser(page: Path, fragment: str, profile: Path) -> Element:
    """The page as it is after its scripts ran; fails where the browser tells an error of them."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"needs a browser: none of {', '.join(BROWSERS)} is installed")
    switches = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,4000", "--enable-logging=stderr"]
    done = subprocess.run(
        [
            browser,
            *switches,
            f"--user-data-dir={profile}",
            "--virtual-time-budget=10000",
            "--dump-dom",
            f"{page.as_uri()}{fragment}",
        ],
        capture_output=True,
        text=True,
        timeout=240,
    )
    told = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not told, told
    return tree(done.stdout)


# ---- nothing is loaded ----
def test_nothing_is_loaded_from_elsewhere(kept_report):
    page = tree((kept_report / "report.html").read_text(encoding="utf-8"))
    sources = [
        element.get(name) for element in page.iter() for name in ("src", "href") if element.get(name) is not None
    ]
    assert sources and all(source.startswith(("#", "data:")) for source in sources)
    assert not [element for element in page.iter() if element.tag in ("link", "iframe", "object", "embed", "base")]
    style = "".join(text_of(element) for element in page.iter("style"))
    assert "url(" not in style and "@import" not in style


def test_only_the_pages_own_scripts_may_run(kept_report):
    page = tree((kept_report / "report.html").read_text(encoding="utf-8"))
    policy = next(item for item in page.iter("meta") if item.get("http-equiv")).get("content")
    scripts = ["".join(item.itertext()) for item in page.iter("script") if item.get("type") != "application/json"]
    allowed = re.search(r"script-src ([^;]+);", policy)[1].split()
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    assert allowed == [f"'sha256-{digest}'" for digest in digests] and len(scripts) == 2
    assert policy.startswith("default-src 'none';") and "http" not in policy


# ---- nothing in a file is trusted ----
def test_names_from_files_are_text(evaluations, reported):
    bad = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
    for name in ("full", "uniform", "bac", "sacs"):
        path = evaluations / name / "eval_results.json"
        stored = json.loads(path.read_text())
        stored["provenance"] |= {"hardware": bad, "commit": bad, "task": f"t{bad}"}
        stored["method"] += bad if name == "sacs" else ""
        path.write_text(json.dumps(stored))
        (evaluations / name / "benchmark_results.json").unlink()
    output = reported("pictures=false")
    page = tree((output / "report.html").read_text(encoding="utf-8"))
    assert not list(page.iter("img"))
    scripts = [item for item in page.iter("script") if item.get("type") != "application/json"]
    assert len(scripts) == 2
    assert any(bad in "".join(cell.itertext()) for cell in page.iter("td"))


# ---- filters, in a browser ----
def test_a_browser_shows_what_the_address_says(kept_report, tmp_path):
    page = in_browser(kept_report / "report.html", "#task=pusht_lowdim&method=bac&budget=10", tmp_path)
    sections = {item.get("id"): "hidden" in item.attrib for item in page.iter("section") if item.get("id")}
    assert sections.pop("pusht_lowdim") is False and len(sections) == 4 and all(sections.values())
    section = next(item for item in page.iter("section") if item.get("id") == "pusht_lowdim")
    table = next(section.iter("table"))
    seen = [text_of(row[0]) for row in table.iter("tr") if "hidden" not in row.attrib]
    assert seen == ["method", "BAC, budget 10"]
    charts = {item.get("id"): item for item in section.iter("div") if item.get("class", "").startswith("chart")}
    scores = charts["pusht_lowdim-frontier_scores"]
    named = [text_of(item) for item in scores.iter("text") if item.get("class") == "legendtext"]
    assert named in (["BAC, budget 10"], [])  # a legend of one is left out
    bars = charts["pusht_lowdim-frontier_ablation"]
    assert len([item for item in bars.iter("g") if item.get("class") == "point"]) == 1


def test_a_browser_shows_everything_without_a_filter(kept_report, tmp_path):
    page = in_browser(kept_report / "report.html", "", tmp_path)
    assert not [item for item in page.iter("section") if "hidden" in item.attrib]
    scores = next(item for item in page.iter("div") if item.get("id") == "pusht_lowdim-frontier_scores")
    named = [text_of(item) for item in scores.iter("text") if item.get("class") == "legendtext"]
    table = next(item for item in page.iter("section") if item.get("id") == "pusht_lowdim").find(".//table")
    heading, *rows = rows_of(table)
    timed = heading.index("compiled, ms")
    assert named == [row[0].replace("  ", " ") for row in rows if row[timed] != "-"]
    later = [item for item in page.iter("div") if item.get("id", "").endswith("similarity_cosine")]
    assert later and not any(list(item) for item in later), "figures far below are drawn when they come into view"
