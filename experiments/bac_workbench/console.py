"""What scripts print: tables, progress, and errors that fit on one screen."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from bac_workbench.errors import clearest, is_users

console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)

LONGEST = 3000  # characters of a message


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """Prints an error that is the user's without a traceback and exits with status 1.

    Anything else is a bug and shows its traceback.
    """
    try:
        yield
    except KeyboardInterrupt:
        console.print("\ninterrupted; what is finished is kept, the same command goes on from there", style="yellow")
        raise SystemExit(130) from None
    except Exception as error:
        if not is_users(error):
            raise
        Console(stderr=True, highlight=False, soft_wrap=True).print("[bold red]error:[/] ", end="")
        print(str(clearest(error))[:LONGEST], file=sys.stderr)
        raise SystemExit(1) from None


def progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


class EpisodeProgress:
    """Counts finished episodes on a bar, and in plain lines where the output is no terminal."""

    def __init__(self, bar: Progress, total: int, every: int = 5):
        self.bar, self.total, self.every = bar, total, every
        self.job = bar.add_task("episodes", total=total)
        self.start("episodes")

    def start(self, name: str) -> None:
        """Begins a new mean under another name."""
        self.name, self.scores = name, []
        self.bar.update(self.job, description=name)

    def __call__(self, result) -> None:
        self.scores.append(result.score)
        text = f"{self.name}: mean score {sum(self.scores) / len(self.scores):.3f}"
        self.bar.update(self.job, advance=1, description=text)
        if not self.bar.console.is_terminal and len(self.scores) % self.every == 0:
            self.bar.console.print(f"{text} over {len(self.scores)} episodes")


def table(title: str, columns: Sequence[str], rows: list[list[str]]) -> Table:
    """First column left, the others right."""
    result = Table(title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        result.add_column(column, justify="left" if index == 0 else "right", no_wrap=index == 0, overflow="fold")
    for row in rows:
        result.add_row(*row)
    return result
