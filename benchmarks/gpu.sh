#!/usr/bin/env bash
# Batch-1 latency of a run's float, FP16 and INT8 files on this machine's NVIDIA GPU, in whatever engines it has.
#
#     benchmarks/gpu.sh RUN_FOLDER
#
# Our own runtimes measure TensorRT, TensorRT-RTX and ONNX Runtime; NVIDIA's trtexec and polygraphy, where they are on
# the PATH, measure the same files independently. Exit code 2: nothing here can measure.
set -euo pipefail

needs() {
  echo "$1" >&2
  echo "Needed: an NVIDIA GPU with its driver, and at least one of tensorrt or tensorrt-rtx-cu13 (with cuda-python)," >&2
  echo "onnxruntime-gpu, trtexec. See docs/engines.md." >&2
  exit 2
}

[[ $# -eq 1 && -d $1 ]] || needs "Usage: $0 RUN_FOLDER (a folder of .onnx files)."
run=$1
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-$here/../.venv/bin/python}
[[ -x $(command -v "$python") ]] || python=python3

nvidia-smi --list-gpus >/dev/null 2>&1 || needs "nvidia-smi finds no GPU."
nvidia-smi --query-gpu=name,driver_version,clocks.max.sm --format=csv,noheader

measured=0
"$python" "$here/gpu_latency.py" "$run" && measured=1

# INPUT and its size for a batch of one: "image 1x224x224x3".
input_of() {
  "$python" -c '
import sys, onnx
x = onnx.load(sys.argv[1], load_external_data=False).graph.input[0]
print(x.name, "x".join(str(d.dim_value or 1) for d in x.type.tensor_type.shape.dim))' "$1"
}

for file in "$run"/*.onnx; do
  read -r name size < <(input_of "$file")
  if command -v trtexec >/dev/null; then
    echo "trtexec, $(basename "$file"):"
    # --stronglyTyped: the file alone says what is INT8 and FP16.
    if log=$(trtexec --onnx="$file" --stronglyTyped --shapes="$name:$size" --useCudaGraph --noDataTransfers 2>&1); then
      grep -E "GPU Compute Time:|Throughput:" <<<"$log"
      measured=1
    else
      tail -3 <<<"$log"
    fi
  fi
  if command -v polygraphy >/dev/null; then
    echo "polygraphy, $(basename "$file"), TensorRT beside ONNX Runtime:"
    shape="$name:[${size//x/,}]"
    polygraphy run "$file" --trt --onnxrt --strongly-typed --input-shapes "$shape" --trt-min-shapes "$shape" \
      --trt-opt-shapes "$shape" --trt-max-shapes "$shape" --iterations 100 --warm-up 20 --atol 0.05 2>&1 |
      grep -E "Average inference time|Median inference time|Difference|PASSED|FAILED" || true
  fi
done

[[ $measured -eq 1 ]] || needs "There is a GPU, but no engine could run the files on it."
