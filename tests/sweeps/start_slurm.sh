#!/usr/bin/env bash
# Installs and starts a real Slurm on this machine alone, for tests: as root, on Debian or Ubuntu. DIR holds its state.
#   tests/sweeps/start_slurm.sh DIR          starts it: partitions "debug", and "urgent", which takes the place of others
#   tests/sweeps/start_slurm.sh DIR stop     ends it
set -euo pipefail
dir=$(realpath -m "$1")
if [ "${2:-}" = stop ]; then
    for name in slurmctld slurmd munged; do
        if [ -f "$dir/$name.pid" ]; then kill "$(cat "$dir/$name.pid")" 2>/dev/null || true; fi
    done
    exit
fi
if ! command -v slurmctld >/dev/null || ! command -v munged >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends slurm-wlm munge
fi
host=$(hostname -s)
mkdir -p "$dir/state" "$dir/spool" "$dir/munge"
[ -f "$dir/munge/key" ] || head -c 1024 /dev/urandom >"$dir/munge/key"
chmod 700 "$dir/munge" && chmod 400 "$dir/munge/key"
chmod 755 "$dir"
cat >"$dir/slurm.conf" <<END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
SlurmctldPort=16817
SlurmdPort=16818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PropagatePrioProcess=1
MpiDefault=none
ReturnToService=2
KillWait=20
MaxArraySize=3
SchedulerParameters=sched_interval=2,sched_min_interval=100000
AccountingStorageType=accounting_storage/none
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=1000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=30
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=9 PreemptMode=OFF
END
export SLURM_CONF=$dir/slurm.conf
munged --force --key-file="$dir/munge/key" --socket="$dir/munge/socket" --pid-file="$dir/munged.pid" \
    --log-file="$dir/munge/log" --seed-file="$dir/munge/seed"
slurmctld
sleep 1
slurmd
for _ in $(seq 30); do
    if sinfo -h -p debug -t idle -o %n | grep -q .; then exit; fi
    sleep 1
done
echo "Slurm did not start: see $dir/slurmctld.log and $dir/slurmd.log" >&2
exit 1
