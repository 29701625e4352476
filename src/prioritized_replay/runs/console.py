"""One way to print a line for the user."""

from rich.console import Console


def say(console: Console, line: str) -> None:
    """Print a line as it is: not wrapped, and without colours or markup."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)
