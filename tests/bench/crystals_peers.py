# SPDX-License-Identifier: Apache-2.0
"""crystals_bench beside its peers: what others build crystal graphs with, on the same structures and core.

    python tests/bench/crystals_peers.py [--bench build/bin/crystals_bench] [--peers ../shared/peers] [--rounds 3]

The interpreter needs what the peers need: vesin, numba, torch, torch_geometric, alignn, jarvis, ase. Each round runs
the benchmark, the peers and the benchmark again; a ratio is that of the medians over the rounds, so use an idle
machine: the benchmark counts processor time, the peers count time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

# (ours, the peer)
PAIRS = [(f"neighbours/{{path}}/{c}", f"neighbours_list_vesin_c_poscar_{c}A") for c in (5, 6, 8)]
PAIRS += [
    (f"knn_line_graph/{ours}", f"neighbours_graph_{peer}_poscar_8A")
    for ours, peers in {
        "alignn": ("alignn_knn", "alignn_fast"),
        "tolerance": ("alignn_knn", "alignn_fast", "vesin_numpy"),
        "strictly_12": ("vesin_numpy",),
    }.items()
    for peer in peers
]
# A peer's batch goes to where its last one was.
PAIRS += [("batch/store", "batch/memcpy")]
PAIRS += [("batch/store_same_memory", peer) for peer in ("collate_pyg", "collate_numba_flat")]


def ours(bench):
    """Items per second by name, and the first (best) instruction set."""
    out = subprocess.run([bench, "--benchmark_format=json"], check=True, capture_output=True, text=True).stdout
    rates = {b["name"]: b["items_per_second"] for b in json.loads(out)["benchmarks"]}
    return rates, next(name.split("/")[1] for name in rates if name.startswith("neighbours/"))


def peers(folder):
    """Structures or batches per second by name."""
    env = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    lists = ["neighbours.py", "--sets", "poscar", "--repeats", "3", "--slow-cutoffs", "8", "--only"]
    lists += ["vesin_c", "vesin_numpy", "alignn_fast", "alignn_knn"]
    rates = {}
    for command in (lists, ["collate.py", "--repeats", "5", "--workers", "0"]):
        path = os.path.join(folder, command[0])
        out = subprocess.run([sys.executable, path, *command[1:]], check=True, capture_output=True, text=True, env=env)
        for line in out.stdout.splitlines():
            one = json.loads(line)
            rate = one["settings"].get("structures_per_s", one["value"])
            if rate is not None:
                rates[one["name"]] = rate
    return rates


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", default="build/bin/crystals_bench")
    parser.add_argument("--peers", default="../shared/peers")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    seen = {}
    for _ in range(args.rounds):
        before, path = ours(args.bench)
        for rates in (before, peers(args.peers), ours(args.bench)[0]):
            for name, rate in rates.items():
                seen.setdefault(name, []).append(rate)
    middle = {name: statistics.median(rates) for name, rates in seen.items()}
    for name, peer in PAIRS:
        name = name.format(path=path)
        if name in middle and peer in middle:
            rate, other = middle[name], middle[peer]
            print(f"{name:30} {rate:10.0f} /s   {peer:38} {other:10.1f} /s   x {rate / other:.2f}")
        else:
            print(f"{name:30} not compared: no {peer}")


if __name__ == "__main__":
    main()
