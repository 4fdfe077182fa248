# A Slurm of three nodes on this machine, for .ci/slurm.sh, which sources this file:
#
#   cluster_start DIR       munged, slurmctld and three slurmd; sets SLURM_CONF
#   lose_power N            node N: all that runs on it is killed
#   lose_daemon N           node N: its slurmd is killed, its tasks go on unseen
#   power_on N              node N is started (again)
#   cluster_stop            ends all of it
#
# It needs root and Debian's packages, which it installs, and keeps to 127.0.0.1 and DIR.
# A node is a PID namespace: it dies with its first process. The limits of time are short,
# so that a lost node is noticed within ten seconds and its tasks start again soon after.

nodes=3 slots=4 # CPUs of a node, made up: one node may be lost while eight tasks run

# free_port prints the first of four neighbouring ports that nobody listens on.
free_port() {
	local first port
	while :; do
		first=$((20000 + RANDOM % 10000))
		for port in $(seq $first $((first + nodes))); do
			! (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || continue 2
		done
		echo $first
		return
	done
}

cluster_configure() {
	local port=$1 n
	(umask 077 && head -c 128 /dev/urandom >"$cluster/key")
	mkdir -p "$cluster/state" "$cluster/spool"
	cat >"$SLURM_CONF" <<-CONF
		ClusterName=ci
		SlurmctldHost=localhost(127.0.0.1)
		SlurmctldPort=$port
		SlurmUser=root
		SlurmdUser=root
		CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
		# A job that is requeued waits until its credential has expired.
		AuthInfo=socket=$cluster/munge.sock,cred_expire=5
		StateSaveLocation=$cluster/state
		SlurmdSpoolDir=$cluster/spool/%n
		SlurmctldPidFile=$cluster/slurmctld.pid
		SlurmdPidFile=$cluster/slurmd-%n.pid
		SlurmctldLogFile=$cluster/slurmctld.log
		SlurmdLogFile=$cluster/slurmd-%n.log
		ProctrackType=proctrack/linuxproc
		TaskPlugin=task/none
		JobAcctGatherType=jobacct_gather/none
		SwitchType=switch/none
		MpiDefault=none
		SelectType=select/cons_tres
		SelectTypeParameters=CR_CPU
		SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0
		SlurmdTimeout=6
		MessageTimeout=2
		TCPTimeout=1
		KillWait=5
		ReturnToService=2
		PreemptType=preempt/partition_prio
		PreemptMode=REQUEUE
		SlurmdParameters=config_overrides
	CONF
	for n in $(seq $nodes); do
		echo "NodeName=n$n NodeHostname=localhost NodeAddr=127.0.0.1 Port=$((port + n)) CPUs=$slots RealMemory=1000"
	done >>"$SLURM_CONF"
	cat >>"$SLURM_CONF" <<-CONF
		PartitionName=main Nodes=n[1-$nodes] Default=YES PriorityTier=1 GraceTime=2
		PartitionName=urgent Nodes=n[1-$nodes] PriorityTier=2 PreemptMode=OFF
	CONF
}

# until_true SECONDS COMMAND tries a command until it succeeds.
until_true() {
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.2
	done
}

idle_nodes() { [ "$(sinfo -h -N -p main -t idle -o %N | wc -l)" = $nodes ]; }

cluster_start() {
	cluster=$1
	mkdir -p "$cluster"
	export SLURM_CONF=$cluster/slurm.conf
	local program
	for program in munged slurmctld slurmd sbatch; do
		command -v "$program" >/dev/null || {
			bash .ci/install.sh slurmctld slurmd slurm-client munge
			break
		}
	done
	cluster_configure "$(free_port)"
	# --force: the folders above may be writable to others, which munged refuses
	setsid munged --foreground --force --key-file "$cluster/key" --socket "$cluster/munge.sock" --pid-file "$cluster/munged.pid" \
		--seed-file "$cluster/seed" --log-file "$cluster/munged.log" </dev/null >"$cluster/munged.out" 2>&1 &
	started munged
	until_true 10 munge -n -S "$cluster/munge.sock" || return 1
	setsid slurmctld -D -c </dev/null >"$cluster/slurmctld.out" 2>&1 &
	started slurmctld
	local n
	for n in $(seq $nodes); do power_on "$n"; done
	until_true 60 idle_nodes || { sinfo -N -l; tail -n 20 "$cluster"/*.log; return 1; }
}

# The namespace's first process stays when slurmd ends, and reaps what slurmd left.
power_on() {
	[ -z "${processes[n$1]:-}" ] || lose_power "$1"
	mkdir -p "$cluster/spool/n$1"
	setsid unshare --pid --fork --kill-child --mount-proc bash -c 'slurmd -D -N "$1" & while :; do wait; sleep 1 & done' node "n$1" \
		</dev/null >>"$cluster/node-n$1.out" 2>&1 &
	started "n$1"
}

# started notes the process that was just started. The shell does not report its end.
started() {
	processes[$1]=$!
	disown
}

# finish SIGNAL NAME ends a process that was started, and waits for its end.
finish() {
	local pid=${processes[$2]}
	unset "processes[$2]"
	kill "-$1" "$pid" 2>/dev/null || return 0
	until_true 10 test ! -e "/proc/$pid" || kill -KILL "$pid"
}

lose_power() { finish KILL "n$1"; }

lose_daemon() {
	local child
	for child in $(pgrep -P "$(pgrep -P "${processes[n$1]}")"); do
		[ "$(cat "/proc/$child/comm")" != slurmd ] || kill -KILL "$child"
	done
}

cluster_stop() {
	local name
	timeout 10 scancel -u root 2>/dev/null || true
	for name in "${!processes[@]}"; do
		case $name in n*) finish KILL "$name" ;; esac
	done
	for name in "${!processes[@]}"; do finish TERM "$name"; done
}

declare -A processes=()
