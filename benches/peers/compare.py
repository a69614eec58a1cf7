#!/usr/bin/env python3
"""Compare gantry-edge with other int8 engines on the same model, the same core and in the same minutes.

Every engine gets a process of its own, pinned to one core, with one thread and the model loaded once. Then come rounds:
in each, every engine in turn runs a few inferences, so that all of them meet the same machine. What is timed is one
inference, codes in and label map out. The peers' files are made from Gantry's model.onnx (same int8 weights, scales and
biases; one modality) and model.f32.onnx, and lie in target/peers/.

The first call makes a Python environment in .venv/peers/ (about 500 MB, from PyPI; versions in requirements.txt).

Examples:
  The shipped model, 30 rounds, kept under benches/runs/<date>-<machine>/:
    python3 benches/peers/compare.py
  Two models, only three engines, on core 3:
    python3 benches/peers/compare.py --model target/a --model target/b --engines gantry,openvino,litert --core 3
  As on a CPU without AVX-512 and VNNI:
    python3 benches/peers/compare.py --isa avx2
  Does every engine run, and do its labels agree with ONNX Runtime's?
    python3 benches/peers/compare.py --check

A model is a folder with model.onnx and, for the f32 rows, model.f32.onnx, as gantry-export writes them. Build first:
    cargo build --release -p edge-runtime
"""

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
from pathlib import Path

sys.dont_write_bytecode = True  # keeps the folder clean

from common import OURS, ROOT, Failed, Unsupported

HERE = Path(__file__).resolve().parent
VENV = ROOT / ".venv" / "peers"


def environment():
    """Goes on inside .venv/peers, which it makes if requirements.txt has changed."""
    python, stamp, wanted = VENV / "bin/python", VENV / "stamp", HERE / "requirements.txt"
    if not (stamp.is_file() and stamp.read_text() == wanted.read_text()):
        print("installing benches/peers/requirements.txt into .venv/peers", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
        subprocess.run([*pip, "--requirement", wanted], check=True)
        stamp.write_text(wanted.read_text())
    if Path(sys.prefix) != VENV:
        os.execv(python, [python, *sys.argv])


def arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", type=Path, metavar="DIR", help="a model's folder; repeatable "
                        "(default: models/abdomen-compact)")
    parser.add_argument("--modality", default="ct", choices=("ct", "mr"), help="branch that is timed (default: ct)")
    parser.add_argument("--rounds", type=int, default=30, help="rounds (default: 30)")
    parser.add_argument("--batch", type=int, default=5, metavar="N", help="inferences per engine and round (default: 5)")
    parser.add_argument("--engines", metavar="A,B", help="some of: gantry, openvino, openvino-logits, litert, ort-u8, "
                        "ort-s8, ncnn, openvino-f32, ort-f32 (default: all)")
    parser.add_argument("--core", type=int, help="core for every engine (default: the last one)")
    parser.add_argument("--isa", choices=("avx2",), help="hide newer instructions from every engine: CPUID is answered "
                        "without AVX-512, AVX-VNNI and AMX (cpumask.c; Linux, Intel, a C compiler), and OpenVINO gets "
                        "its own switch, ONEDNN_MAX_CPU_ISA. The others have none")
    parser.add_argument("--gantry", type=Path, default=ROOT / "target/release/gantry-edge", metavar="FILE",
                        help="the program (default: target/release/gantry-edge)")
    parser.add_argument("--out", type=Path, help="folder of the report (default: benches/runs/<date>-<machine>)")
    parser.add_argument("--check", action="store_true", help="run every engine once on a tiny random network, and on "
                        "each --model, and compare label maps; writes no report")
    given = parser.parse_args(argv)
    given.core = max(os.sched_getaffinity(0)) if given.core is None else given.core
    given.model = given.model or ([] if given.check else [ROOT / "models/abdomen-compact"])
    return given


