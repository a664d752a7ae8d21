"""The one place where errors of the system, of memory and of worker processes become errors of medseg's family.

What they have in common: they are raised anywhere, by any library, wrapped or not, and none of them is a fault of the
program. Each becomes one sentence with the path, as far as it is known, and a remedy.
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
from pathlib import Path

from medseg.errors import ConfigError, DataError, MedsegError, ResourceError

__all__ = ["as_ours", "lacks_gpu_memory", "memory_lacking", "reason_of", "unwrapped"]

_ELSEWHERE = "Free disk space, or name another --output folder"
# errno -> class, what is wrong, what to do
_SYSTEM: dict[int, tuple[type[MedsegError], str, str]] = {
    errno.ENOSPC: (ResourceError, "the disk is full", _ELSEWHERE),
    errno.EDQUOT: (ResourceError, "the disk quota is used up", _ELSEWHERE),
    errno.EFBIG: (ResourceError, "the file would be larger than the system allows", "Raise the limit (ulimit -f)"),
    errno.EROFS: (ResourceError, "the disk is read-only", "Name a folder that can be written"),
    errno.EACCES: (ResourceError, "no permission", "Change the permissions, or name another file or folder"),
    errno.EPERM: (ResourceError, "not permitted", "Change the permissions, or name another file or folder"),
    errno.EMFILE: (ResourceError, "too many open files", "Raise the limit (ulimit -n), or use --set num_workers=0"),
    errno.ENFILE: (ResourceError, "too many open files", "Close other programs, or use --set num_workers=0"),
    errno.ENOENT: (DataError, "not found", "It was moved or deleted, or the path is wrong; fix the path and try again"),
    errno.ENAMETOOLONG: (ConfigError, "the name is too long", "Use a name of fewer than 200 characters"),
    errno.ENOTDIR: (ConfigError, "a part of the path is a file", "Name a folder"),
    errno.EISDIR: (ConfigError, "it is a folder; a file is expected", "Name a file"),
    errno.EEXIST: (ConfigError, "it exists and is a file", "Name a folder of its own, for example by --output"),
    errno.ENOTEMPTY: (ConfigError, "the folder is not empty", "Name another folder, or empty it"),
    errno.ELOOP: (ConfigError, "a link leads to itself", "Fix the link"),
}
_MEMORY = re.compile(r"out of memory|allocate memory|not enough memory|std::bad_alloc|Unable to allocate", re.I)
# What the libraries say where a GPU has no room; cuDNN and cuFFT name no cause, and may also not know the GPU.
_GPU_LIBRARY = re.compile(
    r"(?:CUBLAS|CUDNN)_STATUS_ALLOC_FAILED|CUFFT_(?:ALLOC_FAILED|INTERNAL_ERROR)|"
    r"unable to find an engine to execute this computation"
)
_GPU_MEMORY = re.compile(rf"\b(?:CUDA|HIP)\b.*out of memory|{_GPU_LIBRARY.pattern}")
_AMOUNT = re.compile(r"[Tt]r(?:ied|ying) to allocate ([\d.]+ ?[KMGT]i?B|\d+ bytes)|allocate ([\d.]+ ?[KMGT]i?B)")
_FREE = re.compile(r"of which ([\d.]+ ?[KMGT]i?B) is free")
_SHARED = re.compile(r"shared memory|\bshm\b|torch_shm_manager|mmap", re.I)
_WORKER = re.compile(r"DataLoader worker \(pid\(?s?\)? [\d, ]+\) (?:is killed by signal: ([^.]+)|exited unexpectedly)")
_DEVICE = re.compile(r"^(CUDA|HIP|MPS|NCCL|cuBLAS|cuDNN|cuFFT)\b.*error", re.I)
_REFUSALS = (TypeError, ValueError, ImportError, AttributeError, KeyError, IndexError, AssertionError)
_BUILT = re.compile(r"Failed to instantiate component '([^']+)'")
# torch passes an error of a worker process on as a string: "Caught X in DataLoader worker process 0.\nOriginal …"
_FROM_WORKER = re.compile(r"Caught \w+ in .*process.*?\n(?:.*\n)*medseg\.errors\.\w+: ", re.M)


def as_ours(error: BaseException, path: str | Path | None = None) -> MedsegError | None:
    """The error of the family that this one is, or stands for, or was caused by; ``None`` for an error of the program.

    Args:
        error: as caught; libraries such as MONAI wrap the cause in errors of their own.
        path: file or folder that is worked on, for errors that name none.
    """
    chain = list(_chain(error))
    for cause in chain:
        if isinstance(cause, MedsegError):
            text = str(cause)
            match = _FROM_WORKER.match(text)
            return type(cause)(text[match.end() :].strip()) if match else cause
    found = next((ours for cause in chain if (ours := _translated(cause, path)) is not None), None)
    return found if found is not None else _not_built(chain)


def reason_of(error: BaseException) -> str:
    """Why a case failed: the sentence of the family's error behind this one, or the first line of its cause."""
    cause = error
    while not isinstance(cause, MedsegError) and cause.__cause__ is not None:
        cause = cause.__cause__
    text = str(cause).strip()
    if isinstance(cause, MedsegError):
        return text
    reason = (text.splitlines() or [type(cause).__name__])[0]
    if isinstance(cause, MemoryError) or lacks_gpu_memory(cause):
        return f"out of memory ({reason}). Use a smaller roi_size or --device cpu."
    return reason


