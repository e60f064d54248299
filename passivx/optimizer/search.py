"""The search itself, on one window: proposals to results, results to the journal.

One loop, interrupted or not: the sampler proposes, what the journal does not know is run, the
sampler is told. Resuming is doing that again from the start, with a journal that knows.
"""

from __future__ import annotations

import copy
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from passivx.backtesting import Trial
from passivx.optimizer.criteria import DONE
from passivx.optimizer.journal import Journal, Name
from passivx.optimizer.samplers import SAMPLERS, Plan, Proposal, Result, Sampler
from passivx.optimizer.settings import Settings
from passivx.optimizer.walk_forward import Window
from passivx.optimizer.workers import Evaluator, Job

__all__ = ["Progress", "Search"]

# After so long, everything written is on disk whatever happens to the machine, and the best one's
# files are its own: to wait for a disk after each generation costs some 5 ms.
_SAVE_S: Final = 1.0
# Results that came ahead of their turn are where a later process finds them after so long.
_SPILL_S: Final = 0.2


@dataclass(slots=True)
class Progress:
    """Where a session is; what a watcher is shown.

    ``k`` is the last iteration in order, ``m`` the reach of its hops; a window's iterations are
    ``first_k`` to ``end_k`` (left out). ``n_run`` candidates were run by this process in
    ``seconds``, ``n_known`` came from the journal; ``best`` is the best result line of the window
    so far, ``rejects`` are by criterion, over the session.
    """

    first_k: int
    end_k: int
    windows: int
    window: int = 0
    k: int = 0
    m: float = 1.0
    n_iterations: int = 0
    n_run: int = 0
    n_known: int = 0
    seconds: float = 0.0
    best: dict[str, Any] | None = None
    rejects: Counter[str] = field(default_factory=Counter)

    @property
    def per_second(self) -> float:
        """Candidates run per second."""
        return self.n_run / self.seconds if self.seconds > 0.0 else 0.0

    @property
    def share(self) -> float:
        """Share of all iterations that is done."""
        return self.n_iterations / (self.windows * (self.end_k - self.first_k))

    @property
    def eta_s(self) -> float | None:
        """Seconds until the end at this pace; None when there is no telling yet."""
        left = self.windows * (self.end_k - self.first_k) - self.n_iterations
        return left / self.per_second if self.n_run else None


