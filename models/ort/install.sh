#!/bin/sh
# Fetches the pinned ONNX Runtime through pip into the user's cache folder:
#   install.sh cpu|cuda
# The wheel's sha256 is checked by pip against the list below before anything
# of it is used; nothing of Python is needed afterwards. Does nothing when the
# library is there already.
set -eu

version=1.31.1
build=${1:-cpu}
folder=${XDG_CACHE_HOME:-$HOME/.cache}/sagbench/onnxruntime-$version-$build
[ -e "$folder/libonnxruntime.so.$version" ] && exit 0

machine=$(uname -m)
case "$build-$machine" in
cpu-x86_64) package=onnxruntime hash=74a6a52994616c4d18b33db1e13c226333a70a6ba07480a5cab9c2a50dff1430 ;;
cpu-aarch64) package=onnxruntime hash=dcaedc50333876f3829ab966b242147f0e548229e29c36fe44622ecf748c25ee ;;
cuda-x86_64) package=onnxruntime-gpu hash=f659529e07c21ec6b6179fd1bfaf82ffb7c3dc9c0916e18f6f313f9a690891be ;;
*)
	echo "install.sh: no pinned ONNX Runtime for '$build' on $machine (cpu on x86_64 and aarch64, cuda on x86_64)." >&2
	echo "Set SAGBENCH_ONNXRUNTIME to the path of a libonnxruntime.so, 1.27 or later." >&2
	exit 1
	;;
esac

if ! python3 -m pip --version >/dev/null 2>&1; then
	echo "install.sh: python3 with pip is needed once, to fetch ONNX Runtime $version." >&2
	echo "Without it: set SAGBENCH_ONNXRUNTIME to the path of a libonnxruntime.so, 1.27 or later." >&2
	exit 1
fi

echo "Fetching ONNX Runtime $version ($build) into $folder" >&2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "$package==$version --hash=sha256:$hash" >"$work/requirements.txt"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
	--only-binary=:all: --implementation cp --python-version 3.13 --abi cp313 \
	--platform "manylinux_2_28_$machine" --dest "$work" --requirement "$work/requirements.txt"
python3 -m zipfile -e "$work"/onnxruntime*.whl "$work/wheel"

# The folder appears whole or not at all.
mkdir -p "$work/library" "$(dirname "$folder")"
cp "$work"/wheel/onnxruntime/capi/libonnxruntime*.so* "$work/library/"
cp "$work"/wheel/onnxruntime/LICENSE "$work"/wheel/onnxruntime/ThirdPartyNotices.txt "$work/library/"
staged=$(mktemp -d "$folder.XXXXXX")
chmod 755 "$staged"
cp "$work"/library/* "$staged/"
rm -rf "$folder"
mv "$staged" "$folder"
