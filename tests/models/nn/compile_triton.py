"""Compiles Triton kernels for one card: `python FILE TRITON_FOLDER CAPABILITY`, cases on stdin.

A process of its own with that Triton first on its path, and no torch. A case is {module (below
models/nn), kernel, types, constants, warps, stages, fusion}; prints a list of what each became:
bytes of shared memory, registers, stack and local bytes of a thread, and whether its PTX has matrix
instructions, asynchronous copies, and products that a sum may take before they are rounded.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from inspect import signature
from pathlib import Path

FOLDER, CAPABILITY = Path(sys.argv[1]), int(sys.argv[2])
KERNELS = Path(__file__).resolve().parents[3] / "models/nn"
sys.path.insert(0, str(FOLDER))


def kernel_of(module: str, name: str):
    if module not in sys.modules:
        spec = importlib.util.spec_from_file_location(module, KERNELS / f"{module}.py")
        sys.modules[module] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[module])
    return getattr(sys.modules[module], name)


def compiled(case: dict):
    """As a launch does where pointers, and sizes marked so, are multiples of 16."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel, types = kernel_of(case["module"], case["kernel"]), case["types"]
    aligned = [kernel.arg_names.index(name) for name, kind in types.items() if kind[0] == "*"]
    aligned += [kernel.arg_names.index(name) for name in case.get("aligned", [])]
    if "constants" in signature(ASTSource).parameters:  # Triton 3.2
        from triton.backends.compiler import AttrsDescriptor

        attributes = AttrsDescriptor.from_hints(dict.fromkeys(aligned, 16))
        source = ASTSource(kernel, types, constants=case["constants"], attrs=attributes)
    else:
        attributes = {(place,): [["tt.divisibility", 16]] for place in aligned}
        types = types | dict.fromkeys(case["constants"], "constexpr")
        source = ASTSource(kernel, types, constexprs=case["constants"], attrs=attributes)
    options = {"num_warps": case["warps"], "num_stages": case["stages"]}
    options["enable_fp_fusion"] = bool(case.get("fusion", True))
    return triton.compile(source, target=GPUTarget("cuda", CAPABILITY, 32), options=options)


def report(case: dict) -> dict[str, int | bool]:
    result = compiled(case)
    ptx = result.asm["ptx"]
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(result.asm["cubin"])
        reader = FOLDER / "triton/backends/nvidia/bin/cuobjdump"
        command = [str(reader), "-res-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack, local = re.search(r"REG:(\d+) STACK:(\d+).*LOCAL:(\d+)", usage).groups()
    return {
        "shared": result.metadata.shared,
        "registers": int(registers),
        "stack": int(stack),
        "local": int(local),
        "wgmma": "wgmma.mma_async" in ptx,
        "mma": "mma.sync" in ptx,
        "copies": "cp.async.cg.shared.global" in ptx,
        "contracts": bool(re.search(r"\bfma\.|\b(mul|add|sub)\.b?f(16|32)", ptx)),
    }


if __name__ == "__main__":
    print(json.dumps([report(case) for case in json.load(sys.stdin)]))
