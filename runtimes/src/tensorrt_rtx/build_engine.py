"""Builds a TensorRT-RTX engine ahead of time, without a GPU, or says why it cannot be built.

usage: python3 -I -c PROGRAM WHEELS [REQUEST]

WHEELS is the folder of the wheels' packages, or empty where they are installed. REQUEST is JSON:
    {"model": FILE, "engine": FILE, "capabilities": ["SM80", ...],
     "profile": [{"input": NAME, "min": [...], "opt": [...], "max": [...]}, ...]}
Without it, only the version is told. The answer is one JSON object on standard output, tagged
with its "outcome"; an ending without one is a crash.
"""

import json
import os
import resource
import sys
import time

# A model makes up the sizes of its values: the kernel refuses what no engine of ours comes near.
MEMORY = 16 << 30
FILE = 2 << 30
MESSAGES = 20


def limit(what, size):
    """Lowers a limit of this process; one that is lower already stays."""
    hard = resource.getrlimit(what)[1]
    size = size if hard == resource.RLIM_INFINITY else min(size, hard)
    resource.setrlimit(what, (size, size))


def load(wheels):
    """The bindings, or the sentence why there are none."""
    if wheels:
        sys.path.insert(0, wheels)
    try:
        import tensorrt_rtx_bindings
    except ImportError as error:
        return None, str(error)
    return tensorrt_rtx_bindings, None


def build(trt, request):
    """The answer to one request; the engine goes to its file."""

    class Log(trt.ILogger):
        """Keeps what is wrong and what is doubtful; the rest is of no interest."""

        def __init__(self):
            trt.ILogger.__init__(self)
            self.faults = []
            self.warnings = []

        def log(self, severity, message):
            if severity.value > trt.ILogger.WARNING.value:
                return
            kept = self.warnings if severity == trt.ILogger.WARNING else self.faults
            if len(kept) < MESSAGES and message not in kept:
                kept.append(message)

    log = Log()

    def refused():
        return {"outcome": "builder", "messages": log.faults}

    start = time.monotonic()
    builder = trt.Builder(log)
    # Types are the graph's, as in TensorRT 11.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    with open(request["model"], "rb") as file:
        parsed = parser.parse(file.read())
    if not parsed:
        errors = [parser.get_error(i) for i in range(min(parser.num_errors, MESSAGES))]
        faults = [
            {
                "node": e.node_name(),
                "operator": e.node_operator(),
                "code": e.code().name,
                "reason": e.desc(),
            }
            for e in errors
        ]
        return {"outcome": "parser", "faults": faults} if faults else refused()

    config = builder.create_builder_config()
    targets = request["capabilities"]
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        if not config.set_compute_capability(getattr(trt.ComputeCapability, target), index):
            return refused()
    if request["profile"]:
        profile = builder.create_optimization_profile()
        for shapes in request["profile"]:
            profile.set_shape(*(shapes[key] for key in ("input", "min", "opt", "max")))
        if config.add_optimization_profile(profile) < 0:
            return refused()

    parse_seconds = time.monotonic() - start
    start = time.monotonic()
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        return refused()
    build_seconds = time.monotonic() - start
    with open(request["engine"], "wb") as file:
        file.write(engine)
    return {
        "outcome": "built",
        "parse_seconds": parse_seconds,
        "build_seconds": build_seconds,
        "layers": network.num_layers,
        "warnings": log.warnings,
    }


def main():
    # The libraries may print: the answer alone goes to standard output.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_AS, MEMORY)
    limit(resource.RLIMIT_FSIZE, FILE)
    wheels, *requests = sys.argv[1:]
    trt, fault = load(wheels)
    if trt is None:
        python = "{}.{}".format(*sys.version_info)
        answer = {"outcome": "missing", "python": python, "reason": fault}
    elif requests:
        try:
            answer = build(trt, json.loads(requests[0]))
        # What the bindings raise: the message tells what was wrong.
        except (AttributeError, MemoryError, OSError, RuntimeError, TypeError, ValueError) as error:
            message = f"{type(error).__name__}: {error}"
            answer = {"outcome": "builder", "messages": [message]}
    else:
        answer = {"outcome": "version", "version": trt.__version__}
    json.dump(answer, answers)
    answers.close()


if __name__ == "__main__":
    main()
