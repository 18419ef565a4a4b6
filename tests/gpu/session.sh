#!/bin/bash
# Everything of docs/gpu.md in one go on a machine with a card; what is printed goes to $OUT (default: build/gpu).
# Uses $PYTHON (default: python3), which needs bisect-trt's dependencies, pytest and, for the CUDA provider,
# onnxruntime-gpu. Nothing is installed, nothing is downloaded, the card's settings are left alone.
set -u
PYTHON=${PYTHON:-python3}
OUT=${OUT:-build/gpu}
mkdir -p "$OUT"
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1 COLUMNS=120
bt() { "$PYTHON" -c 'import sys; from bisect_trt.cli.app import main; sys.exit(main())' "$@"; }
step() { # NAME COMMAND...: its output, exit code and seconds
  local name=$1 start=$SECONDS; shift
  echo "== $name: $*"
  { echo "\$ $*"; timeout "${LIMIT:-150}" bash -c '"$@"' step "$@" 2>&1; echo "exit code $?, $((SECONDS - start)) s"; } | tee -a "$OUT/session.log" | tail -n 40
}
export -f bt; export PYTHON
scratch=$(mktemp -d)
step card nvidia-smi --query-gpu=name,compute_cap,driver_version,memory.total,memory.used --format=csv
step versions "$PYTHON" -c 'import sys, importlib.metadata as m; print(sys.version); [print(d.name, d.version) for d in m.distributions() if d.name.lower().startswith(("onnx", "tensorrt", "torch", "polygraphy"))]'
step doctor bt doctor
for model in ok nms; do
  step "rtx refuses the card" bt check "models/$model.onnx" --target tensorrt-rtx
  step "rtx builds on request" bt check "models/$model.onnx" --target tensorrt-rtx --build-only
done
step "reduce refuses the card" bt reduce models/nms.onnx --target tensorrt-rtx --out "$scratch/no"
step "reduce builds on request" bt reduce models/nms.onnx --target tensorrt-rtx --build-only --out "$scratch/nms"
"$PYTHON" -c 'import sys; sys.path.insert(0, "tests/gpu"); import onnx, gpu_models; onnx.save_model(gpu_models.chain(24, 1024, [32, 1024]), sys.argv[1])' "$scratch/stack.onnx"
for tf32 in 0 1; do
  target="ort:CUDAExecutionProvider?use_tf32=$tf32"
  step "stack, tf32=$tf32" bt check "$scratch/stack.onnx" --target "$target" --metric rms --rtol 1e-4
done
step scan bt scan "$scratch/stack.onnx" --target "$target" --metric rms --rtol 1e-4 --out "$scratch/scan"
step reduce bt reduce "$scratch/stack.onnx" --target "$target" --metric rms --rtol 1e-4 --workers 3 --out "$scratch/stack"
LIMIT=300 step tests "$PYTHON" -m pytest -q -rs -m gpu tests/gpu tests/test_tensorrt.py -p no:cacheprovider