class Worker:
    """A peer in `worker.py`; the protocol is described there."""

    def __init__(self, engine, source, codes, given):
        import numpy as np

        files = [str(file) for file in engine.prepare(source)]
        image = source.out / f"{engine.key}.image.npy"
        np.save(image, engine.image(source, codes))
        self.log = open(source.out / f"{engine.key}.log", "w")
        command = [sys.executable, "-B", HERE / "worker.py", engine.key, source.modality, image, *files]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
                                        text=True, **confined(given, engine.isa))
        self.labels_file = source.out / f"{engine.key}.labels.npy"
        hello = self.answer()
        self.load_ms, self.note = hello["load_ms"], hello["note"]

    def answer(self, command=None):
        try:
            if command:
                self.process.stdin.write(command + "\n")
                self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise Failed(f"its process ended with status {self.process.wait()}; see {shown(self.log.name)}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def run(self, count):
        return self.answer(f"run {count}")

    def labels(self):
        import numpy as np

        self.answer(f"labels {self.labels_file}")
        return np.load(self.labels_file)

    def end(self):
        return self.answer("end")["peak_mb"]


class Gantry:
    """gantry-edge, which has no process to keep alive: each round is one `bench`, whose plan and self-test are not timed.

    Of a round it tells the percentiles, wall time only; so each round counts as one value, its median, and the 99th
    percentile is the median of the rounds' own.
    """

    note = "each round counts as one value, the median of stage `infer`; p99 is the median of the rounds' own"

    def __init__(self, source, given):
        if not given.gantry.is_file():
            raise Failed(f"no {shown(given.gantry)}; cargo build --release -p edge-runtime")
        self.source, self.given = source, given
        report = self.bench(1)
        # A peer's load time holds one inference as well: here the self-test, of every branch.
        self.load_ms = report["load_ms"] + report["plan_ms"] + report["selftest_ms"]

    def bench(self, count):
        command = [self.given.gantry, "bench", "--json", "--runs", str(count), "--model", self.source.folder / "model.onnx"]
        done = subprocess.run(command, capture_output=True, text=True, **confined(self.given))
        if done.returncode != 0:
            raise Failed(complaint(done, self.source.folder))
        return json.loads(done.stdout)

    def run(self, count):
        report = self.bench(count)
        self.peak = report["peak_bytes"] / 2**20
        infer = next(m for m in report["modalities"] if m["modality"] == self.source.modality)["stages"]["infer"]
        return {"wall_ms": [infer["p50_ms"]], "p99_ms": infer["p99_ms"]}

    def end(self):
        return self.peak


def complaint(done, folder):
    """First line that a failed process wrote, without the model's folder."""
    said = done.stderr.strip() or f"it ended with status {done.returncode}"
    return said.splitlines()[0].replace(f"{folder}/", "")


def confined(given, switch=""):
    """One core, one thread, and if asked an older CPU, for a process to start."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    if given.isa:
        env["LD_PRELOAD"] = str(cpumask())
        if switch:
            env[switch] = given.isa.upper()
    return {"env": env, "preexec_fn": lambda: os.sched_setaffinity(0, {given.core})}


def cpumask():
    library = ROOT / "target/peers/cpumask.so"
    if not library.exists() or library.stat().st_mtime < (HERE / "cpumask.c").stat().st_mtime:
        library.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, HERE / "cpumask.c"], check=True)
    return library


def shown(path):
    """A path as seen from the repository."""
    path = Path(path).resolve()
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name


def open_model(folder, modality):
    import onnx

    import engines
    import network

    out = ROOT / "target/peers" / folder.resolve().name
    out.mkdir(parents=True, exist_ok=True)
    f32 = folder / "model.f32.onnx"
    return engines.Source(folder, modality, network.read(folder / "model.onnx", modality),
                          onnx.load(folder / "model.onnx"), onnx.load(f32) if f32.is_file() else None, out)


def start(key, source, codes, given):
    """A running engine, or the reason that there is none."""
    import engines

    try:
        return Gantry(source, given) if key == OURS else Worker(engines.BY_KEY[key], source, codes, given)
    except (Failed, Unsupported) as error:
        return error


def measure(folder, keys, given):
    """One model's results: key -> dict with times or with `reason`."""
    import numpy as np

    import engines

    source = open_model(folder, given.modality)
    codes = engines.codes_image(source)
    results, running = {key: {} for key in keys}, {}
    for key in keys:
        worker = start(key, source, codes, given)
        if isinstance(worker, Exception):
            results[key]["reason"] = str(worker)
            continue
        running[key] = worker
        results[key].update(load_ms=worker.load_ms, note=worker.note, rounds=[])
    reference = running["ort-s8"].labels() if "ort-s8" in running else None
    for key, worker in running.items():
        if reference is not None and isinstance(worker, Worker):
            results[key]["agreement"] = float(np.mean(worker.labels() == reference))
    for number in range(given.rounds):
        order = list(running)
        first = number % max(len(order), 1)
        for key in order[first:] + order[:first]:
            try:
                results[key]["rounds"].append(running[key].run(given.batch))
            except Failed as error:
                results[key]["reason"] = str(error)
                del running[key]
        print(f"\r{folder.name}: round {number + 1} of {given.rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    for key, worker in running.items():
        results[key]["peak_mb"] = worker.end()
    return results


def check(given, keys):
    """Label maps of every engine against ONNX Runtime's on the same file."""
    import numpy as np

    import engines
    import tiny

    good = True
    for folder in [tiny.write(ROOT / "target/peers/tiny"), *given.model]:
        source = open_model(folder, given.modality)
        codes = engines.codes_image(source)
        reference = start("ort-s8", source, codes, given)
        if isinstance(reference, Exception):
            sys.exit(f"ONNX Runtime, the reference, does not run: {reference}")
        expected = reference.labels()
        print(f"{folder.name}: {expected.size} pixels, {len(np.unique(expected))} labels")
        for key in keys:
            if key == OURS:
                print(f"  {key:16} {gantry_selftest(folder, given)}")
                continue
            worker = start(key, source, codes, given)
            if isinstance(worker, Exception):
                print(f"  {key:16} does not run: {worker}")
                continue
            agreement, least = float(np.mean(worker.labels() == expected)), engines.BY_KEY[key].agreement
            worker.end()
            verdict = "ok" if agreement >= least else "DIFFERS"
            good &= agreement >= least
            print(f"  {key:16} {verdict}: {100 * agreement:.2f} % of labels (at least {100 * least:g} %)  {worker.note}")
        reference.end()
    return 0 if good else 1


def gantry_selftest(folder, given):
    """gantry-edge compares itself with the digests that the exporter recorded."""
    if folder.name == "tiny":
        return "skipped: the tiny network has no manifest"
    if not given.gantry.is_file():
        return f"does not run: no {shown(given.gantry)}"
    command = [given.gantry, "selftest", "--model", folder / "model.onnx"]
    done = subprocess.run(command, capture_output=True, text=True, **confined(given))
    if done.returncode != 0:
        return f"does not run: {complaint(done, folder)}"
    return "ok: its self-test"


def main():
    given = arguments(sys.argv[1:])
    environment()
    import engines
    import report

    known = [OURS, *engines.BY_KEY]
    keys = given.engines.split(",") if given.engines else known
    if unknown := [key for key in keys if key not in known]:
        sys.exit(f"unknown engine: {', '.join(unknown)}; known: {', '.join(known)}")
    if given.check:
        sys.exit(check(given, keys))
    machine = report.machine(given)
    slug = re.sub(r"[^a-z0-9]+", "-", machine["cpu_short"].lower()).strip("-")
    name = f"{datetime.date.today()}-{slug}-{os.cpu_count()}cpu-peers" + (f"-{given.isa}" if given.isa else "")
    out = given.out or ROOT / "benches/runs" / name
    results = {folder.resolve().name: measure(folder, keys, given) for folder in given.model}
    report.write(out, machine, results, given)
    print((out / "README.md").read_text())
    print(f"written to {shown(out)}", file=sys.stderr)


if __name__ == "__main__":
    main()
