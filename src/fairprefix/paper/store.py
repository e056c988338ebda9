"""Results on disk, and the tasks that are still to do: carried out by several processes, resumable at any time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path

from fairprefix.core.errors import FairprefixError
from fairprefix.paper.section import Result, Task

Done = Callable[[Task, int, int], None]
"""Hears of a task that is done: the task, how many are, and how many there are in all."""


class StoreError(FairprefixError):
    """The folder of results cannot be used."""


class Store:
    """Results by key, one JSON file each.

    Args:
        folder: where they are; made if it is not there.

    Raises:
        StoreError: the folder cannot be made or written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise StoreError(f"{folder}: cannot hold results: {problem.strerror or problem}") from problem

    def get(self, key: str) -> Result | None:
        """Return a result; None if it is not there, or not whole."""
        try:
            found: Result = json.loads(self._path(key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found

    def put(self, key: str, result: Result) -> None:
        """Keep a result: whole or not at all, also when the process is stopped meanwhile."""
        path = self._path(key)
        part = path.with_name(f".{key}.{os.getpid()}")
        try:
            part.write_text(json.dumps(result), encoding="utf-8")
            part.replace(path)
        except OSError as problem:
            raise StoreError(f"{path}: cannot be written: {problem.strerror or problem}") from problem

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"


def carry_out(
    tasks: Iterable[Task], store: Store, jobs: int, done: Done = lambda *_: None
) -> Mapping[str, Result]:
    """Return the results of all tasks by key; those that the store has are not done again.

    Args:
        tasks: what is wanted; the same one may come several times.
        store: results known already, and where new ones are kept, each as soon as it is there.
        jobs: how many processes work at once; 1 works in this one.
        done: hears of progress.
    """
    wanted = {task.key: task for task in tasks}
    results = {key: found for key in wanted if (found := store.get(key)) is not None}
    missing = [task for key, task in wanted.items() if key not in results]

    def keep(task: Task, result: Result) -> None:
        store.put(task.key, result)
        results[task.key] = result
        done(task, len(results), len(wanted))

    if jobs == 1 or len(missing) < 2:  # noqa: PLR2004  # one task needs no company
        for task in missing:
            keep(task, task.carry_out())
    else:
        _in_processes(missing, jobs, keep)
    return results


def _in_processes(missing: list[Task], jobs: int, keep: Callable[[Task, Result], None]) -> None:
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        running: dict[Future[Result], Task] = {pool.submit(_work, task): task for task in missing}
        try:
            while running:
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    keep(running.pop(future), future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _work(task: Task) -> Result:
    return task.carry_out()
