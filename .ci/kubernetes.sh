#!/usr/bin/env bash
# The job of `submit --kubernetes` on a real Kubernetes of one node: pods that are killed
# and evicted, a second job meanwhile, a wrong experiment. The results have to be those of
# one process, byte for byte. Not part of CI: Kubernetes is built from its Go modules (ten
# minutes of two cores, kept in Go's cache), and the image from Debian's packages, as no
# registry of images is asked. Needs root and bin/sagbench.
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD
work=$(mktemp -d /tmp/sagbench-kubernetes-XXXXXX)
export KUBECONFIG=$work/config CONTAINERS_STORAGE_CONF=$work/storage.conf
ctr=(ctr --address "$work/containerd.sock" --namespace k8s.io)

declare -A processes=()
start() {
	setsid "${@:2}" >"$work/$1.log" 2>&1 </dev/null &
	processes[$1]=$!
	disown
}
finish() { [ -z "${processes[$1]:-}" ] || kill "${processes[$1]}" 2>/dev/null || true; }
ending() {
	local status=$? name
	for name in kubelet scheduler controllers apiserver; do finish "$name"; done
	"${ctr[@]}" task ls -q 2>/dev/null | xargs -r -n 1 "${ctr[@]}" task rm -f >/dev/null 2>&1 || true
	for name in containerd etcd; do finish "$name"; done
	sleep 2
	awk -v at="$work/" 'index($2, at) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount
	[ $status = 0 ] || tail -n 5 "$work"/*.log
	rm -rf "$work" /var/log/pods/default_tiny-*
	exit $status
}
trap ending EXIT
fail() {
	echo "FAIL: $*" >&2
	kubectl get jobs,pods >&2
	tail -qn 2 /var/log/pods/default_tiny-*/sagbench/*.log >&2
	exit 1
}
until_true() {
	local end=$((SECONDS + $1))
	until "${@:2}" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || return 1
		sleep 1
	done
}

# kubernetes builds its four programs as one, of the version that go.mod has the types of.
kubernetes() {
	local version=v1.${1#v0.} module
	mkdir "$work/kubernetes" && cd "$work/kubernetes"
	printf 'module kubernetes\n\ngo 1.26\n' >go.mod
	module=$(go mod download -json "k8s.io/kubernetes@$version" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
	{
		printf '\nrequire k8s.io/kubernetes %s\n\nreplace (\n' "$version"
		sed -n 's|^\t\(k8s.io/[a-z-]*\) => ./staging.*|\t\1 => \1 '"$1"'|p' "$module"
		echo ')'
	} >>go.mod
	cat >main.go <<-'GO'
		package main

		import (
			"context"
			"os"

			"github.com/spf13/cobra"
			"k8s.io/component-base/cli"
			apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
			controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
			scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
			kubelet "k8s.io/kubernetes/cmd/kubelet/app"
		)

		func main() {
			commands := map[string]func() *cobra.Command{
				"apiserver": apiserver.NewAPIServerCommand, "controllers": controllers.NewControllerManagerCommand,
				"scheduler": func() *cobra.Command { return scheduler.NewSchedulerCommand() },
				"kubelet":   func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
			}
			os.Args = os.Args[1:]
			os.Exit(cli.Run(commands[os.Args[0]]()))
		}
	GO
	go mod tidy >/dev/null 2>&1
	go build -trimpath -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version" -o "$work/kube" .
	cd "$repository"
}

# images builds the program's image, on one of Debian in place of the published ones, and
# the image of a process that waits, which every pod has.
images() {
	printf '[storage]\ndriver = "vfs"\nrunroot = "%s/run"\ngraphroot = "%s/graph"\n' "$work" "$work" >"$CONTAINERS_STORAGE_CONF"
	debootstrap --variant=minbase --include=ca-certificates bookworm "$work/debian" >"$work/debootstrap.log"
	tar -C "$work/debian" -c . | podman import -q - localhost/debian >/dev/null
	local builder
	builder=$(buildah from localhost/debian)
	buildah copy -q "$builder" "$(go env GOROOT)" /usr/local/go >/dev/null
	buildah config --env PATH=/usr/local/go/bin:/usr/sbin:/usr/bin:/sbin:/bin "$builder"
	buildah commit -q "$builder" localhost/golang >/dev/null
	buildah bud --isolation chroot --build-arg BASE=localhost/debian --build-arg BUILDER=localhost/golang -t localhost/sagbench:ci \
		--volume /etc/ssl/certs:/etc/ssl/certs:ro --volume /usr/local/share/ca-certificates:/usr/local/share/ca-certificates:ro . >"$work/image.log" 2>&1
	printf '#include <unistd.h>\nint main(void) { for (;;) pause(); }\n' | gcc -static -x c -o "$work/pause" -
	printf 'FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause"]\n' | buildah bud -q -f - -t localhost/pause:ci "$work" >/dev/null
	local image
	for image in sagbench pause; do
		podman save -q --format docker-archive -o "$work/$image.tar" "localhost/$image:ci"
		"${ctr[@]}" images import "$work/$image.tar" >/dev/null
	done
}

containers() {
	mkdir "$work/cni"
	cat >"$work/cni/10-ci.conflist" <<-JSON
		{"cniVersion": "0.4.0", "name": "ci", "plugins": [{"type": "ptp", "ipam": {"type": "host-local", "subnet": "10.88.77.0/24", "dataDir": "$work/addresses"}}]}
	JSON
	cat >"$work/containerd.toml" <<-TOML
		version = 2
		root = "$work/containerd"
		state = "$work/containerd-state"
		[grpc]
		address = "$work/containerd.sock"
		[plugins."io.containerd.grpc.v1.cri"]
		sandbox_image = "localhost/pause:ci"
		disable_apparmor = true
		restrict_oom_score_adj = true
		[plugins."io.containerd.grpc.v1.cri".containerd]
		snapshotter = "native"
		[plugins."io.containerd.grpc.v1.cri".cni]
		bin_dir = "/usr/lib/cni"
		conf_dir = "$work/cni"
	TOML
	start containerd containerd --config "$work/containerd.toml"
	until_true 30 "${ctr[@]}" version || fail "no containerd"
}

cluster() {
	openssl genrsa -out "$work/key" 2048 2>/dev/null
	openssl rsa -in "$work/key" -pubout -out "$work/key.pub" 2>/dev/null
	echo 'ci,ci,1,system:masters' >"$work/tokens"
	kubectl config set-cluster ci --server=https://127.0.0.1:16443 --insecure-skip-tls-verify >/dev/null
	kubectl config set-credentials ci --token=ci >/dev/null
	kubectl config set-context ci --cluster=ci --user=ci >/dev/null
	kubectl config use-context ci >/dev/null
	cat >"$work/kubelet.yaml" <<-YAML
		apiVersion: kubelet.config.k8s.io/v1beta1
		kind: KubeletConfiguration
		authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
		authorization: {mode: AlwaysAllow}
		containerRuntimeEndpoint: unix://$work/containerd.sock
		cgroupDriver: cgroupfs
		cgroupsPerQOS: false
		enforceNodeAllocatable: []
		failSwapOn: false
		failCgroupV1: false
		address: 127.0.0.1
		port: 16250
		healthzPort: 16248
		evictionHard: {nodefs.available: "0%", imagefs.available: "0%"}
	YAML
	local etcd=http://127.0.0.1:16379 peer=http://127.0.0.1:16380
	start etcd etcd --data-dir "$work/etcd" --listen-client-urls $etcd --advertise-client-urls $etcd --listen-peer-urls $peer \
		--initial-advertise-peer-urls $peer --initial-cluster default=$peer
	start apiserver "$work/kube" apiserver --etcd-servers=$etcd --bind-address=127.0.0.1 --advertise-address=127.0.0.1 --secure-port=16443 \
		--service-cluster-ip-range=10.0.0.0/24 --authorization-mode=AlwaysAllow --token-auth-file="$work/tokens" --cert-dir="$work/certificates" \
		--service-account-issuer=https://ci --service-account-key-file="$work/key.pub" --service-account-signing-key-file="$work/key" \
		--disable-admission-plugins=ServiceAccount
	until_true 120 kubectl get --raw /readyz || fail "no API server"
	start controllers "$work/kube" controllers --kubeconfig="$KUBECONFIG" --service-account-private-key-file="$work/key" --leader-elect=false \
		--bind-address=127.0.0.1 --secure-port=16257
	start scheduler "$work/kube" scheduler --kubeconfig="$KUBECONFIG" --leader-elect=false --bind-address=127.0.0.1 --secure-port=16259
	start kubelet "$work/kube" kubelet --config="$work/kubelet.yaml" --kubeconfig="$KUBECONFIG" --hostname-override=ci --root-dir="$work/kubelet" \
		--cert-dir="$work/certificates"
	until_true 120 kubectl wait --for=condition=Ready node/ci --timeout=5s || fail "the node is not ready"
	kubectl create -f - >/dev/null <<-YAML
		{apiVersion: v1, kind: PersistentVolume, metadata: {name: data}, spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteMany], storageClassName: "", hostPath: {path: $data}}}
		---
		{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data}, spec: {accessModes: [ReadWriteMany], storageClassName: "", volumeName: data, resources: {requests: {storage: 1Gi}}}}
	YAML
}

# submit is that of a user whom nobody on this machine is.
submit() {
	setpriv --reuid 12345 --regid 12345 --clear-groups env -u HOME "$work/bin/sagbench" submit "$data/tiny.yaml" --results "$data/results" \
		--kubernetes --image localhost/sagbench:ci --completions 3 --volume "data:$data" --device cpu --threads 1 --heartbeat 1s --stale 5s --quiet "$@"
}
some_images() { [ "$(find "$data/results" -path '*/samples/*.npz' | wc -l)" -ge "$1" ]; }
pods() { kubectl get pods --field-selector status.phase=Running -o name; }
complete() { [ "$(kubectl get jobs -o jsonpath='{.items[*].status.succeeded}')" = "3 3" ]; }

refused() { [ "$(kubectl get jobs -o jsonpath='{.items[*].status.conditions[?(@.type=="Failed")].reason}')" = PodFailurePolicy ]; }

for one in etcd:etcd-server containerd:containerd runc:runc kubectl:kubernetes-client buildah:buildah podman:podman debootstrap:debootstrap \
	openssl:openssl /usr/lib/cni/ptp:containernetworking-plugins; do
	command -v "${one%%:*}" >/dev/null || bash .ci/install.sh "${one#*:}"
done
chmod 755 "$work"
data=$work/data
mkdir -p "$data" "$work/bin" "$work/lib/sagbench"
cp bin/sagbench "$work/bin"
cp -r "${XDG_CACHE_HOME:-$HOME/.cache}"/sagbench/onnxruntime-*-cpu "$work/lib/sagbench"
cp -r models/pretrained "$data/models"
sed -e 's|\.\./models/pretrained/|models/|g' -e '/^rows:/,$d' -e '/^bootstrap:/d' -e '/^trace:/d' -e 's/^name: .*/name: tiny/' -e 's/^samples: .*/samples: 64/' -e 's/^batch: .*/batch: 2/' \
	configs/table1-fashion.yaml >"$data/tiny.yaml"
cat >>"$data/tiny.yaml" <<-YAML
	rows:
	  - label: uncond.
	    model: {checkpoint: models/adm-uncond.pt}
	    sweep: {guidance.sag.scale: [0, 0.5]}
YAML
chown -R 12345:12345 "$data"
bin/sagbench run "$data/tiny.yaml" --results "$work/expected" --device cpu --quiet >/dev/null 2>&1

echo "building Kubernetes and the image"
kubernetes "$(go list -m -f '{{.Version}}' k8s.io/api)"
containers
images
cluster

submit
until_true 300 some_images 6 || fail "no images"
mapfile -t running < <(pods)
kill -KILL "$(pgrep -f "^sagbench run $data/" | head -n 1)"
victim=$(basename "${running[2]}")
echo '{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "'"$victim"'", "namespace": "default"}}' |
	kubectl create --raw "/api/v1/namespaces/default/pods/$victim/eviction" -f - >/dev/null
submit
until_true 900 complete || fail "the jobs do not end"
[ ! -e "$data/results/tiny/.work" ] || fail "left in .work: $(find "$data/results/tiny/.work")"
diff -r "$work/expected" "$data/results" || fail "these are not the results of one process"
failures=$(kubectl get jobs -o jsonpath='{.items[*].status.failed}')
[ "$failures" = 1 ] || fail "$failures pods count as failed, expected the one that was killed"
echo "ok   a pod killed, a pod evicted, a second job meanwhile"

submit --dry-run
sed 's|- "--results"|- "samples=0"\n            - "--results"|' "$data/results/tiny/.work/job.yaml" | kubectl create -f -
until_true 120 refused || fail "exit status 2 does not fail the job"
echo "ok   a wrong experiment fails at once"
echo "2 passed, 0 failed"
