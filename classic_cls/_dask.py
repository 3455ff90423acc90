"""A task for each block of a dask collection, and the results or a report of what went wrong, never an endless wait."""

import asyncio
import os
from collections import Counter
from functools import reduce
from itertools import accumulate
from time import monotonic

import numpy as np

_PATIENCE = "20s"  # without any worker
_SUSPECTS = 4  # to name
_NO_WORKERS = "distributed.scheduler.no-workers-timeout"


def import_dask():
    """Return dask and distributed, or say how they are installed."""
    try:
        import dask
        import dask.array
        import dask.bag
        import distributed
    except ImportError as error:
        raise ImportError(
            f'Blocks on several machines need dask: pip install "classic_cls[distributed]" ({error}).'
        ) from error
    return dask, distributed


def one_block_wide(X):
    """Return a dask array that is cut along its first axis only, or a bag as it is."""
    dask, _ = import_dask()
    if isinstance(X, dask.bag.Bag):
        return X
    if not isinstance(X, dask.array.Array) or X.ndim == 0:
        raise TypeError(
            f"X is {type(X).__name__}; expected a dask array or bag, as dask.array.from_array(images, chunks=(999, -1, "
            "-1)) and dask.bag.from_sequence(paths, partition_size=999) make them."
        )
    if np.isnan(X.shape[1:]).any():
        raise ValueError(f"X has shape {X.shape}; expected that no more than the number of images is unknown.")
    return X.rechunk(dict.fromkeys(range(1, X.ndim), -1))


def is_array(X):
    return hasattr(X, "chunks")


def blocks_of(X):
    return np.ravel(X.to_delayed()).tolist()


def known_sizes(X):
    """Return how many images each block has, or None where that is unknown."""
    return None if not is_array(X) or np.isnan(X.shape[0]) else X.chunks[0]


def sizes_of(X):
    return known_sizes(X) or gather(each_block(len, blocks_of(X)))


def cut(rows, sizes):
    return np.split(rows, np.cumsum(sizes)[:-1])


def in_blocks(chosen, sizes):
    """Return ascending numbers of images by block, counted from the block's first."""
    stops = np.cumsum(sizes)
    parts = np.split(chosen, np.searchsorted(chosen, stops[:-1]))
    return [part - (stop - size) for part, stop, size in zip(parts, stops, sizes, strict=True)]


def each_block(function, blocks, *arguments):
    """Return ``function(block, ...)`` for each of the blocks, delayed, with an argument of its own from each sequence.

    The second part of a task's key is the number of its block: an error tells which it was.
    """
    dask, _ = import_dask()
    name = f"{function.__name__.strip('_')}-{dask.base.tokenize([block.key for block in blocks], arguments)}"
    task = dask.delayed(function, pure=True, traverse=False)
    return [
        task(block, *own, dask_key_name=(name, i))
        for i, (block, *own) in enumerate(zip(blocks, *arguments, strict=True))
    ]


def add_up(parts):
    """Return the sum of delayed tuples of arrays, added up on the workers, a few at a time and always in one order."""
    dask, _ = import_dask()
    while len(parts) > 1:
        parts = [dask.delayed(_sums, pure=True)(*parts[i : i + 4]) for i in range(0, len(parts), 4)]
    return parts[0]


def _sums(*parts):
    return tuple(reduce(np.add, arrays) for arrays in zip(*parts, strict=True))


def gather(values, sizes=None):
    """Return what is delayed, computed by the scheduler in use.

    dask gives a task to another worker when its worker dies, a few times, and has no end where no worker is left: a
    nanny gives up when its worker dies while it starts. Either way the block is named here that is to blame. `sizes`
    are the numbers of images in the blocks, where these are known.
    """
    dask, distributed = import_dask()
    ready = dask.persist(*values)
    futures = {future.key: future for future in distributed.futures_of(ready)}
    if not futures:
        return list(dask.compute(*ready))
    client = next(iter(futures.values())).client
    try:
        return _gather_or_blame(client, {value.key: futures[value.key] for value in ready})
    except _NoWorkersError as error:
        raise RuntimeError(_abandoned(error, _blamed(client, values), values, sizes)) from None
    except distributed.KilledWorker as error:
        raise RuntimeError(_killed(error, values, sizes)) from error
    finally:
        for future in futures.values():  # a traceback may keep them, and the workers at work
            future.release()


