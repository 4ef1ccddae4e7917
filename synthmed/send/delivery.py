"""The delivery: what is not yet sent goes, each success is noted, and what the server holds is counted at the end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from synthmed.send.instances import Instance, read_bytes
from synthmed.send.journal import Journal
from synthmed.send.peers import Dropped, Patience, Peer, Refused, Say, persist

_MOST_FILES = 100


def deliver(
    release: Path,
    instances: Sequence[Instance],
    peer: Peer,
    journal: Journal,
    patience: Patience,
    say: Say,
    step: Callable[[int], object],
) -> Counter[str]:
    """Send what the journal does not list, in order, and note each batch when the server has confirmed it.

    Parameters
    ----------
    step : callable
        Called with the number of files after each batch.

    Returns
    -------
    Counter of str
        What the server remarked, and how often.

    Raises
    ------
    Dropped, Refused
        Where the server failed for good; what was sent until then is in the journal.
    """
    remarks: Counter[str] = Counter()
    todo = [instance for instance in instances if instance not in journal]
    while todo:
        batch = _first_batch(todo, peer.batch_bytes)
        contents = [read_bytes(release, instance) for instance in batch]
        remarks.update(persist(lambda b=batch, c=contents: _store(peer, b, c), patience, say))  # type: ignore[misc]
        journal.add(batch)
        step(len(batch))
        todo = todo[len(batch) :]
    return remarks


def _first_batch(todo: Sequence[Instance], most_bytes: int) -> list[Instance]:
    batch = [todo[0]]
    total = todo[0].size
    for instance in todo[1:_MOST_FILES]:
        total += instance.size
        if total > most_bytes:
            break
        batch.append(instance)
    return batch


def _store(peer: Peer, batch: Sequence[Instance], contents: Sequence[bytes]) -> list[str]:
    """Store a batch; a refusal of files that the server holds already, as after a lost answer, is none."""
    try:
        return peer.store(batch, contents)
    except Refused as error:
        if error.duplicate and _holds_all(peer, batch):
            return ["held already"] * len(batch)
        raise


def _holds_all(peer: Peer, batch: Sequence[Instance]) -> bool:
    try:
        held = set().union(*(peer.stored(*place) for place in {(i.study, i.series) for i in batch}))
    except (Dropped, Refused):
        return False
    return {i.uid for i in batch} <= held


@dataclass(frozen=True)
class Inventory:
    """What a server holds of a release.

    Attributes
    ----------
    missing : tuple of Instance
        Files that it does not hold.
    stored : int
        Files in these series on the server, whoever sent them.
    series : int
    """

    missing: tuple[Instance, ...]
    stored: int
    series: int


def take_inventory(instances: Sequence[Instance], peer: Peer, patience: Patience, say: Say) -> Inventory:
    """Ask the server for the UIDs of every series; ask again, as often as `patience` allows, while some are missing.

    Raises
    ------
    Dropped, Refused
        Where the server does not answer.
    """
    series: dict[tuple[str, str], list[Instance]] = {}
    for instance in instances:
        series.setdefault((instance.study, instance.series), []).append(instance)
    held: dict[tuple[str, str], set[str]] = {}
    for attempt in range(patience.retries + 1):
        for place in [p for p in series if not {i.uid for i in series[p]} <= held.get(p, set())]:
            held[place] = persist(lambda p=place: peer.stored(*p), patience, say)  # type: ignore[misc]
        missing = tuple(i for place, members in series.items() for i in members if i.uid not in held[place])
        if not missing or attempt == patience.retries:
            break
        # A server may list a file some time after it has confirmed it.
        time.sleep(patience.wait(attempt))
    return Inventory(missing, sum(map(len, held.values())), len(series))
