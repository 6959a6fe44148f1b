"""One open view: its requests checked and carried out, every failure told to the person at the screen.

Nothing here knows how messages travel; :mod:`workbench.panel.comms` and :mod:`workbench.panel.widget` bring them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, TypeAlias

from pydantic import ValidationError

from workbench.errors import SetupError, WorkbenchError
from workbench.panel import protocol, replies, requests
from workbench.panel.benches import Benches
from workbench.panel.reader import Reader, Reading
from workbench.panel.reads import read
from workbench.panel.replies import sentence
from workbench.panel.session import Session
from workbench.runtime.versions import versions
from workbench.said import said

log = logging.getLogger(__name__)

UNSEEN_MAPS = 4
"""A view that has left so many maps unacknowledged gets no more until it speaks again."""

Send: TypeAlias = Callable[[dict[str, Any], Sequence[memoryview]], None]


class _Letter(NamedTuple):
    """A message on its way: as JSON, with its buffers, and where it is of the screen, of which moment."""

    data: dict[str, Any]
    buffers: Sequence[memoryview]
    moment: int


class Connection:
    """A view on one bench of this kernel at a time.

    Parameters
    ----------
    benches
        The kernel's benches; the view may switch between them.
    send
        Delivers messages that belong together, as ``{"messages": [...], "buffers": [how many each has]}``, with the binary
        buffers of all of them; called from any thread, one call at a time.
    """

    def __init__(self, benches: Benches, send: Send) -> None:
        self._benches = benches
        self._send = send
        self._lock = threading.RLock()
        self._session: Session | None = None
        self._greeted = False
        self._watched = True
        self._unseen = 0
        # The pieces of a map are read side by side: the store answers each question on one core.
        self._drawing, self._asking = Reader(threads=2), Reader()
        self._gathered = threading.local()
        self._posting = threading.Lock()
        self._latest: dict[str, int] = {}
        self._called_off: set[int] = set()
        self._texts: dict[str, list[str]] = {}  # of a generation, as the view was told them last

    @property
    def visible(self) -> bool:
        """Whether to send what changes on the screen."""
        return self._watched and self._unseen < UNSEEN_MAPS

    def show_bench(self, bench: Any) -> None:
        """Show ``bench`` as soon as the view says hello."""
        with self._lock:
            self._session = self._benches.session(bench)
            self._session.screen.views.add(self)

    def receive(self, lane: protocol.Lane, data: Any) -> None:
        """Carry out one request; whatever goes wrong becomes an ``error`` message."""
        seq = data.get("seq") if isinstance(data, dict) else None
        seq = seq if isinstance(seq, int) else None
        # What a click changes arrives as one message, as a token does; what computes longer tells as it goes.
        at_once = lane == "control" or (isinstance(data, dict) and data.get("type") == "step")
        with self.together() if at_once else nullcontext():
            self._answer(seq, lambda: self._take(lane, data))

    def settle(self) -> None:
        """Wait until every reading request has been answered, and everything has been drawn."""
        for reader in (self._drawing, self._asking):
            reader.settle()
        session = self._session
        if session is not None:
            session.screen.settle()

    def _take(self, lane: protocol.Lane, data: Any) -> bool:
        """Carry out a request now, or hand it to a reader; whether it has been answered."""
        request = protocol.REQUESTS[lane].validate_python(data)
        if isinstance(request, requests.Cancel):
            self._asking.stop(request.request)
            with self._lock:
                self._called_off.add(request.request)
        elif isinstance(request, protocol.READS):
            # Maps have a reader of their own, so that none waits for a long query.
            reader = self._drawing if isinstance(request, requests.TileOf | requests.LoadOf) else self._asking
            reader.ask(
                request.seq, lambda reading: self._answer(request.seq, lambda: self._read(request, reading))
            )
            return False
        elif not (isinstance(request, requests.Step) and self._is_called_off(request.seq)):
            self._handle(request)
        return True

    def _is_called_off(self, seq: int) -> bool:
        """Whether a step is not wanted any more; requests before it are not asked for again."""
        with self._lock:
            found = seq in self._called_off
            self._called_off = {other for other in self._called_off if other > seq}
        return found

    def _read(self, request: requests.Request, reading: Reading) -> bool:
        if not reading.stopped:
            answer = read(self._session, request, reading)
            if answer is not None and not reading.stopped:
                self.tell(*answer)
        return True

    def _answer(self, seq: int | None, work: Callable[[], bool]) -> None:
        """Do ``work``, tell what went wrong, and say that the request is done if it says so."""
        done = True
        try:
            done = work()
        except ValidationError as error:
            finding = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in finding["loc"]) or "message"
            self._fail(
                seq,
                said(
                    "The panel sent something this kernel does not understand (%1: %2).",
                    where,
                    finding["msg"],
                ),
                said(
                    "Reload the page; if it stays, the panel and the kernel have different versions of routing-workbench."
                ),
            )
        except WorkbenchError as error:
            self._fail(seq, error.problem, error.remedy)
        except KeyboardInterrupt:
            self._fail(seq, said("The computation was interrupted."), said("Run the prompt again."))
        except (
            Exception
        ) as error:  # the last line of defence: an exception in a comm callback is shown nowhere else
            log.exception("panel request failed")
            self._fail(
                seq,
                said("The workbench failed inside: %1: %2", type(error).__name__, error),
                said("The full trace is in the kernel's log; please report it."),
            )
        if done and seq is not None:
            self.tell(replies.Done(seq=seq))

    def tell(self, message: requests.Message, buffers: Sequence[memoryview] = (), moment: int = 0) -> None:
        """Send ``message`` to this view, now or with what else :meth:`together` gathers.

        Of what is on the screen ``moment`` says when it was so: it is not sent after something later of its kind.
        """
        letter = _Letter(message.model_dump(mode="json"), buffers, moment)
        gathered: list[_Letter] | None = getattr(self._gathered, "letters", None)
        if gathered is None:
            self._post([letter])
        else:
            gathered.append(letter)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What this thread tells inside arrives at the view as one message."""
        if getattr(self._gathered, "letters", None) is not None:
            yield
            return
        self._gathered.letters = []
        try:
            yield
        finally:
            self.deliver()
            self._gathered.letters = None

    def deliver(self) -> None:
        """Send what :meth:`together` has gathered so far."""
        letters = getattr(self._gathered, "letters", None)
        if letters:
            self._gathered.letters = []
            self._post(letters)

    def _post(self, letters: Sequence[_Letter]) -> None:
        with self._posting:
            letters = [letter for letter in letters if self._is_new(letter)]
            for letter in letters:
                if letter.data["type"] == "state":
                    self._shorten(letter.data["live"])
            if letters:
                self._send(
                    {
                        "messages": [letter.data for letter in letters],
                        "buffers": [len(letter.buffers) for letter in letters],
                    },
                    [buffer for letter in letters for buffer in letter.buffers],
                )

    def _is_new(self, letter: _Letter) -> bool:
        kind = str(letter.data["type"])
        if letter.moment < self._latest.get(kind, 0) and letter.moment:
            return False
        self._latest[kind] = max(letter.moment, self._latest.get(kind, 0))
        if kind == "map":
            self._unseen += 1
        return True

    def _shorten(self, live: dict[str, Any] | None) -> None:
        """Of the texts of a generation, leave what the view has not been told: a long one grows by a token at a time."""
        for side in ("edited", "base"):
            text = None if live is None else live[side]
            known, tokens = self._texts.get(side, []), [] if text is None else text["tokens"]
            self._texts[side] = tokens
            if live is not None and text is not None:
                keep = _agreement(known, tokens)
                live[side] = {"keep": keep, "tokens": tokens[keep:]}

    def announce(self) -> None:
        """Tell the view which benches there are, and take up one if it shows none or its own is gone."""
        if not self._greeted:
            return
        with self._lock:
            found = self._benches.find()
            if self._session is not None and self._session.key not in found:
                self._leave()
            if self._session is None and found:
                self._join(found[next(reversed(found))].session)
                return
            self._tell_benches()

    def close(self) -> None:
        """The view is gone."""
        with self._lock:
            self._leave()
            self._greeted = False
            self._benches.connections.discard(self)
        self._drawing.close()
        self._asking.close()

    def _handle(self, request: Any) -> None:
        if isinstance(request, requests.Hello):
            self._hello(request)
        elif isinstance(request, requests.Seen):
            behind, self._unseen = not self.visible, 0
            if behind and self._session is not None:
                self._session.screen.show(self)
        elif isinstance(request, requests.Watch):
            self._watched, self._unseen = request.visible, 0
            if self._session is not None:
                self._session.screen.show(self)
        elif isinstance(request, requests.UseBench):
            found = self._benches.find()
            if request.key not in found:
                raise SetupError(
                    said("That bench is not in this kernel any more."),
                    said("Choose another one from the list."),
                )
            with self._lock:
                self._leave()
                self._join(found[request.key].session)
        elif isinstance(request, requests.Open):
            self._open(request)
        elif self._session is None:
            raise SetupError(
                said("No model is open in this kernel."),
                said("Open one in the field above, or run bench = wb.open()."),
            )
        else:
            self._session.handle(request, self)

    def _hello(self, hello: requests.Hello) -> None:
        if hello.protocol != protocol.PROTOCOL:
            mine = versions()["workbench"]
            older = "kernel" if hello.protocol > protocol.PROTOCOL else "JupyterLab"
            raise SetupError(
                said(
                    "The panel is of version %1 and the kernel's workbench of %2; they cannot talk.",
                    hello.version,
                    mine,
                ),
                said(
                    "Upgrade routing-workbench in the environment of the %1, then restart it and reload the page.",
                    older,
                ),
            )
        self._greeted = True
        with self._posting:
            self._texts = {}  # it may be another view of the same widget that speaks
        self._benches.connections.add(self)
        if self._session is not None:
            self._tell_benches()
            self._session.screen.show(self)
        else:
            self.announce()

    def _open(self, request: requests.Open) -> None:
        name = request.model.strip() if request.model else None
        what = said("opening %1", name) if name else said("opening the demo model")
        self.tell(replies.Busy(what=sentence(what)))

        def tell(megabytes: tuple[float, float] | None, share: float) -> None:
            loading = what
            if megabytes is not None:
                loading = said(
                    "opening %1: %2 of %3 MB downloaded", name or "", *(f"{size:,.1f}" for size in megabytes)
                )
            self.tell(replies.Busy(what=sentence(loading), share=share))

        try:
            session = self._benches.open(name, tell)
        finally:
            self.tell(replies.Busy(what=None))
        with self._lock:
            self._leave()
            self._join(session)
        self._benches.announce()
        if request.plan is not None:
            session.take_plan(request.plan)
        if request.prompt:
            session.run(request.prompt)

    def _join(self, session: Session) -> None:
        self._session = session
        session.screen.views.add(self)
        self._tell_benches()
        session.screen.show(self)

    def _leave(self) -> None:
        if self._session is not None:
            self._session.screen.views.discard(self)
            self._session = None

    def _tell_benches(self) -> None:
        self.tell(
            replies.Benches(
                protocol=protocol.PROTOCOL,
                version=versions()["workbench"],
                benches=[
                    replies.BenchCard(key=key, name=entry.session.name, variables=entry.variables)
                    for key, entry in self._benches.find().items()
                ],
                current=None if self._session is None else self._session.key,
            )
        )

    def _fail(self, seq: int | None, problem: str, remedy: str) -> None:
        self.tell(replies.Failure(seq=seq, problem=sentence(problem), remedy=sentence(remedy)))


def _agreement(one: list[str], other: list[str]) -> int:
    """How many items two lists have in common at the start."""
    shorter = min(len(one), len(other))
    if one[:shorter] == other[:shorter]:
        return shorter
    return next(n for n in range(shorter) if one[n] != other[n])
