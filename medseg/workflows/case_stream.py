"""Run an inference engine over many cases: the next ones are read, and the last ones written, beside the network.

One thread reads, checks and preprocesses ahead (MONAI's ``ThreadBuffer``); for pictures a second one turns logits into
label maps and writes them. Volumes are finished before the next one enters the network: their logits are large.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.data import ThreadBuffer, list_data_collate
from monai.engines import SupervisedEvaluator

from medseg.bundle.compose import load_workflow
from medseg.data import Case
from medseg.errors import MedsegError
from medseg.faults import unwrapped

__all__ = ["run_cases"]

logger = logging.getLogger("medseg")

_AHEAD = {2: 4, 3: 1}  # cases read ahead of the network, by spatial axes
_BEHIND = {2: 4, 3: 0}  # cases whose logits wait to be written
_LINES = 20  # of progress for a folder of pictures


def run_cases(
    bundle: Path,
    changes: Mapping[str, Any],
    cases: Sequence[Case],
    check: Callable[[Case], None],
    dims: int,
    done: Callable[[Case, bool], None] = lambda case, background: None,
) -> dict[str, str]:
    """Run a bundle's ``inference.yaml`` over cases.

    Args:
        bundle: its folder.
        changes: config id -> value.
        cases: to segment.
        check: raises what is wrong with a case.
        dims: spatial axes.
        done: called with each case whose label map is written, and whether all of it is background.

    Returns:
        case id -> reason, for those that failed; the others are done.

    Raises:
        MedsegError: weights or config, with which no case can succeed.
    """
    failures: dict[str, str] = {}
    left = list(cases)
    with _Finish(_BEHIND[dims], cases, failures, done) as finish:
        while left:
            # An engine that failed cannot run again: ignite takes its next run for done.
            parser = load_workflow(bundle, "infer", changes).parser
            parser["evaluator::postprocessing"] = None  # done beside the engine
            if isinstance(parser.get().get("dataset"), Mapping):
                parser["dataset::data"] = []  # the cases are given: the bundle's own list is not asked for
            with unwrapped():
                preprocessing = parser.get_parsed_content("preprocessing")
                evaluator: SupervisedEvaluator = parser.get_parsed_content("evaluator")
                finish.attach(evaluator, parser.get_parsed_content("postprocessing"))
            evaluator.data_loader = ThreadBuffer(_read(left, check, preprocessing, failures), _AHEAD[dims])
            evaluator.state.epoch_length = None  # unknown: broken cases are left out
            try:
                evaluator.run()
                break
            except MedsegError:
                raise
            except Exception as error:
                if evaluator.state.batch is None:  # before the first case
                    raise
                failed = [case.id for case in left].index(evaluator.state.batch["case_id"][0])
                _note(left[failed].id, error, failures)
                left = left[failed + 1 :]
    return failures


def _read(
    cases: Sequence[Case], check: Callable[[Case], None], preprocessing: Callable[[Any], Any], failures: dict[str, str]
) -> Iterator[Any]:
    """Batches of one case; those that cannot be read are noted and left out."""
    for case in cases:
        try:
            with unwrapped():
                check(case)
                batch = list_data_collate([preprocessing(case.to_dict())])
        except Exception as error:  # any failure of one case must not stop the others
            _note(case.id, error, failures)
        else:
            yield batch


class _Finish:
    """A context in which an engine's outputs are postprocessed, up to ``behind`` of them in a thread of their own."""

    def __init__(
        self, behind: int, cases: Sequence[Case], failures: dict[str, str], written: Callable[[Case, bool], None]
    ) -> None:
        self.behind = behind
        self.total = len(cases)
        self.cases = {case.id: case for case in cases}
        self.failures = failures
        self.written = written
        self.done = 0
        self._last = time.monotonic()
        self._waiting: deque[Future[None]] = deque()

    def attach(self, evaluator: SupervisedEvaluator, postprocessing: Callable[[dict[str, Any]], Any]) -> None:
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._take, postprocessing)

    def __enter__(self) -> _Finish:
        self._thread = ThreadPoolExecutor(1)
        return self

    def __exit__(self, *_: Any) -> None:
        self._thread.shutdown()

    def _take(self, engine: Any, postprocessing: Callable[[dict[str, Any]], Any]) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            self._waiting.append(self._thread.submit(self._finish, {**item, **output}, postprocessing))
        engine.state.output = None  # the thread alone holds the logits
        while len(self._waiting) > self.behind:
            self._waiting.popleft().result()

    def _finish(self, item: dict[str, Any], postprocessing: Callable[[dict[str, Any]], Any]) -> None:
        try:
            with unwrapped():
                finished = postprocessing(item)
                self.written(self.cases[str(item["case_id"])], not bool(torch.as_tensor(finished["pred"]).any()))
        except Exception as error:
            _note(str(item["case_id"]), error, self.failures)
            return
        self.done += 1
        now = time.monotonic()
        if self.done == self.total or self.done % (self.total // _LINES + 1) == 0:
            logger.info("%d/%d %s  %.1f s", self.done, self.total, item["case_id"], now - self._last)
        self._last = now


def _note(case_id: str, error: Exception, failures: dict[str, str]) -> None:
    cause: BaseException = error
    while not isinstance(cause, MedsegError) and cause.__cause__ is not None:
        cause = cause.__cause__
    text = str(cause).strip()
    reason = text if isinstance(cause, MedsegError) else (text.splitlines() or [type(cause).__name__])[0]
    if isinstance(cause, (MemoryError, torch.OutOfMemoryError)):
        reason = f"out of memory ({reason}). Use a smaller roi_size or --device cpu."
    logger.error("%s: %s", case_id, reason)
    failures[case_id] = reason
