#!/usr/bin/env bash
# Races our allreduce against Open MPI's on a real TCP stack: ranks in network namespaces of this machine, joined by
# rate-limited links; and trains the example there.
#
#   sudo benchmarks/netlab.sh                                          8 hosts, 100 Mbit/s, up to 8 MiB: a quarter of an hour
#   sudo benchmarks/netlab.sh [--hosts 8] [--mbit 100] [--seconds 100] [--most 8388608] [--only auto,ring,...]
#
# Needs root (namespaces), and Debian's iproute2, openmpi-bin, libopenmpi-dev, python3 and what examples/run.sh needs.
# Every host is a namespace with one link to a bridge, which is in a namespace of its own; the host's network is not
# touched, and all is gone when the script ends (killed by -9 it leaves namespaces dpsgd-lab-*). The rate is chosen so that the links and not this
# machine's cores are what one waits for; the share of the cores that was busy is printed.
# Writes build/netlab/: openmpi.1.json (rows as benchmarks/allreduce.sh's), auto.log, training.json.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source cmake/setup.sh

hosts=8 mbit=100 seconds=100 most=8388608 only=
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) sed -n '2,/^set/s/^# \{0,1\}//p' benchmarks/netlab.sh; exit 0 ;;
    --hosts | --mbit | --seconds | --most)
      [[ ${2-} =~ ^[1-9][0-9]*$ ]] || stop "$1 needs a whole number from 1 on; got '${2-}'"
      printf -v "${1#--}" %s "$2"; shift ;;
    --only) only=${2?--only needs names}; shift ;;
    *) stop "there is no $1; see --help" ;;
  esac
  shift
done
[ "$hosts" -ge 2 ] && [ "$hosts" -le 64 ] || stop "--hosts must be from 2 to 64; got $hosts"
[ "$(id -u)" -eq 0 ] || stop "network namespaces need root: sudo benchmarks/netlab.sh"
for tool in ip tc unshare chrt; do command -v $tool >/dev/null || stop "there is no $tool; please install iproute2, util-linux"; done
install_missing build mpi examples

out=build/netlab lab=dpsgd-lab-$$
mkdir -p $out
mpicxx -std=c++20 -O3 -march=native -DNDEBUG -Iinclude benchmarks/allreduce.cpp -o $out/allreduce
for step in "cmake --preset release" "cmake --build --preset release --target make_pums train_mlp"; do
  $step >$out/build.log 2>&1 || { cat $out/build.log >&2; stop "the build failed: $step"; }
done
records=$out/people.csv
[ -e $records ] || build/release/examples/make_pums --rows 100000 --seed 1 --output $records

# A rank that waits polls, Open MPI's and ours, and gives the core away between polls. Eight of them on two cores would
# pass the cores round among themselves and let nobody work: here giving the core away is a nap of 0.2 ms (after which two
# polls come without one, since ours and Open MPI's both give away). So a message takes half a millisecond or so, with either.
cat >$out/nap.c <<'NAP'
#define _GNU_SOURCE
#include <sys/prctl.h>
#include <time.h>
int sched_yield(void) {
  static long last = 0;
  struct timespec now, nap = {0, 200000};
  clock_gettime(CLOCK_MONOTONIC, &now);
  if (last == 0) prctl(PR_SET_TIMERSLACK, 1000L);
  if (now.tv_sec * 1000000000L + now.tv_nsec - last < 2000) return 0;
  nanosleep(&nap, 0);
  clock_gettime(CLOCK_MONOTONIC, &now);
  last = now.tv_sec * 1000000000L + now.tv_nsec;
  return 0;
}
NAP
cc -O2 -shared -fPIC $out/nap.c -o $out/nap.so

# ---- The lab: namespace LAB-s with the bridge, where mpirun runs as 10.77.0.254; LAB-h1 ... with the ranks. ----------
clean_up() {
  local namespace
  for namespace in $(ip netns list | cut -d' ' -f1); do
    case $namespace in "$lab"-*)
      ip netns pids "$namespace" | xargs -r kill -9 2>/dev/null || true
      ip netns delete "$namespace" ;;
    esac
  done
  rm -f $out/agent
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