class _NoWorkersError(Exception):
    """For so long there has been no worker that none will come."""


def _gather_or_blame(client, futures):
    """Return the results, or raise KilledWorker of a task that kills its worker even when it is tried alone.

    dask blames all tasks that a worker has been given for its death.
    """
    from distributed import KilledWorker

    while True:
        try:
            return client.sync(_gather_watched, client, list(futures.values()))
        except KilledWorker as error:
            suspects = [key for key, future in futures.items() if _is_killed(future)]
            if suspects in ([], [error.task]):
                raise
        client.retry([futures[suspects[0]]])  # if a worker dies now, dask does not try it again
        client.sync(_gather_watched, client, [futures[suspects[0]]])


def _is_killed(future):
    from distributed import KilledWorker

    return future.status == "error" and isinstance(future.exception(), KilledWorker)


async def _gather_watched(client, futures):
    """Gather, unless there is no worker for too long."""
    import dask

    patience = dask.config.get(_NO_WORKERS, None) or _PATIENCE
    gathering = asyncio.ensure_future(client.gather(futures, asynchronous=True))
    last_seen = monotonic()
    while not (await asyncio.wait([gathering], timeout=1))[0]:
        if await client.nthreads():
            last_seen = monotonic()
        elif monotonic() - last_seen > dask.utils.parse_timedelta(patience):
            await client.cancel(futures)
            await asyncio.gather(gathering, return_exceptions=True)  # which comes to an end by that
            raise _NoWorkersError(patience)
    return gathering.result()


def _blamed(client, values):
    """Return those tasks that most dead workers had been given, by their blocks' numbers."""
    tasks, counts = _tasks(values), Counter()
    for _, event in client.get_events("all"):
        if event.get("action") == "remove-worker" and not event.get("expected"):
            counts.update(tasks.keys() & set(event["processing-tasks"]))
    most = max(counts.values(), default=0)
    return sorted((task for task, count in counts.items() if count == most), key=_number)


def _number(task):
    return task[1] if isinstance(task, tuple) else np.inf


def _tasks(values):
    graphs = {id(value.dask): value.dask for value in values}  # blocks of one collection share theirs
    return {key: node for graph in graphs.values() for key, node in graph.items()}


def _abandoned(patience, blamed, values, sizes):
    cause = "Look into the workers' logs"
    if blamed:
        named = [_named(task, values, sizes) for task in blamed[:_SUSPECTS]]
        others = f", or one of {len(blamed) - _SUSPECTS} others" if len(blamed) > _SUSPECTS else ""
        cause = f"{' or '.join(named)}{others} killed those there were; smaller chunks need less memory"
    return (
        f"The cluster has had no worker for {patience}; expected one or more. {cause}. For a cluster that starts more "
        f"slowly: dask.config.set({{{_NO_WORKERS!r}: '5 minutes'}})."
    )


def _killed(error, values, sizes):
    return (
        f"{_named(error.task, values, sizes)} killed each worker that tried it, {error.allowed_failures + 1} or more. "
        "The workers' logs may say why; smaller chunks need less memory."
    )


def _named(task, values, sizes):
    """Name a block by its number and its images, as far as they are known."""
    if not isinstance(task, tuple):
        return f"Task {task!r}"
    layer, number, *_ = task
    tasks = _tasks(values)
    paths = _paths(tasks, number)
    if paths:
        return f"Block {number} (paths {paths[0]!r} to {paths[-1]!r}, task {task!r})"
    numbers = {key[1] for key in tasks if isinstance(key, tuple) and key[0] == layer}
    if sizes is None or len(numbers) != len(sizes):  # a block of another collection, upstream
        return f"Block {number} (task {task!r})"
    stop = list(accumulate(sizes))[number]
    return f"Block {number} (images {stop - sizes[number]} to {stop - 1}, task {task!r})"


def _paths(tasks, number):
    """Return the paths in that block of ``dask.bag.from_sequence``, if this is where they come from."""
    for key, node in tasks.items():
        paths = getattr(node, "value", None)
        if isinstance(key, tuple) and key[1] == number and isinstance(paths, list):
            return [path for path in paths if isinstance(path, (str, os.PathLike))]
    return []
