"""The search itself, on one window: proposals to results, results to the journal.

One loop, interrupted or not: the sampler proposes, what the journal does not know is run, the
sampler is told. Resuming is doing that again from the start, with a journal that knows.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from passivx.backtesting import Trial
from passivx.optimizer.criteria import DONE
from passivx.optimizer.journal import Journal
from passivx.optimizer.samplers import SAMPLERS, Plan, Proposal, Result
from passivx.optimizer.settings import Settings
from passivx.optimizer.walk_forward import Window
from passivx.optimizer.workers import Evaluator, Job

__all__ = ["Progress", "Search"]

# Everything written is on disk, whatever happens to the machine, after so long.
_SYNC_S: Final = 1.0


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
        self._scores: dict[str, float | None] = {}  # of what was written, by key
        self._order: deque[tuple[str, Proposal]] = deque()  # asked for and not written, in turn
        self._synced_s = 0.0

    def run(self) -> dict[str, Any] | None:
        """Run to the end; return the best line that met every criterion, whatever it earned."""
        progress = self._progress
        progress.window, progress.best = self._window.number or 1, None
        began = time.perf_counter() - progress.seconds
        while proposals := self._sampler.ask():
            keys = [self._settings.space.key(proposal.values) for proposal in proposals]
            best = progress.best
            self._ask_for(keys, proposals)
            while self._order:
                self.keep(self._evaluator.results())
                self._write_in_turn()
                self._journal.spill()
                progress.seconds = time.perf_counter() - began
                self._watch(progress)
            scores = [self._scores[key] for key in keys]
            self._sampler.tell(list(map(Result, proposals, scores)))
            progress.n_iterations += len(proposals)
            if progress.best is not None and progress.best is not best:
                self._found(progress.best)
            if progress.seconds - self._synced_s > _SYNC_S:
                self._journal.sync()
                self._synced_s = progress.seconds
        self._journal.sync()
        return progress.best

    def keep(self, done: Iterable[tuple[Job, Trial]]) -> None:
        """Take in results, whenever they come."""
        settings = self._settings
        for job, trial in done:
            status = settings.criteria.status(trial)
            window, key = job.name
            line: dict[str, Any] = {"key": key, "k": -1}
            if window:
                line["window"] = window
            line |= settings.space.as_dict(job.values)
            line["objective"] = settings.criteria.score(trial.figures) if status == DONE else None
            line["status"] = status
            self._journal.put(line | trial.figures)
            self._progress.n_run += 1

    def _ask_for(self, keys: list[str], proposals: list[Proposal]) -> None:
        window = self._window
        asked = set()
        for key, proposal in zip(keys, proposals, strict=True):
            if key in self._scores or key in asked:
                continue
            asked.add(key)
            self._order.append((key, proposal))
            name = (window.number, key)
            if name in self._journal:
                self._progress.n_known += 1
            else:
                self._evaluator.submit(Job(name, proposal.values, window.first, window.middle))
        self._write_in_turn()

    def _write_in_turn(self) -> None:
        progress = self._progress
        while self._order:
            key, proposal = self._order[0]
            name = (self._window.number, key)
            if name not in self._journal:
                return
            self._order.popleft()
            status, objective = self._journal.write(name, proposal.k)
            self._scores[key] = objective
            progress.k, progress.m = proposal.k, proposal.m
            if objective is None:
                progress.rejects[status] += 1
            elif progress.best is None or objective > progress.best["objective"]:
                progress.best = self._journal.line(name)
