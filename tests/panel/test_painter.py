"""What is drawn beside the model's own work: once for many questions, never two at a time, and never for ever."""

from __future__ import annotations

import threading
import time
from typing import Any

from workbench.panel.painter import REST, Painter


def test_what_is_asked_while_a_picture_is_made_is_one_more_picture() -> None:
    begun, go_on = threading.Event(), threading.Event()
    pictures: list[int] = []
    finished: list[int] = []

    def paint() -> None:
        pictures.append(len(pictures))
        begun.set()
        assert go_on.wait(30)

    painter = Painter(paint, lambda: finished.append(len(pictures)))
    painter.ask()
    assert begun.wait(30) and painter.busy
    for _ in range(20):
        painter.ask()
    go_on.set()
    painter.settle()
    assert pictures == [0, 1] and finished == [2] and not painter.busy
    painter.ask()
    painter.settle()
    assert pictures == [0, 1, 2] and finished == [2, 3], "it starts again"


def test_between_two_pictures_it_rests() -> None:
    times: list[tuple[float, float]] = []

    def paint() -> None:
        began = time.monotonic()
        times.append((began, time.monotonic()))
        if len(times) < 3:
            painter.ask()

    painter = Painter(paint, lambda: None)
    painter.ask()
    painter.settle()
    assert len(times) == 3
    for (_, ended), (next_began, _) in zip(times, times[1:], strict=False):
        assert next_began - ended >= REST * 0.99


def test_a_picture_that_fails_is_told_and_the_next_one_is_made(caplog: Any) -> None:
    made: list[int] = []

    def paint() -> None:
        made.append(len(made))
        if len(made) == 1:
            raise ValueError("no canvas")

    painter = Painter(paint, lambda: None)
    for _ in range(2):
        painter.ask()
        painter.settle()
    assert made == [0, 1] and "could not be drawn" in caplog.text and "no canvas" in caplog.text
