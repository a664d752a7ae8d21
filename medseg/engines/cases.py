"""Inference and scoring case by case: one that fails is noted, and the others are done.

ignite has no hook that skips an iteration: an error that a handler swallows ends the epoch, quietly. So the place is
the iteration itself.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from monai.engines import SupervisedEvaluator
from monai.engines.utils import engine_apply_transform
from monai.inferers import SimpleInferer
from monai.transforms import Compose

from medseg.engines.log_file import show_log
from medseg.engines.ranks import gather, is_main, rank
from medseg.errors import CasesFailed, ConfigError, DataError, ModelError, ResourceError
from medseg.faults import reason_of, unwrapped
from medseg.inferers.streamed import streamed
from medseg.storage import read_table, write_json

__all__ = ["CaseEvaluator", "run_cases", "write_failures"]

logger = logging.getLogger("medseg")

_FAILURES = "failures.json"  # case id -> reason, in the folder of the results
_AT_ONCE = SimpleInferer()
_AS_IT_IS = Compose([])
_LINES = 20  # of progress for a folder of pictures
_SHOWN = 5  # failures in a sentence


class CaseEvaluator(SupervisedEvaluator):
    """MONAI's evaluator of batches of one case, in which a case that fails does not stop the others.

    Args:
        inferer, postprocessing: as MONAI's.
        behind: number of cases that may wait for post-processing in a thread of its own, beside the network; 0 finishes
            each case before the next one enters the network, as metrics need and as volumes, whose logits are large,
            want.
        kwargs: arguments of ``SupervisedEvaluator``.

    Attributes:
        done: called with the data of each finished case; what it raises is a failure of the case.
        seen: ids of the cases that came, in order.
        failures: case id -> reason.

    Raises:
        ConfigError, ModelError: with which no case can succeed.
    """

    def __init__(
        self, *, inferer: Any = _AT_ONCE, postprocessing: Any = _AS_IT_IS, behind: int = 0, **kwargs: Any
    ) -> None:
        for name, part in (("inferer", inferer), ("postprocessing", postprocessing)):
            if not callable(part):
                raise ConfigError(
                    f"The evaluator's {name} is {part!r}; expected a component, a mapping with '_target_'. Name one in "
                    "the config."
                )
        if not behind and isinstance(postprocessing, Compose):
            inferer, postprocessing = streamed(kwargs["network"], inferer, postprocessing)
        super().__init__(inferer=inferer, **kwargs)
        if behind and self.state.key_metric_name is not None:
            raise ConfigError(f"behind: {behind} cases would be scored before they are finished; use 0 with metrics.")
        self.postprocessing = postprocessing
        self.behind = behind
        self.done: Callable[[Mapping[str, Any]], None] = lambda data: None
        self.seen: list[str] = []
        self.failures: dict[str, str] = {}

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]  # as MONAI's
        self.seen, self.failures, self._finished, self._last = [], {}, 0, time.monotonic()
        self._waiting: deque[Future[Any]] = deque()
        with ThreadPoolExecutor(1) as self._thread:
            super().run(global_epoch)

    def _iteration(self, engine: Any, batchdata: Any) -> Any:
        case_id = str(batchdata["case_id"][0])
        self.seen.append(case_id)
        if "failure" in batchdata:
            return self._left_out(case_id, batchdata["failure"][0])
        try:
            super()._iteration(engine, batchdata)
        except (ConfigError, ModelError):
            raise
        except Exception as error:  # whatever is wrong with one case must not stop the others
            return self._left_out(case_id, reason_of(error))
        (batch,), (output,) = engine.state.batch, engine.state.output
        if self.behind:
            engine.state.batch, engine.state.output = [], []  # the thread alone holds the logits
            self._waiting.append(self._thread.submit(self._finish, batch, output))
            while len(self._waiting) > self.behind:
                self._waiting.popleft().result()
        elif self._finish(batch, output) is None:
            engine.state.batch = engine.state.output = []
        return engine.state.output

    def _left_out(self, case_id: str, reason: str) -> list[Any]:
        """An iteration without a case: metrics pair the batch with the output."""
        reason = reason.removeprefix(f"{case_id}: ")  # a DICOM series names itself
        logger.error("%s: %s", case_id, reason)
        self.failures[case_id] = reason
        self.state.batch, self.state.output = [], []
        return []

    def _finish(self, batch: dict[str, Any], output: dict[str, Any]) -> Any:
        """Post-process one case in place; ``None`` where that fails."""
        case_id = str(batch["case_id"])
        try:
            with unwrapped():
                engine_apply_transform(batch, output, self.postprocessing)
                self.done({**batch, **output})
        except Exception as error:
            logger.error("%s: %s", case_id, reason_of(error))
            self.failures[case_id] = reason_of(error)
            return None
        self._finished += 1
        now, total = time.monotonic(), self.state.epoch_length
        if self._finished == total or self._finished % (total // _LINES + 1) == 0:
            logger.info("%d/%d %s  %.1f s", self._finished, total, case_id, now - self._last)
        self._last = now
        return output


def run_cases(evaluator: CaseEvaluator, output_dir: str | Path) -> None:
    """Run an evaluator over its cases, and say which of them failed, of all processes together.

    Args:
        evaluator: with a ``CaseDataset``.
        output_dir: folder of ``failures.json``, which is there only if a case failed. Scores are of all cases that are
            in it, so it lists failures of this call alone; beside predictions it keeps those of other cases.

    Raises:
        CasesFailed: some cases failed; the others are done.
        ResourceError: the loader did not give the cases that were asked for.
        DataError: under torchrun, a process has no case to score.
    """
    show_log()
    asked = [str(data["case_id"]) for data in evaluator.data_loader.dataset.data]  # type: ignore[union-attr]
    numbers = gather({str(rank()): len(asked)})
    if evaluator.state.key_metric_name is not None and min(numbers.values()) == 0:
        raise DataError(
            f"{sum(numbers.values())} cases cannot be shared by {len(numbers)} processes; start torchrun with "
            f"--nproc_per_node={max(1, sum(numbers.values()))}, or add cases."
        )
    try:
        if asked:
            evaluator.run()
    except Exception:
        if set(evaluator.failures) != set(asked):
            raise
        logger.debug("metrics of no case", exc_info=True)  # the failures tell why
    if evaluator.seen != asked:  # a loader whose thread dies ends early, or begins again, without a word
        raise ResourceError(
            f"The loader gave {len(evaluator.seen)} cases that are not the {len(asked)} asked for; most likely the "
            "machine is out of memory. Run the same command again, with a smaller patch or fewer programs beside it."
        )
    path = Path(output_dir) / _FAILURES
    failures, done = gather(evaluator.failures), gather(dict.fromkeys(asked))
    if is_main():
        scored = evaluator.state.key_metric_name is not None
        earlier = {} if scored else {case_id: why for case_id, why in _listed(path).items() if case_id not in done}
        write_failures(output_dir, earlier | failures)
    if failures:
        first = "; ".join(f"{case_id}: {failures[case_id]}" for case_id in list(failures)[:_SHOWN])
        raise CasesFailed(f"{len(failures)} of {sum(numbers.values())} cases failed, listed in {path}: {first}")


def write_failures(output_dir: str | Path, failures: Mapping[str, str]) -> None:
    """Write ``failures.json``, case id -> reason, which is there only if a case failed."""
    path = Path(output_dir) / _FAILURES
    if failures:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, failures)
    else:
        path.unlink(missing_ok=True)


def _listed(path: Path) -> dict[str, Any]:
    """The failures in a file; none where it is missing or damaged."""
    try:
        return read_table(path, "a list of failures") if path.is_file() else {}
    except DataError:
        return {}
