"""Generation as the panel shows it: a text in the making and, from the moment a plan acts, the text without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from workbench.errors import PromptError
from workbench.interventions import Plan
from workbench.panel import replies
from workbench.said import said

if TYPE_CHECKING:
    from workbench.runtime.live import Live


class Timeline:
    """One text in the making.

    Attributes
    ----------
    main
        The generation that the plan acts on.
    base
        The same text going on without a plan; ``None`` until a plan acts, so that it costs nothing before.
    """

    def __init__(self, main: Live, base: Live | None = None, plans: list[Plan] | None = None) -> None:
        self.main = main
        self.base = base
        self._plans = plans or []
        self._agreed = 0  # so many tokens of the two texts are known to be the same

    @property
    def lives(self) -> list[Live]:
        """The generations of this timeline, the edited one first."""
        return [self.main] if self.base is None else [self.main, self.base]

    @property
    def one_plan(self) -> bool:
        """Whether every computed token ran under the same plan."""
        return len({plan.hash for plan in self._plans}) <= 1

    def plan_at(self, position: int) -> Plan | None:
        """The plan under which a token was computed; ``None`` if it has not been."""
        return self._plans[position] if position < len(self._plans) else None

    def pending(self, plan: Plan) -> bool:
        """Whether ``plan`` is not yet the one of the last step."""
        return plan.hash != self.main.plan.hash

    def step(self, plan: Plan) -> None:
        """Compute one token under ``plan``, and one without where the two have parted."""
        if self.pending(plan):
            self.main.edit(plan)
        if self.base is None and plan.active:
            self.base = self.main.branch()
            self.base.edit(Plan())
        self.main.step()
        self._plans += [plan] * (len(self.main.logits) - len(self._plans))
        if self.base is not None and not self.base.ended:
            self.base.step()

    def rewind(self, position: int) -> None:
        """Make the token at ``position`` the last one of both texts."""
        first, last = self.main.prompt_tokens - 1, len(self.main.tokens) - 1
        if not first <= position < last:
            raise PromptError(
                said("The text cannot be rewound to token %1.", position),
                said("Select a token from %1 (the end of the prompt) to %2.", first, last - 1)
                if first < last
                else said("Generate first."),
            )
        for live in self.lives:
            count = len(live.tokens) - 1 - position
            if count > 0:
                live.rewind(count)
        del self._plans[len(self.main.logits) :]
        self._agreed = min(self._agreed, position + 1)

    def branch(self) -> Timeline:
        """Another timeline that goes on from here."""
        base = None if self.base is None else self.base.branch()
        return Timeline(self.main.branch(), base, list(self._plans))

    def finish(self) -> None:
        """Write what was generated as finished runs."""
        for live in self.lives:
            if len(live.logits):
                live.finish()

    def diverged(self) -> int | None:
        """Position of the first token that differs between the two texts."""
        if self.base is None:
            return None
        one, other = self.main.tokens, self.base.tokens
        shorter = min(len(one), len(other))
        while self._agreed < shorter and one[self._agreed] == other[self._agreed]:
            self._agreed += 1
        return self._agreed if self._agreed < shorter else None


class Timelines:
    """The open timelines of a prompt, and the one in view."""

    MOST = 8
    """Each holds keys and values of its own, so that they do not pile up unseen."""

    def __init__(self, first: Timeline, text: Any) -> None:
        self._all = [first]
        self._text = text
        # The texts of a generation's tokens, and the timeline they are of: as it grows only the new ones are looked up.
        self._texts: WeakKeyDictionary[Live, tuple[int | None, list[str]]] = WeakKeyDictionary()
        self._current = 0

    @property
    def now(self) -> Timeline:
        """The timeline in view."""
        return self._all[self._current]

    def branch(self) -> None:
        """Open another timeline from the token in view, and go on in it."""
        if len(self._all) >= self.MOST:
            raise PromptError(
                said("%1 branches are open, and each keeps its own cache.", self.MOST),
                said("Go on in one of them, or run the prompt again to start over."),
            )
        self._all.append(self.now.branch())
        self._current = len(self._all) - 1

    def choose(self, index: int) -> None:
        """Go on in timeline number ``index``."""
        if not 0 <= index < len(self._all):
            raise PromptError(
                said("There is no branch %1.", index), said("There are %1, counted from 0.", len(self._all))
            )
        self._current = index

    def finish(self) -> None:
        """Write every timeline."""
        for line in self._all:
            line.finish()

    def texts(self, live: Live) -> list[str]:
        """The text of each token of ``live``."""
        run, known = self._texts.get(live, (None, []))
        if run != live.run:
            known = []
            self._texts[live] = (live.run, known)
        known += [str(self._text(token)) for token in live.tokens[len(known) :]]
        return list(known)

    def card(self) -> replies.LiveCard:
        """What a view shows of the timeline, with no change of the plan pending."""
        line = self.now
        start = line.main.prompt_tokens
        return replies.LiveCard(
            prompt_tokens=start,
            edited=replies.LiveText(keep=0, tokens=self.texts(line.main)[start:]),
            base=None
            if line.base is None
            else replies.LiveText(keep=0, tokens=self.texts(line.base)[start:]),
            diverged=line.diverged(),
            ended=line.main.ended,
            pending=False,
            timelines=[len(other.main.tokens) - other.main.prompt_tokens for other in self._all],
            current=self._current,
        )
