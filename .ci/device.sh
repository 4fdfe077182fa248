#!/usr/bin/env bash
# What a device has to pass, in the order in which a fault would show:
#   .ci/device.sh DEVICE [PRECISION...]
# the reference cases in each precision that it has, steps whose states stay on it, the
# same bytes of a unit alone, beside others and after a restart, and FID beside the CPU's. SKIP names a case that is
# too much for the device. Needs bin/sagbench.
set -euo pipefail
cd "$(dirname "$0")/.."
device=$1
shift
bin/sagbench devices | sed '/^$/,$d'
row=$(bin/sagbench devices | awk -v d="$device" '$1 == d || $1 == d ":0" || index($1, d ":") == 1' | head -n 1)
[ -n "$row" ] || { echo "this machine has no $device" >&2; exit 1; }
read -ra all <<<"$(sed -E 's/.*  +//; s/,//g' <<<"$row")"
[ $# -gt 0 ] || set -- "${all[@]}"

# What a tensor may be off by, of its largest value. In float32 that of the CPU, or 5e-5
# where sines and exponentials are coarse (WebGPU) or not known, over the steps of a case.
# In tf32, and in the CPU's own emulations, eight of the type's roundings, 2⁻¹¹ or 2⁻⁸
# each: the emulations, which make no other errors, are off by up to seven.
declare -A tolerance=([float32]='--tolerance 5e-5' [tf32]='--tolerance 4e-3' [float16]='--tolerance 4e-3' [bfloat16]='--tolerance 3e-2')
[[ $device != openvino* ]] || tolerance[float32]='--tolerance 2e-5'
# On a device, three times what the CPU's emulation is off by on the same tensor. It rounds
# what an operator gives; a device may round within one as well, and norms, the longest, are
# of four operations: four times the variance, twice the error. The largest error among
# ten values, of which the smallest tensors are, may be half as large again as usual.
[[ $device == cpu ]] || { tolerance[float16]='--emulated 3'; tolerance[bfloat16]='--emulated 3'; }
# The families that have half precision. A trajectory in it leaves that of float32 step
# by step: only cases of one call bound anything.
half='adm-* iddpm-* classifier-* dit-* sd*-unet-*'
folder=../shared/cases
[ -d $folder ] || folder=experiments/refcase/testdata/cases
for precision in "$@"; do
	cases=()
	for c in $(grep -v '^#' .ci/cases); do
		[ -d "$folder/$c" ] && [ "$c" != "${SKIP:-}" ] || continue
		kind=$(sed -n 's/^kind: //p' "$folder/$c/case.yaml")
		case $precision-$kind in
		float32-forward | float32-sample) cases+=("$folder/$c") ;;
		*-forward) for pattern in $half; do [[ $c != $pattern ]] || cases+=("$folder/$c"); done ;;
		esac
	done
	echo "$device in $precision, with ${tolerance[$precision]}:"
	read -ra allowed <<<"${tolerance[$precision]}"
	bin/sagbench check --quiet --device "$device" --precision "$precision" "${allowed[@]}" "${cases[@]}"
done
SAGBENCH_TEST_DEVICE=$device go test -count=1 ./models/ort ./models/loop -run 'RunOn|Loop|NotFinite|Traffic'
SAGBENCH_TEST_DEVICE=$device go test -count=1 -tags device -run 'OfDevice$' -v ./experiments | grep -Ev '^(===|PASS$)'
