"""The runtimes that bench-onnx and bench-rust time, from Python's package index.

Run as a program (`bench_runtimes.py RUNTIME MODEL THREADS SIZE`) it is a worker of bench-rust:
for every line on its input it runs the model once and prints the wall and CPU time in seconds.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "onnxruntime": "onnxruntime==1.32.0",
    "openvino": "openvino==2026.4.1",
    "tract": "tract==0.23.9",
    "numpy": "numpy",
}


def inside_venv(packages=PACKAGES):
    """Re-run this program in the checkout's virtual environment, made if need be."""
    python = ROOT / ".venv/bin/python"
    if Path(sys.prefix) == ROOT / ".venv":
        return
    if not python.exists():
        subprocess.check_call([sys.executable, "-m", "venv", ROOT / ".venv"])
    have = subprocess.run(
        [python, "-c", "import " + ", ".join(packages)], capture_output=True
    )
    if have.returncode != 0:
        subprocess.check_call([python, "-m", "pip", "install", "-q", *packages.values()])
    os.execv(python, [str(python), *sys.argv])


def onnxruntime_session(path, threads=1):
    """A function that runs the model once in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def openvino_session(path, threads=1):
    """A function that runs the model once in OpenVINO, in float32."""
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda x: request.infer([x])[0]


def tract_session(path, threads=1):
    """A function that runs the model once in tract, which has one thread."""
    import tract

    assert threads == 1
    model = tract.onnx().load(str(path)).into_model().into_runnable()
    return lambda x: model.run([x])[0].to_numpy()


RUNTIMES = {
    "onnxruntime": onnxruntime_session,
    "openvino": openvino_session,
    "tract": tract_session,
}


def cpu_name():
    """What /proc/cpuinfo calls the CPU, and which vector instructions it has."""
    text = Path("/proc/cpuinfo").read_text()
    field = lambda name: next(
        (line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith(name)), ""
    )
    has = [name for name in ("avx2", "avx512f") if name in field("flags").split()]
    return f"{field('model name')} ({', '.join(has)})"


def work(runtime, path, threads, size):
    """The worker: one run for every line on the input."""
    import numpy

    x = numpy.random.default_rng(0).standard_normal((1, 3, size, size)).astype("float32")
    run = RUNTIMES[runtime](path, threads)
    run(x)
    print("ready", flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        run(x)
        print(time.perf_counter() - wall, time.process_time() - cpu, flush=True)


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