# limit NAMESPACE INTERFACE: what leaves there goes at the rate, with hardly a burst (a burst would let short messages
# through at the speed of memory).
limit() { ip netns exec "$1" tc qdisc add dev "$2" root tbf rate "${mbit}mbit" burst 12kb limit 1mb; }
ip netns add $lab-s
ip -n $lab-s link set lo up
ip -n $lab-s link add bridge mtu 9000 type bridge
ip -n $lab-s addr add 10.77.0.254/24 dev bridge
ip -n $lab-s link set bridge up
: >$out/hosts
for ((i = 1; i <= hosts; i++)); do
  ip netns add $lab-h$i
  ip -n $lab-s link add link$i mtu 9000 type veth peer name eth0 netns $lab-h$i mtu 9000
  ip -n $lab-s link set link$i master bridge up
  ip -n $lab-h$i link set lo up
  ip -n $lab-h$i addr add 10.77.0.$i/24 dev eth0
  ip -n $lab-h$i link set eth0 up
  # Plain TCP: reno (BBR probes), and no long queue before one's own link, where acknowledgements would wait.
  ip netns exec $lab-h$i sh -c 'cd /proc/sys/net/ipv4 && echo reno >tcp_congestion_control && echo 32768 >tcp_limit_output_bytes'
  limit $lab-s link$i
  limit $lab-h$i eth0
  echo "10.77.0.$i slots=1" >>$out/hosts
done

# What mpirun starts in place of ssh: agent HOST COMMAND... . Each host has a name of its own, or their ranks would
# take each other for neighbours and use shared memory.
cat >$out/agent <<AGENT
#!/bin/sh
number=\${1##*.}
shift
exec chrt --fifo 1 ip netns exec $lab-h\$number unshare --uts sh -c "hostname lab\$number; \$*"
AGENT
chmod +x $out/agent

# Root in a container is fine; TCP over the lab's network alone; a waiting rank leaves the core to the others.
run() {
  ip netns exec $lab-s unshare --uts sh -c 'hostname lab254; exec "$@"' sh env OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
    mpirun --hostfile $out/hosts -n "$hosts" --mca plm_rsh_agent "$PWD/$out/agent" --mca plm_rsh_no_tree_spawn 1 \
    --mca pml ob1 --mca btl tcp,self --mca btl_tcp_if_include 10.77.0.0/24 --mca oob_tcp_if_include 10.77.0.0/24 \
    --mca mpi_yield_when_idle 1 --mca hwloc_base_binding_policy none -x LD_PRELOAD="$PWD/$out/nap.so" "$@" </dev/null
}
# busy: the ticks that the ranks have had, and those that there were, since the start.
busy() {
  cat /proc/[0-9]*/stat 2>/dev/null | awk '$2 == "(allreduce)" { ranks += $14 + $15 } END { printf "%d ", ranks }'
  awk '$1 == "cpu" { for (i = 2; i <= 9; ++i) all += $i; print all }' /proc/stat
}

echo "racing" >&2
(
  sleep 20
  read -r ranks all < <(busy)
  sleep 10
  read -r ranks_then all_then < <(busy)
  echo "the ranks had $((100 * (ranks_then - ranks) / (all_then - all))) % of this machine's cores" >$out/busy
) &
run $out/allreduce --json $out/openmpi.1.json --transport "TCP, $mbit Mbit/s" --seconds "$seconds" --most "$most" \
  ${only:+--only "$only"} >$out/race.log 2>$out/auto.log || { tail -n 5 $out/auto.log >&2; stop "the race failed"; }
wait $!
cat $out/busy
python3 benchmarks/allreduce_table.py $out

echo "training" >&2
for name in auto naive circulant; do
  rm -f $out/ledger*
  run build/release/examples/train_mlp --csv $records --schema examples/pums.schema.json --steps 200 --batch-size 256 \
    --noise-multiplier 1 --ledger $out/ledger --allreduce $name --json $out/train_$name.json >$out/train_$name.log 2>&1 ||
    { tail -n 5 $out/train_$name.log >&2; stop "training with $name failed"; }
done
python3 - $out <<'TABLE'
"""A step with naive over one with circulant, as measured and as the cost model says of the allreduce alone."""
import json
import re
import sys

folder = sys.argv[1]
seconds = {}
for name in ("naive", "circulant"):
    with open(f"{folder}/train_{name}.json") as file:
        result = json.load(file)
    seconds[name] = result["seconds_training"] / 200
with open(f"{folder}/train_auto.log") as file:
    predicted = {name: float(us) / 1e6 for name, us in re.findall(r"^ +(\w+) +predicted +([0-9.]+) us", file.read(), re.M)}
measured, model = seconds["naive"] / seconds["circulant"], predicted["naive"] / predicted["circulant"]
print(f"a training step: naive {seconds['naive'] * 1e3:.2f} ms, circulant {seconds['circulant'] * 1e3:.2f} ms: {measured:.2f} times")
print(f"by the model:    naive {predicted['naive'] * 1e3:.2f} ms, circulant {predicted['circulant'] * 1e3:.2f} ms: {model:.2f} times; "
      f"measured over model {measured / model:.2f}")
with open(f"{folder}/training.json", "w") as file:
    json.dump({"measured_s": seconds, "predicted_s": predicted, "measured": measured, "model": model}, file, indent=1)
TABLE
