#!/usr/bin/env bash
# Runs a program of this folder on the libtorch of a Python that has PyTorch 2.11:
#   ./run.sh gantry-train train --ct CT --mr MR --out run --device cuda --amp bf16
# PYTHON names another Python than python3.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
[ $# -gt 0 ] || { echo "usage: $0 PROGRAM [ARGUMENTS]; programs: gantry-train gantry-export gantry-edge" >&2; exit 2; }
lib=$("$python" - <<'PYTHON'
import importlib.metadata, importlib.util, sys
found = importlib.util.find_spec("torch")
if found is None:
    sys.exit("this Python has no PyTorch: pip install torch==2.11.0, or set PYTHON to one that has it")
version = importlib.metadata.version("torch")
if version.split("+")[0] != "2.11.0":
    sys.exit(f"PyTorch {version} is here, expected 2.11.0: the program was made for that one")
print(found.submodule_search_locations[0] + "/lib")
PYTHON
)
export LD_LIBRARY_PATH="$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" OMP_WAIT_POLICY=passive
program=$1
shift
exec "$here/$program" "$@"
