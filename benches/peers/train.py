#!/usr/bin/env python3
"""Compare the time of a training step with PyTorch's, eager and compiled: same network, losses, optimiser and batch.

Every engine is a process of its own with the same number of threads; in each round every engine in turn takes a few steps, so
that all of them meet the same machine. A step is: two batches forward, losses, backward, Adam.

Needs `cargo build --release -p host-train` and PyTorch 2.11.0: the Python that runs this, if it has that, else .venv/peers-torch
(about 5 GB, from PyPI, made by the first call). torch.compile needs a C++ compiler.

Examples:
  python3 benches/peers/train.py                                         # compact, batch 8, 128 x 128, on the CPU
  python3 benches/peers/train.py --net "--net dilated2d --width 4 --size 128"
  python3 benches/peers/train.py --device cuda --amp tf32 --net "--net dilated2d --size 256"
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True  # keeps the folder clean

from common import ROOT

HERE = Path(__file__).resolve().parent
VENV, WANTED = ROOT / ".venv/peers-torch", HERE / "requirements-torch.txt"
WARM_UP = 2
ENGINES = ("gantry", "eager", "compile")


def environment():
    """Goes on inside .venv/peers-torch unless this Python has the right PyTorch."""
    try:
        import torch

        if torch.__version__.split("+")[0] == "2.11.0":
            return
    except ImportError:
        pass
    python, stamp = VENV / "bin/python", VENV / "stamp"
    if not (stamp.is_file() and stamp.read_text() == WANTED.read_text()):
        print("installing benches/peers/requirements-torch.txt into .venv/peers-torch", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
        subprocess.run([*pip, "--requirement", WANTED], check=True)
        stamp.write_text(WANTED.read_text())
    os.execv(python, [python, *sys.argv])


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", action="append", metavar="OPTIONS", help="options of gantry-train train that choose the network, "
                        "size and batch; repeatable (default: those of `train` itself)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="default: cpu")
    parser.add_argument("--amp", default="off", choices=("off", "tf32", "bf16"), help="number format on CUDA (default: off)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads of each engine (default: all)")
    parser.add_argument("--rounds", type=int, default=8, help="rounds (default: 8)")
    parser.add_argument("--steps", type=int, default=3, help="steps per engine and round (default: 3)")
    parser.add_argument("--engines", default=",".join(ENGINES), metavar="A,B", help=f"some of: {', '.join(ENGINES)} (default: all)")
    parser.add_argument("--gantry", default=ROOT / "target/release/gantry-train", metavar="COMMAND", help="the program, and words "
                        "before its own (default: target/release/gantry-train)")
    parser.add_argument("--out", type=Path, metavar="JSON", help="also write the numbers to this file")
    parser.add_argument("--worker", choices=ENGINES[1:], help=argparse.SUPPRESS)
    return parser.parse_args()


class Process:
    """An engine that answers `run N` with the wall times of N steps."""

    def __init__(self, command, threads, hello=None):
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        if hello:
            self.say(json.dumps(hello))
        self.hello, self.wall_ms = self.answer(), []

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{Path(self.process.args[0]).name} ended with status {self.process.wait()}")
        return json.loads(line)

    def run(self, steps):
        self.say(f"run {steps}")
        self.wall_ms += self.answer()["wall_ms"]

    def end(self):
        self.say("end")
        self.process.wait()


def worker(given):
    """A PyTorch process: reads the network, then commands."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    import torch

    from torch_net import Training

    torch.set_num_threads(given.threads)
    training = Training(json.loads(sys.stdin.readline()), given.device, given.amp, given.worker == "compile")
    training.step()
    print(json.dumps({"torch": torch.__version__, "weights": training.weights()}), file=answers)
    for line in sys.stdin:
        if line.strip() == "end":
            break
        for _ in range(WARM_UP):
            training.step()
        wall_ms = []
        for _ in range(int(line.split()[1])):
            start = time.perf_counter_ns()
            training.step()
            wall_ms.append((time.perf_counter_ns() - start) / 1e6)
        print(json.dumps({"wall_ms": wall_ms}), file=answers)


def compare(given, options):
    """Medians of one network's step, ms, by engine."""
    ours = [*shlex.split(str(given.gantry)), "bench", "--serve", "--warm-up", str(WARM_UP), "--", "--device", given.device, "--amp", given.amp,
            "--threads", str(given.threads), *options.split()]
    engines = {"gantry": Process(ours, given.threads)}
    hello = engines["gantry"].hello
    shared = hello["weights"]
    for name in given.engines.split(","):
        if name != "gantry":
            theirs = [sys.executable, "-B", HERE / "train.py", "--worker", name, "--device", given.device, "--amp", given.amp,
                      "--threads", str(given.threads)]
            engines[name] = Process(theirs, given.threads, hello)
            if engines[name].hello["weights"] != shared:
                sys.exit(f"{name} has {engines[name].hello['weights']} weights, ours {shared}: not the same network")
    for _ in range(given.rounds):
        for engine in engines.values():
            engine.run(given.steps)
    for engine in engines.values():
        engine.end()
    medians = {name: statistics.median(engine.wall_ms) for name, engine in engines.items()}
    samples = 2 * hello["batch"]
    net = hello["net"]
    print(f"\n{net['name']} {net['input']['channels']} x {net['input']['size']}, {samples} samples a step, {given.device}, "
          f"amp {given.amp}, {given.threads} threads, {given.rounds} rounds of {given.steps}")
    for name, ms in medians.items():
        print(f"{name:10}{ms:10.1f} ms{samples / ms * 1e3:10.1f} samples/s   gantry / {name} {medians['gantry'] / ms:.3f}")
    return {"net": net["name"], "input": net["input"], "options": options, "samples": samples, "median_ms": medians,
            "wall_ms": {name: engine.wall_ms for name, engine in engines.items()}}


def main():
    given = arguments()
    environment()
    if given.worker:
        return worker(given)
    if not Path(shlex.split(str(given.gantry))[0]).is_file():
        sys.exit(f"--gantry {given.gantry}: not found; cargo build --release -p host-train")
    results = [compare(given, options) for options in given.net or [""]]
    if given.out:
        kept = {key: getattr(given, key) for key in ("device", "amp", "threads", "rounds", "steps")}
        given.out.write_text(json.dumps({**kept, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
