#!/usr/bin/env bash
# One experiment, submitted to a real Slurm of three nodes that lose their power, their
# daemons and their jobs while it runs: the results have to be those of one process, byte
# for byte. Needs root, Debian's packages (which it installs) and bin/sagbench.
set -euo pipefail
cd "$(dirname "$0")/.."
. .ci/slurm-cluster.sh

work=$(mktemp -d /tmp/sagbench-slurm-XXXXXX) # munge's socket needs a short path
ending() {
	local status=$?
	cluster_stop
	rm -rf "$work"
	exit $status
}
trap ending EXIT
fail() {
	echo "FAIL $scenario: $*" >&2
	squeue || true
	tail -n 15 "$results"/.log/tiny/*.log || true
	exit 1
}

# Names with blanks and quotes go through sbatch and the shell.
folder="$work/it's a \"test\""
results="$folder/results"
mkdir -p "$folder"
sed -e "s|: \.\./models|: $PWD/models|" -e "s|checkpoint: \.\./models|checkpoint: $PWD/models|g" -e '/^rows:/,$d' -e '/^bootstrap:/d' -e '/^trace:/d' \
	-e 's/^name: .*/name: tiny/' -e 's/^samples: .*/samples: 96/' -e 's/^batch: .*/batch: 2/' configs/table1-fashion.yaml >"$folder/tiny.yaml"
cat >>"$folder/tiny.yaml" <<-YAML
	rows:
	  - label: uncond.
	    model: {checkpoint: $PWD/models/pretrained/adm-uncond.pt}
	    sweep: {guidance.sag.scale: [0, 0.5]}
YAML
run=(--results "$results" --device cpu --threads 1 --heartbeat 500ms --stale 4s)

submit() { bin/sagbench submit "$folder/tiny.yaml" "${run[@]}" --quiet --slurm --array 8; }
images() { find "$results/tiny" -path '*/samples/*.npz' 2>/dev/null | wc -l; }
some_images() { [ "$(images)" -ge "$1" ]; }
no_jobs() { [ -z "$(squeue -h -o %i)" ]; }
# restarted tells whether a task of an array was started again.
restarted() { squeue -h -O 'RestartCnt' -t running | grep -qv '^0 *$'; }

# workers are the processes of the experiment.
workers() { pgrep -f "^$PWD/bin/sagbench run $folder/"; }
more_workers() { [ "$(workers | wc -l)" -gt "$1" ]; }

# same compares two folders of results, and is what all of this is for.
same() { diff -r "$1" "$2"; }

# begin submits the experiment and waits for the first images.
begin() {
	scenario=$1
	rm -rf "$results"
	SECONDS=0
	submit
	until_true 120 some_images 12 || fail "no images after two minutes"
}

# finished waits for the end of all jobs and looks at what they left.
finished() {
	until_true 300 no_jobs || fail "the jobs do not end"
	[ ! -e "$results/tiny/.work" ] || fail "left in .work: $(find "$results/tiny/.work")"
	same "$work/expected/tiny" "$results/tiny" || fail "these are not the results of one process"
	grep -qr '│ uncond. ' "$results/.log/tiny" || fail "nobody printed the table"
	echo "ok   $scenario (${SECONDS} s)"
	passed=$((passed + 1))
}

passed=0 scenario=start
cluster_start "$work/slurm" || fail "no cluster"
bin/sagbench run "$folder/tiny.yaml" "${run[@]}" --results "$work/expected" --quiet >/dev/null 2>"$work/expected.log" || {
	cat "$work/expected.log"
	exit 1
}

begin "a node loses its power"
lose_power 1
finished
power_on 1
until_true 60 idle_nodes || fail "node 1 does not come back"

# Its tasks run on, unseen, while they are started again. All wait until they have been,
# for longer than claims hold: then the old ones publish what the new ones draw as well.
begin "a node loses its daemon: two writers"
mapfile -t before < <(workers)
kill -STOP "${before[@]}"
lose_daemon 2
until_true 60 restarted || fail "no task was started again"
until_true 60 more_workers "${#before[@]}" || fail "no task has two processes"
sleep 5
kill -CONT "${before[@]}"
finished
power_on 2
until_true 60 idle_nodes || fail "node 2 does not come back"

begin "tasks are requeued, and the experiment is submitted again meanwhile"
array=$(squeue -h -o %F | sort -n | head -n 1)
scontrol requeue "${array}_0" "${array}_3" || scontrol requeue "${array}_0"
submit
status=0
bin/sagbench submit "$folder/tiny.yaml" seed=1 "${run[@]}" --quiet --slurm --array 1 2>"$work/refused" || status=$?
[ $status = 2 ] && grep -q "with other settings" "$work/refused" || fail "other settings: exit status $status, $(cat "$work/refused")"
until_true 60 restarted || fail "no task was started again"
finished

begin "tasks are preempted"
echo '#!/bin/bash
sleep 3' | sbatch --parsable --partition=urgent --nodes=$nodes --exclusive --output=/dev/null >/dev/null
until_true 60 restarted || fail "no task was started again"
finished
grep -qr "stopped by terminated; nothing is lost" "$results/.log/tiny" || fail "no task heard SIGTERM"

# The comparison sees one byte.
scenario="one byte"
find "$results/tiny" -name 'samples_*.npz' | head -n 1 | while read -r f; do printf x | dd of="$f" bs=1 seek=2000 conv=notrunc status=none; done
! same "$work/expected/tiny" "$results/tiny" >/dev/null || fail "a changed byte was not seen"

echo "$passed passed, 0 failed"
