#!/usr/bin/env bash
# The path of GPUs on a real GPU API: WebGPU over Vulkan, on the software device that
# Debian's chromium carries. It takes longer for the whole Inception, at 299×299 pixels,
# than for all other cases; the one of 1/8 the width is among them.
set -euo pipefail
cd "$(dirname "$0")/.."
bash .ci/install.sh chromium libvulkan1
VK_DRIVER_FILES=$(dpkg -L chromium-common | grep '/vk_swiftshader_icd.json$') || { echo "chromium's package has no SwiftShader any more" >&2; exit 1; }
export VK_DRIVER_FILES VK_ICD_FILENAMES=$VK_DRIVER_FILES ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER=1
make --no-print-directory build DEVICE=webgpu
SKIP=inception-fid bash .ci/device.sh webgpu:0 float32
