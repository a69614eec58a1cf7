#!/usr/bin/env python3
"""Count the ARM64 instructions of one inference: gantry-edge beside ONNX Runtime and LiteRT, on CPUs that qemu plays.

No ARM machine is needed. Instructions are exact and repeatable, but they are not time: a dotprod instruction does four
times the work of a multiply-accumulate, and qemu knows no caches. Per inference = (six inferences - one) / 5.
gantry-edge is counted over whole slices of the model's own size: intensity rule and labels included, its peers from
codes to labels.

Needs Debian (an aarch64 Python is unpacked with apt-get into .venv/peers-arm/, nothing is installed), qemu-user, a C
compiler, and gantry-edge for aarch64:
    cargo build --release -p edge-runtime --target aarch64-unknown-linux-gnu

Examples:
    python3 benches/peers/arm.py
    python3 benches/peers/arm.py --model target/a --cpu cortex-a53 --engines gantry,litert
"""

import argparse
import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

sys.dont_write_bytecode = True  # keeps the folder clean

from common import OURS, ROOT, Failed, Unsupported, requirements

HERE = Path(__file__).resolve().parent
HOME = ROOT / ".venv/peers-arm"
ROOTFS, SITE = HOME / "root", HOME / "site"
DEBIAN = ("libc6", "libstdc++6", "libgcc-s1", "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib",
          "zlib1g", "libexpat1", "libffi8", "libssl3", "libbz2-1.0", "liblzma5")
WHEELS = ("numpy", "onnxruntime", "ai-edge-litert")
PEERS = ("litert", "ort-u8", "ort-s8", "ort-f32")
# Part number of the CPU's identification register, and whether it has dotprod.
CPUS = {"cortex-a53": (0xD03, False), "cortex-a72": (0xD08, False), "cortex-a76": (0xD0B, True), "neoverse-n1": (0xD0C, True)}
FEW, MANY = 1, 6


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models/abdomen-compact", metavar="DIR",
                        help="a model's folder (default: models/abdomen-compact)")
    parser.add_argument("--modality", default="ct", choices=("ct", "mr"), help="branch (default: ct)")
    parser.add_argument("--cpu", action="append", choices=CPUS, help="repeatable (default: cortex-a72 and cortex-a76, "
                        "without and with dotprod)")
    parser.add_argument("--engines", metavar="A,B", help=f"some of: {', '.join((OURS, *PEERS))} (default: all)")
    parser.add_argument("--gantry", type=Path, metavar="FILE",
                        default=ROOT / "target/aarch64-unknown-linux-gnu/release/gantry-edge",
                        help="the program (default: target/aarch64-unknown-linux-gnu/release/gantry-edge)")
    parser.add_argument("--out", type=Path, metavar="JSON", help="also write the numbers to this file")
    return parser.parse_args()


def setup():
    """Makes .venv/peers-arm: an aarch64 Python with the peers' own aarch64 wheels."""
    stamp, wanted = HOME / "stamp", " ".join([*DEBIAN, *(f"{name}=={requirements()[name]}" for name in WHEELS)])
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    print("unpacking Python and wheels for aarch64 into .venv/peers-arm", file=sys.stderr)
    shutil.rmtree(HOME, ignore_errors=True)
    for folder in ("apt/lists/partial", "apt/cache/archives/partial", "debs", "root", "site"):
        (HOME / folder).mkdir(parents=True)
    apt = ["apt-get", "-qq", "-o", "APT::Architectures::=amd64", "-o", "APT::Architectures::=arm64", "-o",
           f"Dir::State::lists={HOME}/apt/lists", "-o", f"Dir::Cache={HOME}/apt/cache", "-o", "APT::Sandbox::User=root"]
    subprocess.run([*apt, "update"], check=True)
    subprocess.run([*apt, "download", *(f"{name}:arm64" for name in DEBIAN)], check=True, cwd=HOME / "debs")
    for deb in (HOME / "debs").iterdir():
        subprocess.run(["dpkg-deb", "-x", deb, ROOTFS], check=True)
    platforms = [f"--platform=manylinux{version}_aarch64" for version in ("_2_28", "_2_27", "2014")]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    wheels = [f"{name}=={requirements()[name]}" for name in WHEELS]
    subprocess.run([*pip, "--target", SITE, "--python-version=3.11", "--only-binary=:all:", *platforms, *wheels], check=True)
    shutil.rmtree(HOME / "apt")
    shutil.rmtree(HOME / "debs")
    stamp.write_text(wanted)


def play(cpu):
    """One core of `cpu` in the root's /proc and /sys: libraries look there too, and this machine's would confuse them."""
    part, dotprod = CPUS[cpu]
    features = "fp asimd evtstrm aes pmull sha1 sha2 crc32"
    features += " atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp" if dotprod else ""
    for folder in ("proc", "sys/devices/system/cpu"):
        (ROOTFS / folder).mkdir(parents=True, exist_ok=True)
    (ROOTFS / "proc/cpuinfo").write_text(
        f"processor\t: 0\nBogoMIPS\t: 100.00\nFeatures\t: {features}\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
        f"CPU variant\t: 0x1\nCPU part\t: {part:#x}\nCPU revision\t: 1\n\n")
    for name in ("possible", "present"):
        (ROOTFS / "sys/devices/system/cpu" / name).write_text("0\n")


