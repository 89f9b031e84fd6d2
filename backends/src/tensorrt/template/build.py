#!/usr/bin/env python3
"""Builds the TensorRT engine of @{title}.

On the GPU that will run it, with the Python package tensorrt. Made by emoc. Every setting is read
from plan.json beside this file; build.sh does the same with trtexec.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Numpy's names for element types, by TensorRT's.
DTYPES = {"FLOAT": "float32", "HALF": "float16", "INT64": "int64", "INT32": "int32"}


def fail(why):
    sys.exit(f"build.py: {why}")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plan", type=Path, default=HERE / "plan.json", help="default: here")
    parser.add_argument("--precision", default="f32", help="which model (default f32)")
    parser.add_argument("--output", type=Path, help="where the engine goes (default: here)")
    parser.add_argument("--triton", action="store_true", help="put it into the Triton repository")
    parser.add_argument("--timing-cache", type=Path, help="measured kernels, to build again faster")
    parser.add_argument("--tf32", action="store_true", help="round float32 convolutions")
    parser.add_argument("--version-compatible", action="store_true", help="run on later versions")
    parser.add_argument(
        "--hardware-compatible",
        choices=["none", "ampere+", "sameComputeCapability"],
        help="run on other GPUs too",
    )
    parser.add_argument("--check", action="store_true", help="only parse the model, build nothing")
    args = parser.parse_args()
    if args.triton and args.output:
        parser.error("--triton and --output contradict each other")
    return args


def read_plan(path):
    """The plan, and a sentence if it cannot be used."""
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        fail(f"cannot read {path}: {error.strerror}")
    except ValueError as error:
        fail(f"{path} is no plan of a bundle: {error}")
    if not isinstance(plan, dict) or plan.get("producer") != "emoc":
        fail(f"{path} is no plan of a bundle")
    if plan.get("schema") != @{schema}:
        fail(f"{path} has schema {plan.get('schema')}, and this script reads @{schema}")
    return plan


def choose(plan, precision):
    models = {model["precision"]: model for model in plan["models"]}
    if precision not in models:
        fail(f"there is no model of precision {precision!r}: choose {' or '.join(models)}")
    return models[precision]


def check_file(plan, name, folder):
    """The path of a file that is the one plan.json describes."""
    path = folder / name
    digest = next((file["sha256"] for file in plan["files"] if file["file"] == name), None)
    if digest is None:
        fail(f"plan.json lists no file {name}: copy the bundle again")
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        fail(f"cannot read {path}: {error.strerror}")
    if found != digest:
        fail(f"{path} is not the file that plan.json describes: copy the bundle again")
    return path


def import_tensorrt(plan):
    try:
        import tensorrt as trt
    except ImportError as error:
        fail(f"the Python package tensorrt is needed ({error}): pip install it, or use build.sh")
    version = tuple(int(part) for part in trt.__version__.split(".")[:2])
    oldest = tuple(int(part) for part in plan["tensorrt"]["oldest"].split("."))
    # TensorRT-RTX, of the same interface, counts from 1.
    if not trt.__name__.startswith("tensorrt_rtx") and version < oldest:
        needed = plan["tensorrt"]["oldest"]
        fail(f"this is TensorRT {trt.__version__}, and the network needs {needed} or later")
    return trt


def parse(trt, logger, builder, path):
    """The network as TensorRT reads it, strongly typed: the types are those of the file."""
    # From TensorRT 11 on, networks are strongly typed anyway, and the flag may be gone.
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        errors = [str(parser.get_error(index)) for index in range(parser.num_errors)]
        fail("TensorRT does not take " + "\n  ".join([str(path), *errors]))
    return network


def check_network(network, plan):
    """The network has the inputs and outputs that plan.json says."""

    def described(tensor):
        shape = [size if isinstance(size, int) else -1 for size in tensor["shape"]]
        return tensor["name"], tensor["dtype"], shape

    def found(tensor):
        dtype = tensor.dtype.name
        return tensor.name, DTYPES.get(dtype, dtype), list(tensor.shape)

    inputs = [found(network.get_input(index)) for index in range(network.num_inputs)]
    outputs = [found(network.get_output(index)) for index in range(network.num_outputs)]
    for what, have, want in [("inputs", inputs, "inputs"), ("outputs", outputs, "outputs")]:
        expected = [described(tensor) for tensor in plan[want]]
        if sorted(have) != sorted(expected):
            fail(f"the network's {what} are {have}, and plan.json says {expected}")


def configure(trt, builder, plan, args):
    settings = plan["builder"]
    config = builder.create_builder_config()
    config.profiling_verbosity = getattr(
        trt.ProfilingVerbosity, settings["profiling_verbosity"].upper()
    )
    if not (args.tf32 or settings["tf32"]):
        config.clear_flag(trt.BuilderFlag.TF32)
    if args.version_compatible or settings["version_compatible"]:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    level = args.hardware_compatible or settings["hardware_compatibility"]
    if level != "none":
        names = {"ampere+": "AMPERE_PLUS", "sameComputeCapability": "SAME_COMPUTE_CAPABILITY"}
        found = getattr(trt.HardwareCompatibilityLevel, names[level], None)
        if found is None:
            fail(f"TensorRT {trt.__version__} knows no hardware compatibility {level!r}")
        config.hardware_compatibility_level = found
    for shapes in plan["profiles"]:
        profile = builder.create_optimization_profile()
        profile.set_shape(shapes["input"], shapes["min"], shapes["opt"], shapes["max"])
        if config.add_optimization_profile(profile) < 0:
            wanted = f"{shapes['min']} to {shapes['max']}"
            fail(f"TensorRT does not take {shapes['input']} from {wanted}")
    return config


def write(path, data):
    """Writes a file that is there whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror}")


def build(trt, logger, builder, network, config, cache_path, output):
    try:
        known = cache_path.read_bytes() if cache_path.exists() else b""
    except OSError as error:
        fail(f"cannot read {cache_path}: {error.strerror}")
    cache = config.create_timing_cache(known)
    config.set_timing_cache(cache, ignore_mismatch=False)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        fail("TensorRT builds no engine of the network; its own message is above")
    write(output, bytes(engine))
    write(cache_path, bytes(config.get_timing_cache().serialize()))
    loaded = trt.Runtime(logger).deserialize_cuda_engine(engine)
    if loaded is None:
        fail(f"TensorRT does not load the engine it built; it is in {output} all the same")
    inspector = loaded.create_engine_inspector()
    layers = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    write(output.with_name(output.name + ".layers.json"), layers.encode())


def main():
    args = arguments()
    plan = read_plan(args.plan)
    folder = args.plan.resolve().parent
    model = choose(plan, args.precision)
    path = check_file(plan, model["file"], folder)
    trt = import_tensorrt(plan)
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = parse(trt, logger, builder, path)
    check_network(network, plan)
    if args.check:
        print(f"TensorRT {trt.__version__} takes {path}: {network.num_layers} layers")
        return
    output = folder / model["engine"]
    if args.triton:
        output = folder / "triton" / plan["name"] / "1" / "model.plan"
    output = args.output or output
    config = configure(trt, builder, plan, args)
    cache_path = args.timing_cache or folder / plan["builder"]["timing_cache"]
    build(trt, logger, builder, network, config, cache_path, output)
    print(f"built {output} for TensorRT {trt.__version__} and this GPU")


if __name__ == "__main__":
    main()
