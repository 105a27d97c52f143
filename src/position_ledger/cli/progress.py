"""Progress bars: on standard error, and only if that is a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

if TYPE_CHECKING:
    from types import TracebackType


class _Left(TimeRemainingColumn):
    """How it goes in the words of whoever knows better, or the time that is left by the bar's own reckoning."""

    def render(self, task: Task) -> Text:
        """One cell."""
        how = task.fields.get("how")
        return Text(how) if how else super().render(task)


class Bar:
    """One bar after another: `start` begins one, `advance` says how much is done in all, `finish` ends it."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Left(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task: TaskID | None = None

    def start(self, total: int | None, what: str) -> None:
        """Begin a bar; without a total it only shows that something happens."""
        self.finish()
        self._progress.start()
        self._task = self._progress.add_task(what, total=total, how="")

    def advance(self, done: int, how: str = "") -> None:
        """Say how much of the total is done by now, and how it goes; without words the bar estimates by itself."""
        if self._task is not None:
            self._progress.update(self._task, completed=done, how=how)

    def finish(self) -> None:
        """Take the bar away."""
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()
        self._progress.stop()
