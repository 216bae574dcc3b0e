"""Workers: limits on time and memory, crashes, replacement, and the end of the parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from hi3d.workers.pool import WorkerLimits, resident_gb, run_jobs


def outcomes(function, jobs, num_workers=1, **limits):
    return {o.job: o for o in run_jobs(function, jobs, num_workers, WorkerLimits(**limits))}


def test_a_bad_job_costs_only_itself():
    # exec is a builtin, so the spawned process has little to import.
    jobs = [
        "1 + 1",
        "import os; os._exit(3)",
        "import time; time.sleep(60)",
        "1 / 0",
        "x = b'x' * 5 * 10**8; import time; time.sleep(60)",
        "2",
    ]
    done = outcomes(exec, jobs, timeout_s=8.0, memory_gb=0.4)
    assert {job: (done[job].failure, done[job].cause) for job in jobs} == {
        jobs[0]: (None, ""),
        jobs[1]: ("its process ended with exit code 3", "crash"),
        jobs[2]: ("took longer than 8 s", "time limit"),
        jobs[3]: ("ZeroDivisionError: division by zero", "ZeroDivisionError"),
        jobs[4]: ("needed more memory than 0.4 GB", "memory limit"),
        jobs[5]: (None, ""),
    }
    assert done[jobs[2]].seconds >= 8


def test_workers_are_replaced():
    jobs = [f"__import__('os').getpid() + 0 * {i}" for i in range(4)]
    pids = [o.result for o in run_jobs(eval, jobs, 1, WorkerLimits(jobs_per_worker=2))]
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_workers_have_numbers_and_threads():
    job = "tuple(__import__('os').environ[n] for n in ('HI3D_WORKER_INDEX', 'LP_NUM_THREADS'))"
    jobs = [f"({job}, __import__('time').sleep(1), {i})[0]" for i in range(2)]
    results = {o.result for o in outcomes(eval, jobs, num_workers=2, num_threads=3).values()}
    assert results == {("0", "3"), ("1", "3")}


def test_resident_memory_counts_children():
    before = resident_gb(os.getpid())
    code = "x = bytearray(3 * 10**8); print(flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    child.stdout.readline()
    assert resident_gb(os.getpid()) > before + 0.29
    child.communicate(b"\n")


def test_workers_end_with_a_killed_parent(tmp_path):
    note = tmp_path / "pid"
    job = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    script = tmp_path / "parent.py"
    script.write_text(
        "from hi3d.workers.pool import WorkerLimits, run_jobs\n"
        f"if __name__ == '__main__':\n    list(run_jobs(exec, [{job!r}], 1, WorkerLimits()))\n"
    )
    root = Path(__file__).parents[2]
    parent = subprocess.Popen([sys.executable, script], env=os.environ | {"PYTHONPATH": str(root)})
    while not (note.exists() and note.read_text()):
        time.sleep(0.05)
    worker = int(note.read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for _ in range(200):
        try:
            state = Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.05)
    raise AssertionError("the worker outlives its parent")
