"""python -m docs.generate: writes every generated page and picture again.

Result pages and the README's table come from docs/results/*.json, the configuration reference from the settings'
schemas, the observation reference from the tasks' files. `--check` writes nothing and exits with 1 where a page
differs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from docs.figures import make_concepts, make_scores, make_surge
from docs.generate import configuration, observations, readme, results_pages
from docs.generate.stored import ROOT


def pages() -> dict[Path, str]:
    """Path -> content of every generated page."""
    return {**results_pages.pages(), **configuration.pages(), **observations.pages(), **readme.pages()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m docs.generate", description=__doc__.split("\n\n")[1])
    parser.add_argument("--check", action="store_true", help="only say which pages differ")
    check = parser.parse_args().check
    changed = [path for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in changed:
        if not check:
            path.write_text(pages()[path], encoding="utf-8")
        print(f"{'differs' if check else 'written'}: {path.relative_to(ROOT)}")
    if not check:
        make_concepts.main()
        make_scores.main()
        make_surge.main()
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
