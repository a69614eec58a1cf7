"""One engine in one process: loads a model once, then answers commands on stdin with one JSON object per line.

    run K       K inferences      {"wall_ms": [...], "cpu_ms": [...]}, after WARM_UP that are not timed
    labels PATH saves a label map {}
    end         leaves            {"peak_mb": ...}

The first line comes unasked: {"load_ms", "note"}, or {"error"}. CPU time is that of the whole process, all threads.
"""

import json
import os
import sys
import time

import numpy as np

import engines

# As many as `gantry-edge bench` does, so that every turn starts with the caches in the same state.
WARM_UP = 3


def memory_mb(field):
    """`VmRSS` or `VmHWM` of this process."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(field))


def main():
    key, modality, image, *files = sys.argv[1:]
    # Libraries write to stdout as they like; the protocol keeps the real one to itself.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    say = lambda **answer: print(json.dumps(answer), file=answers, flush=True)
    image = np.load(image)
    python_mb = memory_mb("VmRSS")
    try:
        engine = engines.BY_KEY[key]
        __import__(engine.package.replace("-", "_"))
        start = time.perf_counter()
        run, note = engine.load(files, image, modality)
        run()
        say(load_ms=(time.perf_counter() - start) * 1e3, note=note)
    except Exception as error:
        say(error=f"{type(error).__name__}: {error}".splitlines()[0])
        return
    for line in sys.stdin:
        command, *argument = line.split(maxsplit=1)
        if command == "run":
            for _ in range(WARM_UP):
                run()
            wall, cpu = [], []
            for _ in range(int(argument[0])):
                w, c = time.perf_counter_ns(), time.process_time_ns()
                run()
                cpu.append((time.process_time_ns() - c) / 1e6)
                wall.append((time.perf_counter_ns() - w) / 1e6)
            say(wall_ms=wall, cpu_ms=cpu)
        elif command == "labels":
            np.save(argument[0].strip(), engines.labels_of(run()))
            say()
        else:
            say(peak_mb=memory_mb("VmHWM") - python_mb)
            return


if __name__ == "__main__":
    main()
