"""Requests that only read the store: each with a cursor of its own, in the thread of a reader."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from workbench.errors import PromptError, SetupError
from workbench.panel import answers, charts, experiments, models, questions, replies, requests, runs, tiles
from workbench.panel.forms import forms
from workbench.panel.profile import profile
from workbench.panel.ran import number
from workbench.panel.reader import Reading
from workbench.said import said

if TYPE_CHECKING:
    from workbench.panel.session import Session

Answer: TypeAlias = tuple[replies.Message, list[memoryview]] | None


def read(session: Session | None, request: requests.Request, reading: Reading) -> Answer:
    """The answer to a request; ``None`` where the view has moved on and nobody waits for it."""
    match request:
        case requests.FormsOf():
            return forms(), []
        case requests.ModelsOf():
            return answers.Models(rows=models.on_this_machine()), []
    if session is None:
        raise SetupError(
            said("No model is open in this kernel."),
            said("Open one in the field above, or run bench = wb.open()."),
        )
    bench = session.bench
    bench.store.flush()
    cursor = reading.use(bench.store.cursor())
    match request:
        case requests.TileOf():
            return session.tile(cursor, request)
        case requests.LoadOf():
            run = number(request.run)
            found = session.pair(run, run)
            return None if found is None else tiles.load(cursor, found[0].shape, run)
        case requests.RunsOf():
            before = None if request.before is None else number(request.before)
            return runs.listed(cursor, request.text, before), []
        case requests.Compare():
            base, run = number(request.base), number(request.run)
            return runs.compared(cursor, base, run, session.pair(run, base)), []
        case requests.Query():
            return questions.answer(cursor, reading, request.sql), []
        case requests.CatalogueOf():
            return questions.catalogue(cursor), []
        case requests.Draw():
            return charts.drawn(cursor, request.chart, number(request.run), request.layer), []
        case requests.Plot():
            with questions.guarded(cursor, reading, request.sql):
                spec = charts.plotted(cursor, request.sql, request.mark, request.x, request.y, request.colour)
            return answers.Chart(chart="query", run="", layer=-1, spec=spec, note=None), []
        case requests.Export(format="html"):
            return _page(session, cursor)
        case requests.Export():
            return questions.exported(cursor, reading, request.sql, request.format)
        case requests.Preview():
            return session.preview(request.seq, request.edit), []
        case requests.ExperimentsOf():
            return experiments.listed(cursor), []
        case requests.ProfileOf():
            checkpoint = getattr(bench, "checkpoint", None)
            return profile(cursor, checkpoint, str(bench.name), request.layer, request.expert), []
        case _:
            raise TypeError(f"no reader for {type(request).__name__}")


def _page(session: Session, cursor: Any) -> tuple[answers.File, list[memoryview]]:
    """The runs in view as one page that opens without a kernel."""
    from workbench.store.export import export

    numbers = session.in_view()
    if not numbers:
        raise PromptError(said("No prompt has been run."), said("Run one, then save its page."))
    if session.generating:
        raise PromptError(
            said("This text is still being generated, and its run is written when that has ended."),
            said("Press Run to end it; it is then in the list of runs, and can be saved from there."),
        )
    with tempfile.TemporaryDirectory() as folder:
        path = export(cursor, Path(folder) / "view.html", numbers)
        content = path.read_bytes()
    return answers.File(name=f"routing-{numbers[-1]}.html", mime="text/html"), [memoryview(content)]
