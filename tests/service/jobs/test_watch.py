"""Waiting for jobs: woken by changes, honest about time-outs, quiet when nobody waits."""

from __future__ import annotations

import asyncio

from service.jobs.states import JobState
from service.jobs.watch import JobWatcher


def test_a_waiter_gets_the_job_when_it_ends(bench):
    job = bench.submit("copy")

    async def scenario():
        watcher = JobWatcher(bench.queue)
        waiting = asyncio.create_task(watcher.finished(job.id, 30))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await asyncio.to_thread(bench.queue.cancel, job.id)
        ended = await asyncio.wait_for(waiting, 5)
        await watcher.close()
        return ended

    assert asyncio.run(scenario()).state is JobState.CANCELLED


def test_a_waiter_whose_time_is_up_gets_the_job_as_it_is(bench):
    job = bench.submit("copy")

    async def scenario():
        watcher = JobWatcher(bench.queue)
        found = await watcher.finished(job.id, 0.1)
        await watcher.close()
        return found

    assert asyncio.run(scenario()).state is JobState.QUEUED


def test_followers_see_each_change_and_then_the_end(bench):
    bench.start_worker()
    job = bench.submit("slow", seconds=1.0)

    async def scenario():
        watcher = JobWatcher(bench.queue)
        seen = [item async for item in watcher.follow(job.id)]
        await watcher.close()
        return seen

    seen = asyncio.run(scenario())
    assert seen[-1].state is JobState.SUCCEEDED
    assert JobState.RUNNING in {item.state for item in seen}
    versions = [item.version for item in seen]
    assert versions == sorted(set(versions))
