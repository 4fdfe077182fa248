#!/bin/sh
# Fetches the pinned ONNX Runtime, and for a device of another provider that
# provider's plugin, through pip into the user's cache folder:
#   install.sh cpu|cuda|webgpu|openvino|tensorrt-rtx
# The wheels' sha256 are checked by pip against the list below before anything
# of them is used; nothing of Python is needed afterwards. Does nothing when the
# libraries are there already.
set -eu

version=1.31.1
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sagbench
machine=$(uname -m)

# fetch PACKAGE==VERSION HASH FOLDER INSIDE unpacks the libraries, the licences and
# the list of the files of a wheel, which are in its folder INSIDE.
fetch() {
	if ! python3 -m pip --version >/dev/null 2>&1; then
		echo "install.sh: python3 with pip is needed once, to fetch $1." >&2
		echo "For the runtime alone, without it: set SAGBENCH_ONNXRUNTIME to the path of a libonnxruntime.so, 1.27 or later." >&2
		exit 1
	fi
	echo "Fetching $1 into $3" >&2
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	echo "$1 --hash=sha256:$2" >"$work/requirements.txt"
	python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
		--only-binary=:all: --implementation cp --python-version 3.13 --abi cp313 --abi none \
		--platform "manylinux_2_28_$machine" --dest "$work" --requirement "$work/requirements.txt"
	python3 -m zipfile -e "$work"/onnxruntime*.whl "$work/wheel"

	# The folder appears whole or not at all.
	mkdir -p "$cache"
	staged=$(mktemp -d "$3.XXXXXX")
	chmod 755 "$staged"
	find "$work/wheel/$4" "$work"/wheel/*.dist-info \( -name '*.so*' -o -name '*.json' -o -iname '*license*' -o -iname '*notices*' \
		-o -iname '*acknowledgements*' -o -iname '*third-party*' -o -name RECORD \) -type f -exec cp {} "$staged/" \;
	rm -rf "$3"
	mv "$staged" "$3"
	rm -rf "$work"
}

runtime() {
	folder=$cache/onnxruntime-$version-$1
	[ -e "$folder/libonnxruntime.so.$version" ] && return
	case "$1-$machine" in
	cpu-x86_64) package=onnxruntime hash=74a6a52994616c4d18b33db1e13c226333a70a6ba07480a5cab9c2a50dff1430 ;;
	cpu-aarch64) package=onnxruntime hash=dcaedc50333876f3829ab966b242147f0e548229e29c36fe44622ecf748c25ee ;;
	cuda-x86_64) package=onnxruntime-gpu hash=f659529e07c21ec6b6179fd1bfaf82ffb7c3dc9c0916e18f6f313f9a690891be ;;
	*)
		echo "install.sh: no pinned ONNX Runtime for '$1' on $machine (cpu on x86_64 and aarch64, cuda on x86_64)." >&2
		echo "Set SAGBENCH_ONNXRUNTIME to the path of a libonnxruntime.so, 1.27 or later." >&2
		exit 1
		;;
	esac
	fetch "$package==$version" $hash "$folder" onnxruntime/capi
}

plugin() {
	case "$1-$machine" in
	webgpu-x86_64) package=onnxruntime-ep-webgpu release=0.4.0 inside=onnxruntime_ep_webgpu hash=5d8c961eda91a88961cad1fb7621f389f006b18497d6ea9ecf96f729f066cbfb ;;
	webgpu-aarch64) package=onnxruntime-ep-webgpu release=0.4.0 inside=onnxruntime_ep_webgpu hash=17f660db53b1a509c63e721ac6784a2daa1c4e91a968523ee9986505ee5b0a55 ;;
	openvino-x86_64) package=onnxruntime-ep-openvino release=1.8.1 inside=onnxruntime_ep_openvino hash=3832643158c8c187fcab6db661cde2a8c06a2b3559d95d0f2411ac0e51c5e924 ;;
	tensorrt-rtx-x86_64) package=onnxruntime-ep-nv-tensorrt-rtx-cu13 release=0.5.0 inside=onnxruntime_ep_nv_tensorrt_rtx hash=32f575c633d171b4edf4b53d3bb22b72a6c9c0a850d2982ce9a788a5d40d3298 ;;
	*)
		echo "install.sh: no pinned provider for '$1' on $machine (webgpu on x86_64 and aarch64; cuda, openvino, tensorrt-rtx on x86_64)." >&2
		exit 1
		;;
	esac
	folder=$cache/$package-$release
	[ -e "$folder/RECORD" ] || fetch "$package==$release" $hash "$folder" $inside
}

case ${1:-cpu} in
cpu | cuda) runtime "${1:-cpu}" ;;
*)
	[ -e "$cache/onnxruntime-$version-cuda/libonnxruntime.so.$version" ] || runtime cpu
	plugin "$1"
	;;
esac
