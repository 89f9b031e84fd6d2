#!/bin/sh
# Builds the TensorRT engine of @{title} with trtexec, on the GPU that will run it.
# Made by emoc for this network; the settings are those of plan.json. build.py does the same in Python.

set -eu

usage() {
    cat <<'USAGE'
usage: sh build.sh [OPTION...]

  --precision @{precisions}    which model (default f32)
  --output FILE          where the engine goes (default engine.<precision>.plan in this folder)
  --triton               put the engine into triton/@{name}/1/ instead
  --timing-cache FILE    measured kernels, to build again faster (default @{timing_cache} in this folder)
  --measure              run the engine too, and report its latency
  --tf32                 let float32 convolutions round their operands to 10 bits: faster, but outside
                         the tolerance of verify.sh
  --version-compatible   the engine also runs on later minor versions of the same major TensorRT;
                         larger, and may be slower
  --hardware-compatible LEVEL
                         the engine also runs on other GPUs: `ampere+` (Ampere and later), or
                         `sameComputeCapability`; may be slower
  --dry-run              print the command instead of running it; trtexec still tells its version
  --help

trtexec is looked for in $TRTEXEC, in PATH and in /usr/src/tensorrt/bin.
USAGE
}

fail() {
    echo "build.sh: $1" >&2
    exit 1
}

refuse() {
    echo "build.sh: $1 (see sh build.sh --help)" >&2
    exit 2
}

precision=f32
output=
triton=
timing_cache=
measure=
tf32=
version_compatible=
hardware_compatible=none
dry_run=
while [ $# -gt 0 ]; do
    case $1 in
        --precision | --output | --timing-cache | --hardware-compatible)
            [ $# -ge 2 ] || refuse "$1 needs a value"
            case $1 in
                --precision) precision=$2 ;;
                --output) output=$2 ;;
                --timing-cache) timing_cache=$2 ;;
                --hardware-compatible) hardware_compatible=$2 ;;
            esac
            shift
            ;;
        --triton) triton=yes ;;
        --measure) measure=yes ;;
        --tf32) tf32=yes ;;
        --version-compatible) version_compatible=yes ;;
        --dry-run) dry_run=yes ;;
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
case $hardware_compatible in
    none | ampere+ | sameComputeCapability) ;;
    *) refuse "'$hardware_compatible' is no level of hardware compatibility" ;;
esac
if [ -n "$triton" ]; then
    [ -z "$output" ] || refuse "--triton and --output contradict each other"
    output=$here/triton/@{name}/1/model.plan
fi
output=${output:-$here/engine.$precision.plan}
timing_cache=${timing_cache:-$here/@{timing_cache}}
[ -d "$(dirname -- "$output")" ] || fail "the folder of $output does not exist"

model=$here/model.$precision.onnx
[ -f "$model" ] || fail "$model is missing: the bundle is incomplete"
if command -v sha256sum >/dev/null; then
    case $(sha256sum <"$model") in
        "$sha256"*) ;;
        *) fail "$model is not the file that plan.json describes: copy the bundle again" ;;
    esac
fi

trtexec=${TRTEXEC:-$(command -v trtexec || echo /usr/src/tensorrt/bin/trtexec)}
[ -x "$trtexec" ] || fail "trtexec is not here: install TensorRT, or set TRTEXEC to its path (it is part of the container nvcr.io/nvidia/tensorrt and of JetPack)"

# The banner says [TensorRT v101501]: two digits each behind the major number; before 10, 8601.
help=$("$trtexec" --help 2>&1) || true
number=$(printf '%s\n' "$help" | sed -n 's/.*\[TensorRT v\([0-9][0-9]*\)\].*/\1/p' | head -n 1)
[ -n "$number" ] || fail "$trtexec does not say its version: is it TensorRT's?"
if [ "$number" -ge 100000 ]; then
    major=$((number / 10000))
    minor=$((number / 100 % 100))
else
    major=$((number / 1000))
    minor=$((number / 100 % 10))
fi
if [ "$major" -lt @{oldest_major} ] || { [ "$major" -eq @{oldest_major} ] && [ "$minor" -lt @{oldest_minor} ]; }; then
    fail "this is TensorRT $major.$minor, and the network needs @{oldest} or later"
fi
if [ "$major" -gt @{newest_major} ]; then
    echo "build.sh: TensorRT $major is newer than this bundle, which was made for @{oldest} to @{newest_major}; going on" >&2
fi

set -- "--onnx=$model" "--saveEngine=$output.tmp"
# From TensorRT 11 on, networks are strongly typed anyway, and the switch is gone.
if [ "$major" -eq 10 ]; then
    set -- "$@" --stronglyTyped
fi
@{shapes}
[ -n "$tf32" ] || set -- "$@" --noTF32
set -- "$@" "--timingCacheFile=$timing_cache" --profilingVerbosity=detailed "--exportLayerInfo=$output.layers.json"
[ -z "$version_compatible" ] || set -- "$@" --versionCompatible
[ "$hardware_compatible" = none ] || set -- "$@" "--hardwareCompatibilityLevel=$hardware_compatible"
[ -n "$measure" ] || set -- "$@" --skipInference

if [ -n "$dry_run" ]; then
    echo "$trtexec $*"
    exit 0
fi
"$trtexec" "$@" || {
    rm -f "$output.tmp"
    fail "trtexec failed; its own message is above"
}
[ -s "$output.tmp" ] || fail "trtexec wrote no engine"
mv "$output.tmp" "$output"
echo "built $output for TensorRT $major.$minor and this GPU; its layers are in $output.layers.json"
