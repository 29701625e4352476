"""The progress bar of every experiment: how far it is, and how long it will still take."""

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

WIDTH = 32  # characters of what is being done


def progress_bar(console: Console) -> Progress:
    """Return a bar as wide as the console; none is shown where nobody looks at a terminal."""
    return Progress(
        TextColumn(f"{{task.description:<{WIDTH}}}"),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        expand=True,
    )