class Search:
    """One window of a session. ``found`` is called when the window's best line has changed."""

    def __init__(
        self,
        settings: Settings,
        window: Window,
        *,
        journal: Journal,
        evaluator: Evaluator,
        progress: Progress,
        watch: Callable[[Progress], object],
        found: Callable[[dict[str, Any]], object],
    ) -> None:
        self._settings, self._window = settings, window
        self._journal, self._evaluator = journal, evaluator
        self._progress, self._watch, self._found = progress, watch, found
        file = settings.file
        plan = Plan(
            space=settings.space,
            seed=file.seed,
            stream=window.number,
            first_k=file.starting_k,
            end_k=file.n_jackrabbit_iterations,
            generation=file.generation,
            starts=settings.starts,
        )
        self._sampler = SAMPLERS[file.sampler](plan)
        self._written: set[str] = set()  # keys
        self._order: deque[Proposal] = deque()  # to be written, in turn
        self._at_work: set[Name] = set()  # jobs that are not back
        self._ahead: deque[Proposal] = deque()  # of the next generation, as it would be now
        self._high = -math.inf  # the best score that has come in
        self._best_rank: tuple[bool, float] | None = None
        self._saved: dict[str, Any] | None = None
        self._saved_s = self._spilled_s = time.perf_counter()

    def run(self) -> dict[str, Any] | None:
        """Run to the end; return the best line that met every criterion.

        That is the one with the highest objective of those that made money; of all, if none did.
        """
        progress = self._progress
        progress.window, progress.best = self._window.number or 1, None
        began = time.perf_counter() - progress.seconds
        while proposals := self._sampler.ask():
            self._ask_for(proposals)
            while self._order:
                self._work_ahead(proposals)
                self._keep(self._evaluator.results())
                self._write_in_turn()
                if time.perf_counter() - self._spilled_s > _SPILL_S:
                    self._spill()
                progress.seconds = time.perf_counter() - began
                self._watch(progress)
            self._sampler.tell(self._results(proposals))
            progress.n_iterations += len(proposals)
            if time.perf_counter() - self._saved_s > _SAVE_S:
                self._save()
        self._save()
        return progress.best

    def _spill(self) -> None:
        self._journal.spill()
        self._spilled_s = time.perf_counter()

    def stop(self, done: Iterable[tuple[Job, Trial]]) -> None:
        """Keep what was done when a run was cut short, wherever it was.

        Nothing more is written in turn: a line may have been lost on its way to the file, and one
        after it would take its place.
        """
        self._keep(done)
        self._save()

    def _save(self) -> None:
        self._spill()
        self._journal.sync()
        best = self._progress.best
        if best is not self._saved and best is not None:
            self._found(best)
        self._saved, self._saved_s = best, time.perf_counter()

    def _keep(self, done: Iterable[tuple[Job, Trial]]) -> None:
        settings = self._settings
        for job, trial in done:
            status = settings.criteria.status(trial)
            window, key = job.name
            line: dict[str, Any] = {"key": key, "k": -1}
            if window:
                line["window"] = window
            line |= settings.space.as_dict(job.values)
            score = settings.criteria.score(trial.figures) if status == DONE else None
            line |= {"objective": score, "status": status}
            self._journal.put(line | trial.figures)
            self._at_work.discard(job.name)
            if score is not None and score > self._high:
                self._high = score
                self._ahead.clear()  # guessed without it

    def _ask_for(self, proposals: Sequence[Proposal]) -> None:
        asked = set()
        for proposal in proposals:
            if proposal.key not in self._written and proposal.key not in asked:
                asked.add(proposal.key)
                self._order.append(proposal)
                self._submit(proposal)
        self._ahead.clear()
        self._write_in_turn()

    def _submit(self, proposal: Proposal) -> bool:
        name = self._name(proposal)
        if name in self._at_work or name in self._journal:
            return False
        self._at_work.add(name)
        window = self._window
        self._evaluator.submit(Job(name, proposal.values, window.first, window.middle))
        return True

    def _work_ahead(self, proposals: Sequence[Proposal]) -> None:
        """Let workers that wait for the last of a generation begin with the next.

        What that will be is a guess: that nothing still at work is better than what is known, which
        is mostly so. Then it will have been asked for; else idle time is lost, and nothing more.
        """
        idle = self._evaluator.idle
        if idle is None:
            return
        guess: Sampler | None = None
        # Once more than that for those who will be idle next: they must not wait for a guess.
        for _ in range(idle + 1):
            if not self._ahead:
                guess = guess or copy.copy(self._sampler)
                guess.tell(self._results(proposals))
                proposals = guess.ask()
                self._ahead.extend(proposals)
            while self._ahead and idle:
                idle -= self._submit(self._ahead.popleft())

    def _results(self, proposals: Sequence[Proposal]) -> list[Result]:
        """Return what is known of proposals; as if rejected, what is not known yet."""
        verdicts = [self._journal.verdict(self._name(proposal)) for proposal in proposals]
        return [
            Result(proposal, None if verdict is None else verdict.objective)
            for proposal, verdict in zip(proposals, verdicts, strict=True)
        ]

    def _name(self, proposal: Proposal) -> Name:
        return self._window.number, proposal.key

    def _write_in_turn(self) -> None:
        progress = self._progress
        while self._order:
            proposal = self._order[0]
            name = self._name(proposal)
            if name not in self._journal:
                return
            self._order.popleft()
            self._written.add(proposal.key)
            fresh, verdict = self._journal.write(name, proposal.k)
            progress.n_run += fresh
            progress.n_known += not fresh
            progress.k, progress.m = proposal.k, proposal.m
            if verdict.objective is None:
                progress.rejects[verdict.status] += 1
                continue
            # Whatever the objective: one that made money before one that did not.
            rank = (verdict.earns, verdict.objective)
            if self._best_rank is None or rank > self._best_rank:
                self._best_rank = rank
                progress.best = self._journal.line(name)