@contextlib.contextmanager
def unwrapped(path: str | Path | None = None) -> Iterator[None]:
    """Raise an error of this family as itself where a library such as MONAI wraps it ("Failed to evaluate ..."), and
    one of the system, of memory or of a worker process as the one of this family that it stands for.

    ``path``: file or folder that is worked on, for errors that name none.
    """
    try:
        yield
    except BrokenPipeError:  # of standard output: whoever read it has left
        raise
    except Exception as error:
        ours = as_ours(error, path)
        if ours is None or ours is error:
            raise
        raise ours from error


def _not_built(chain: list[BaseException]) -> ConfigError | None:
    """Of a component that refuses its arguments, which are a config's."""
    for error, cause in zip(chain, chain[1:], strict=False):
        match = _BUILT.match(str(error))
        if match is not None and isinstance(cause, _REFUSALS):
            reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0].rstrip(".")
            return ConfigError(f"'{match[1]}' cannot be built: {reason}. Fix its arguments in the config or in --set.")
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from, outermost first."""
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def _translated(error: BaseException, path: str | Path | None) -> MedsegError | None:
    text = str(error)
    if lacks_gpu_memory(error):
        return _memory("The GPU", text)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _MEMORY.search(text)):
        return _memory("The machine", text)
    if isinstance(error, OSError) and error.errno is not None:
        return _system(error, path)
    if isinstance(error, (UnicodeEncodeError, UnicodeDecodeError)):
        where = f"{path}: " if path is not None else ""
        return DataError(f"{where}a name or text is not valid {error.encoding} ({error.reason}); rename or convert it.")
    if not isinstance(error, RuntimeError):
        return None
    killed = _WORKER.search(f"{error.__cause__} {text}")  # the cause knows the signal
    if killed is not None:
        how = f"was killed ({killed[1]})" if killed[1] else "died"
        return ResourceError(
            f"A loader process {how}: most likely the system ran out of memory. Use fewer of them "
            "(--set num_workers=0), or a smaller cache (--set cache=plain)."
        )
    code = next((number for number in _SYSTEM if f"Errno {number}]" in text or f"({number})" in text), None)
    if "No space left on device" in text or (code == errno.ENOSPC):
        shared = " in shared memory (/dev/shm)" if _SHARED.search(text) else ""
        return _sentence(errno.ENOSPC, path, shared)
    if "Too many open files" in text or "ancdata" in text:
        return _sentence(errno.EMFILE, path)
    if _DEVICE.match(text):
        return ResourceError(f"The device failed ({text.splitlines()[0]}); try again, or use --device cpu.")
    return None


def _system(error: OSError, path: str | Path | None) -> MedsegError | None:
    assert error.errno is not None
    named = error.filename2 if error.filename2 is not None else error.filename
    place = named if isinstance(named, (str, bytes, Path)) else path
    if error.errno == errno.ENOMEM:
        return _memory("The machine", str(error))
    if error.errno in _SYSTEM:
        return _sentence(error.errno, place)
    where = f"{_shown(place)}: " if place is not None else ""
    return ResourceError(f"{where}the system reports '{error.strerror}'; check the disk or the connection, try again.")


def _sentence(number: int, path: str | bytes | Path | None, more: str = "") -> MedsegError:
    kind, what, remedy = _SYSTEM[number]
    where = f"{_shown(path)}: {what}" if path is not None else what[0].upper() + what[1:]
    return kind(f"{where}{more}. {remedy}.")


def _shown(path: str | bytes | Path) -> str:
    text = path.decode(errors="backslashreplace") if isinstance(path, bytes) else str(path)
    return text if len(text) < 300 else f"{text[:120]}…{text[-60:]}"


def lacks_gpu_memory(error: BaseException) -> bool:
    """Whether an error of torch, or of a library that it calls, says that a GPU has no room."""
    if type(error).__name__ == "OutOfMemoryError":  # torch's, not imported here
        return True
    return isinstance(error, RuntimeError) and _GPU_MEMORY.search(str(error)) is not None


def memory_lacking(text: str) -> str:
    """What was needed and what is free, in brackets, by the message of an allocator, or what a library of the GPU said
    instead; empty where neither is told.
    """
    amount, free, said = _AMOUNT.search(text), _FREE.search(text), _GPU_LIBRARY.search(text)
    if amount is None:
        return f" ({said[0]})" if said else ""
    return f" ({amount[1] or amount[2]} more were needed{f', {free[1]} are free' if free else ''})"


def _memory(where: str, text: str) -> ResourceError:
    cpu = ", or --device cpu" if where == "The GPU" else ""
    return ResourceError(
        f"{where} is out of memory{memory_lacking(text)}. Use a smaller patch (--set roi_size=[64,64,64]), "
        f"a smaller batch (--set batch_size=1), no cache (--set cache=plain){cpu}."
    )
