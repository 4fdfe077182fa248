#!/bin/sh
# Makes a virtual environment with the public evaluators at the versions that
# requirements.txt pins, in the user's cache folder, and prints the path of its
# Python. The Linux wheel of torch needs the CUDA libraries to start, also on a
# CPU: the environment takes 6 GB, and a few minutes. `install.sh found` only prints
# the path, and nothing where the environment has not been made.
set -eu

here=$(dirname "$0")
key=$(cksum <"$here/requirements.txt" | cut -d' ' -f1)
folder=${XDG_CACHE_HOME:-$HOME/.cache}/sagbench/peers-$key
if [ ! -e "$folder/complete" ]; then
	[ "${1:-}" != found ] || exit 0
	echo "Installing the evaluators to compare with into $folder" >&2
	rm -rf "$folder"
	python3 -m venv "$folder" >&2
	"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$here/requirements.txt" >&2
	touch "$folder/complete"
fi
echo "$folder/bin/python"