def count(cpu, command, stdin=""):
    """Instructions of a whole aarch64 process, and what it printed."""
    plugin, answer = ROOT / "target/peers/libcount.so", ROOT / "target/peers/count.txt"
    if not plugin.exists() or plugin.stat().st_mtime < (HERE / "count.c").stat().st_mtime:
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", plugin, HERE / "count.c"], check=True)
    answer.unlink(missing_ok=True)
    variables = {"PYTHONHOME": ROOTFS / "usr", "PYTHONPATH": SITE, "PYTHONHASHSEED": 0, "OMP_NUM_THREADS": 1}
    qemu = ["qemu-aarch64", "-cpu", cpu, "-L", ROOTFS, "-plugin", f"{plugin},out={answer}"]
    for name, value in variables.items():
        qemu += ["-E", f"{name}={value}"]
    done = subprocess.run([*qemu, *command], input=stdin, capture_output=True, text=True)
    if done.returncode != 0 or not answer.exists():
        raise Failed((done.stderr.strip() or f"status {done.returncode}").splitlines()[-1])
    return int(answer.read_text()), done.stdout


def peer(key, source, codes, cpu):
    """A function from a number of inferences to the instructions of a process that does them."""
    import numpy as np

    import engines

    engine = engines.BY_KEY[key]
    files, image = engine.prepare(source), source.out / f"{key}.image.npy"
    np.save(image, engine.image(source, codes))
    command = [ROOTFS / "usr/bin/python3.11", "-B", "-S", HERE / "worker.py", key, source.modality, image, *files]

    def run(number):
        instructions, said = count(cpu, command, f"run {number}\nend\n")
        for line in said.splitlines():
            if "error" in json.loads(line):
                raise Failed(json.loads(line)["error"])
        return instructions

    return run


def gantry(program, source, cpu):
    """The same for gantry-edge: a volume of as many slices."""
    if not program.is_file():
        raise Failed("no gantry-edge for aarch64; cargo build --release -p edge-runtime --target aarch64-unknown-linux-gnu")

    def run(number):
        scan, labels = source.out / "scan.nii", source.out / "labels.nii"
        write_nifti(scan, source, number)
        command = [program, "segment", "--model", source.folder / "model.onnx", "--modality", source.modality, scan, "--out", labels]
        return count(cpu, command)[0]

    return run


def write_nifti(path, source, slices):
    """Raw slices of the model's own size and spacing: the picture of `engines.codes_image` as a body in air."""
    import numpy as np

    import engines

    codes = engines.codes_image(source)
    if codes.ndim != 4 or codes.shape[1] != 1:
        raise Unsupported("counted for 2D models of one slice only")
    spacing = json.loads(next(p.value for p in source.int8.metadata_props if p.key == "gantry.manifest"))["spec"]["grid"]["spacing_mm"]
    height, width = codes.shape[2:]
    y, x = np.ogrid[:height, :width]
    body = ((y - height / 2) / (0.4 * height)) ** 2 + ((x - width / 2) / (0.45 * width)) ** 2 < 1
    raw = np.where(body, codes[0, 0].astype(np.int16) + (0 if source.modality == "ct" else 200), -1000 if source.modality == "ct" else 0)
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, width, height, slices, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 4, 16)  # int16
    struct.pack_into("<8f", header, 76, 1, spacing, spacing, 5, 1, 1, 1, 1)
    struct.pack_into("<3f", header, 108, 352, 1, 0)
    header[123] = 2  # mm
    struct.pack_into("<2h", header, 252, 0, 1)  # the affine below
    struct.pack_into("<12f", header, 280, -spacing, 0, 0, 0, 0, -spacing, 0, 0, 0, 0, 5, 0)
    header[344:348] = b"n+1\0"
    path.write_bytes(bytes(header) + np.stack([raw.astype("<i2")] * slices).tobytes())


def main():
    given = arguments()
    import compare

    compare.environment()
    setup()
    import engines
    import report

    source = compare.open_model(given.model, given.modality)
    codes = engines.codes_image(source)
    keys = given.engines.split(",") if given.engines else [OURS, *PEERS]
    if unknown := set(keys) - {OURS, *PEERS}:
        sys.exit(f"unknown engine: {', '.join(sorted(unknown))}; known: {', '.join((OURS, *PEERS))}")
    cpus, table = given.cpu or ["cortex-a72", "cortex-a76"], {key: {} for key in keys}
    for cpu in cpus:
        play(cpu)
        for key in keys:
            try:
                run = gantry(given.gantry, source, cpu) if key == OURS else peer(key, source, codes, cpu)
                table[key][cpu] = (run(MANY) - run(FEW)) / (MANY - FEW)
            except (Failed, Unsupported) as error:
                table[key][cpu] = str(error)
            print(f"{cpu} {key}: {table[key][cpu]}", file=sys.stderr)
    print(f"| million instructions per inference, {source.folder.resolve().name} | {' | '.join(cpus)} |")
    print("|---" * (len(cpus) + 1) + "|")
    for key, row in table.items():
        cells = [f"{n / 1e6:.1f}" if isinstance(n, float) else f"no number: {n}" for n in row.values()]
        print(f"| {report.label(key)} | {' | '.join(cells)} |")
    if given.out:
        given.out.write_text(json.dumps({"model": source.folder.resolve().name, "instructions": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
