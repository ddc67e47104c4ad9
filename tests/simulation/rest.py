"""How a run ends: everything works again, and then all that is true must be found by a new machine.

Called by `simulation.steps` and by the state machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from memoturn_storage.connection import open_memory
from memoturn_storage.manifest import MAIN, segments_prefix, snapshots_prefix
from simulation import operations
from simulation.model import Truth, checksum, require, rows
from simulation.processes import Disk, Process
from simulation.world import TTL_S, Odds, Session, World


def come_to_rest(world: World) -> None:
    """Everything works again: what was acknowledged and not shipped must be shipped now."""
    world.odds = Odds()
    world.trace.append("    everything works again")
    for effect in world.late:
        effect()
    world.late.clear()
    for process in world.processes:
        process.heal()
    for _ in range(3):
        world.pass_time(6.0)
        for process in list(world.processes):
            world.run(process, "ticks", partial(operations.tick, world, process))
    for process in list(world.processes):
        for branch in process.branches():
            require(branch.tail.clean, f"{process.name} never ships the rest of {branch.ref.branch}")
        world.run(process, "stops", partial(operations.stop, world, process))
    world.pass_time(2 * TTL_S)


def check(world: World, txids: Callable[[Truth], Iterable[int]]) -> None:
    """A new machine must find all that is true (these states byte by byte), go on from it, and leave no rubbish."""
    for process in world.processes:
        process.die()
        process.bury()
    newcomer = world.start(Disk(world.new_directory()))
    world.processes = [newcomer]
    world.calm = True
    for truth in world.model.live():
        ref, head = truth.manifest.ref, truth.head.txid
        by = Session("late")
        world.run(newcomer, f"reads {ref.branch}", partial(operations.read, world, newcomer, ref, durable=False, by=by))
        check_history(newcomer, truth, txids(truth))
        job = [operations.put(1, "at last")]
        last = partial(operations.write, world, newcomer, ref, job, durable=True, by=by)
        world.run(newcomer, f"writes {ref.branch} durably", last)
        require(by.seen[ref].txid == head + 1, f"{ref.branch} cannot be written any more")
    for _ in range(4):
        world.pass_time(1.5 * world.limits.grace_s)
        for uuid in world.uuids:
            world.run(newcomer, "collects", partial(operations.collect, world, newcomer, uuid))
    needed: set[str] = set().union(*(truth.manifest.keys() for truth in world.model.live()))
    # Without main's manifest nothing is collected: what is left may be all that there is.
    for uuid in {truth.manifest.db_uuid for truth in world.model.live() if truth.manifest.branch == MAIN}:
        for prefix in (segments_prefix(uuid), snapshots_prefix(uuid)):
            found = {info.key for info in world.landing.store.list(prefix)}
            require(found <= needed, f"the collector leaves {sorted(found - needed)}")


def check_history(process: Process, truth: Truth, txids: Iterable[int]) -> None:
    """These states must be restored as the files were, and be whole."""
    manifest = truth.manifest
    for txid in txids:
        state, what = truth.states[txid], f"transaction {txid} of {manifest.branch}"
        image = bytes(process.engine.restorer.image(manifest, txid))
        require(state.checksum == checksum(image), f"{what} is restored as another file")
        connection = open_memory(image)
        try:
            found = connection.execute("PRAGMA integrity_check").get
            require(found == "ok", f"{what}: {found}")
            connection.execute("INSERT INTO words (words, rank) VALUES ('integrity-check', 1)")
            require(rows(connection) == state.content, f"{what} is restored with other rows")
        finally:
            connection.close()
