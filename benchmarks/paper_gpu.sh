#!/usr/bin/env bash
# Everything that a borrowed GPU is for, in one command: install, compare with the CPU, measure, run a list of experiments, pack the results.
#
#     benchmarks/paper_gpu.sh --limit 25                          # minutes, all told; the data in data/cifar100
#     benchmarks/paper_gpu.sh --limit 25 --skip-benchmarks        # a second visit: the same command goes on where the first one ended
#
# --spec FILE           the list, a sweep; its first runs come first                    [experiments/paper.yaml]
# --out DIR             where the runs go; DIR.log has what is said, DIR.tar.gz what is worth bringing back    [runs/paper]
# --device cuda|cpu     cpu tries the script itself                                     [cuda]
# --wheels DIR          wheels for a machine without a network: whatever pip would fetch
# --python PYTHON       its own torch is used if it has one that will do                [python3]
set -euo pipefail
cd "$(dirname "$0")/.."
begun=$(date +%s)

limit= spec=experiments/paper.yaml out=runs/paper device=cuda wheels= python=python3 benchmarks=yes
while [ $# -gt 0 ]; do
    case $1 in
        --limit|--spec|--out|--device|--wheels|--python) [ $# -gt 1 ] || { echo "$1: missing a value" >&2; exit 2; }; declare "${1#--}=$2"; shift 2 ;;
        --skip-benchmarks) benchmarks=; shift ;;
        *) echo "$1: no such option; see the first lines of $0" >&2; exit 2 ;;
    esac
done
[[ $limit =~ ^[0-9]+$ ]] || { echo "--limit ${limit:-(none)}: not allowed; give the minutes that this machine is yours for" >&2; exit 2; }
[[ $device =~ ^(cuda|cpu)$ ]] || { echo "--device $device: not allowed; give cuda or cpu" >&2; exit 2; }
say() { echo "[$(( ($(date +%s) - begun) / 60 )) min] $*"; }
left() { echo $(( limit - ($(date +%s) - begun) / 60 - 2 )); }         # two minutes for the last checkpoint and for packing

pack() {
    say "packing"
    find "$out" "$out.log" -maxdepth 3 \( -name metrics.json -o -name config.json -o -name events.jsonl -o -name 'full_run*.ipynb' \
        -o -name sweep.json -o -name results.csv -o -name report.html -o -path "$out.log/*" \) -print0 2>/dev/null | tar czf "$out.tar.gz" --null -T -
    say "$out.tar.gz: $(du -h "$out.tar.gz" | cut -f1); checkpoints of unfinished runs stay in $out"
}
trap pack EXIT

# 1. Install, with the torch that is there if it will do: it fits the driver.
if [ ! -e .venv/.gpu ]; then
    say "installing"
    "$python" -m venv --system-site-packages --clear .venv
    offline=(); [ -z "$wheels" ] || offline=(--no-index --find-links "$wheels" --no-build-isolation)
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "${offline[@]}" -e .
    touch .venv/.gpu
fi
m2kd() { .venv/bin/python -m m2kd_lite.cli "$@"; }
mkdir -p "$out.log"

# 2. The same small run here and on the CPU: a wrong kernel or a wrong graph is found before an hour is spent on it.
say "comparing with the CPU"
.venv/bin/python -m benchmarks.gpu_check --device "$device" | tee "$out.log/check"

# 3. What the card can do.
if [ -n "$benchmarks" ]; then
    say "measuring"
    timeout "$(( 60 * limit / 4 ))" .venv/bin/python -m benchmarks.gpu --json | tee "$out.log/gpu.jsonl" || say "benchmarks.gpu was cut off"
fi

# 4. The list, with as many runs at once as help, until the time is nearly up.
workers=$(.venv/bin/python -m benchmarks.gpu_check --device "$device" --workers)
say "running $spec, $workers at once, for $(left) minutes"
status=0
[ "$(left)" -le 0 ] || m2kd sweep "$spec" --out "$out" --workers "$workers" --time-limit "$(left)" 2>&1 | tee -a "$out.log/sweep" || status=$?
case $status in
    0) say "all finished" ;;
    75) say "the time is up; the same command goes on" ;;
    *) say "the sweep ended with status $status" ;;
esac
finished=$(find "$out" -mindepth 2 -maxdepth 3 -path '*/run/metrics.json' -printf '%h\n' | sort)
[ -z "$finished" ] || m2kd report $finished --out "$out/report.html" --mix-profiles
[ $status -eq 75 ] || exit $status
