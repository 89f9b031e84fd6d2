#!/bin/sh
# Compares the built engine of @{title} with ONNX Runtime and with the golden outputs.
# Made by emoc for this network; the tolerances are those of plan.json.

set -eu

usage() {
    cat <<'USAGE'
usage: sh verify.sh [--precision @{precisions}] [--engine FILE]

Runs the golden input through the ONNX model in ONNX Runtime and through the engine that build.sh
built (default engine.<precision>.plan in this folder), and compares their outputs with each other
and with golden/. Needs: pip install polygraphy onnxruntime numpy tensorrt
USAGE
}

fail() {
    echo "verify.sh: $1" >&2
    exit 1
}

refuse() {
    echo "verify.sh: $1 (see sh verify.sh --help)" >&2
    exit 2
}

precision=f32
engine=
while [ $# -gt 0 ]; do
    case $1 in
        --precision | --engine)
            [ $# -ge 2 ] || refuse "$1 needs a value"
            case $1 in
                --precision) precision=$2 ;;
                --engine) engine=$2 ;;
            esac
            shift
            ;;
        --help | -h)
            usage
            exit 0
            ;;
        *) refuse "'$1' is no option" ;;
    esac
    shift
done

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
case $precision in
@{cases}
    *) refuse "there is no model of precision '$precision': choose @{precisions}" ;;
esac
engine=${engine:-$here/engine.$precision.plan}
[ -f "$engine" ] || fail "$engine does not exist: build it with sh build.sh --precision $precision"
command -v polygraphy >/dev/null || fail "polygraphy is needed: pip install polygraphy"
for package in numpy onnxruntime tensorrt; do
    python3 -c "import $package" 2>/dev/null || fail "the Python package $package is needed: pip install $package"
done

work=$(mktemp -d) || fail "no temporary folder can be made"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

polygraphy run "$here/model.$precision.onnx" --onnxrt \
    --data-loader-script "$here/golden/golden.py" --save-outputs "$work/onnxrt.json" ||
    fail "ONNX Runtime does not run the model"
# Word splitting is wanted: one tolerance for each output.
# shellcheck disable=SC2086
polygraphy run "$engine" --model-type engine --trt \
    --data-loader-script "$here/golden/golden.py" --load-outputs "$work/onnxrt.json" \
    --check-error-stat max --rtol 0 --atol $tolerances --save-outputs "$work/trt.json" ||
    fail "the engine differs from ONNX Runtime by more than the tolerance, or does not run"
python3 "$here/golden/golden.py" "$precision" "$work/trt.json" ||
    fail "the engine differs from the golden outputs by more than the tolerance"
echo "the engine agrees with ONNX Runtime and with the golden outputs"
