#!/bin/bash
# Everything of docs/gpu.md in one go on a machine with a card; what is printed goes to $OUT (default: build/gpu).
# Usage: session.sh [PART...]; parts: machine refused cuda workers many tests (default: all).
# Uses $PYTHON (default: python3), which needs bisect-trt's dependencies, pytest and, by part, TensorRT-RTX
# (refused), onnxruntime-gpu and PyTorch with onnxscript (cuda, workers). Nothing is installed, nothing is
# downloaded, the card's settings are left alone.
set -u
PYTHON=${PYTHON:-python3}
OUT=${OUT:-build/gpu}
mkdir -p "$OUT"
export PYTHON PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 COLUMNS=120 NO_COLOR=1
bt() { "$PYTHON" -c 'import sys; from bisect_trt.cli.app import main; sys.exit(main())' "$@"; }
step() { # NAME COMMAND...: its output, exit code and seconds
  local name=$1 start=$SECONDS; shift
  { echo "== $name"; echo "\$ $*"; timeout "${LIMIT:-150}" bash -c '"$@"' step "$@" 2>&1
    echo "exit code $?, $((SECONDS - start)) s"; } | tee -a "$OUT/session.log" | tail -n 40
}
memory() { nvidia-smi --query-compute-apps=pid,used_memory --format=csv,noheader; free -m | sed -n 2p; }
export -f bt memory
scratch=${SCRATCH:-$(mktemp -d)}
CUDA=ort:CUDAExecutionProvider

machine() {
  step card nvidia-smi --query-gpu=name,compute_cap,driver_version,memory.total,memory.used --format=csv
  step versions "$PYTHON" -c 'import sys, importlib.metadata as m; print(sys.version); [print(d.name, d.version) for d in m.distributions() if d.name.lower().startswith(("onnx", "tensorrt", "torch", "polygraphy"))]'
  step doctor bt doctor
}
refused() { # what is said of a card that TensorRT-RTX does not take
  for model in ok nms; do
    step "rtx refuses the card" bt check "models/$model.onnx" --target tensorrt-rtx
    step "rtx builds on request" bt check "models/$model.onnx" --target tensorrt-rtx --build-only
  done
  step "reduce refuses the card" bt reduce models/nms.onnx --target tensorrt-rtx --out "$scratch/no"
  step "reduce builds on request" bt reduce models/nms.onnx --target tensorrt-rtx --build-only --out "$scratch/nms"
  step environment grep -iE 'gpu|driver|cuda|cudnn|system|python|container' "$scratch/nms/ISSUE.md"
}
models() {
  [ -e "$scratch/stack.onnx" ] && return
  step "stack" "$PYTHON" -c 'import sys; sys.path.insert(0, "tests/gpu"); import onnx, gpu_models; onnx.save_model(gpu_models.chain(24, 1024, [32, 1024]), sys.argv[1])' "$scratch/stack.onnx"
  step "PyTorch's exports" "$PYTHON" -W ignore tests/gpu/export_models.py "$scratch"
}
cuda() { # check, scan and reduce on a real engine: TF32 and FP16, three models
  models
  for name in stack encoder cnn; do
    model=$scratch/$name.onnx exact="$CUDA?use_tf32=0" tf32="$CUDA?use_tf32=1"
    rms=1e-4 max=1e-3; [ $name = cnn ] && rms=3e-5 max=2e-4
    step "$name, FP32" bt check "$model" --target "$exact" --metric rms --rtol $rms
    step "$name, TF32" bt check "$model" --target "$tf32" --metric rms --rtol $rms
    step "$name, FP16" bt check "$model" --target "$exact" --precision fp16 --metric rms --rtol $rms
    step "$name, TF32: scan" bt scan "$model" --target "$tf32" --metric rms --rtol $rms --out "$scratch/scan-$name"
    step "$name, TF32: reduce" bt reduce "$model" --target "$tf32" --metric rms --rtol $rms --out "$scratch/tf32-$name"
    step "$name, FP16: reduce" bt reduce "$model" --target "$exact" --precision fp16 --rtol $max --out "$scratch/fp16-$name"
    step "$name, FP16: repro.py" "$PYTHON" "$scratch/fp16-$name/repro.py"
    step "$name, FP16: verify" bt verify "$scratch/fp16-$name" --target "$exact"
  done
}
workers() { # several workers with a CUDA context each, one killed in the middle: the same bytes
  models
  for k in 1 3; do
    step "$k workers" bt reduce "$scratch/encoder.onnx" --target "$CUDA?use_tf32=1" --rtol 1e-3 --workers $k --out "$scratch/w$k"
  done
  (sleep 10; memory; kill -9 "$(pgrep -f multiprocessing.forkserver | tail -n 1)"; echo "one was killed") >"$OUT/killed.txt" 2>&1 &
  step "3 workers, one killed" bt reduce "$scratch/encoder.onnx" --target "$CUDA?use_tf32=1" --rtol 1e-3 --workers 3 --out "$scratch/w4"
  wait
  step "memory while three workers run" cat "$OUT/killed.txt"
  step "the same bytes" bash -c 'cd "$1" && sha256sum w[134]/repro.onnx w[134]/inputs.npz w[134]/repro.py' x "$scratch"
}
many() { # one worker on each GPU
  models
  step "two GPUs" bt reduce "$scratch/encoder.onnx" --target "$CUDA?use_tf32=1" --rtol 1e-3 --device 0,1 --out "$scratch/two"
}
tests() { LIMIT=300 step tests "$PYTHON" -m pytest -q -rsA -m gpu tests/gpu tests/test_tensorrt.py -p no:cacheprovider; }

for part in "${@:-all}"; do
  if [ "$part" = all ]; then machine; refused; cuda; workers; many; tests; else "$part"; fi
done
