"""One tiny kernel of one library, in a process of its own: `python probes.py NAME [DEVICE]`.

Knows nothing of the guard, which starts this file with the interpreter of the environment it looks
at: standard library only, and each library loaded by name where it is used. Prints a line of JSON:
{"ok": true, "what": …} or {"ok": false, "error": …, "code": CUDA error or 0}.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import sys
from typing import Any

COUNT = 1000
tl: Any = None  # triton.language, once it is loaded: kernels look it up here
# out[i] = i + 1, as PTX any driver compiles: whether the driver compiles and launches at all.
PTX = b"""
.version 6.3
.target sm_50
.address_size 64
.visible .entry fill(.param .u64 out, .param .u32 count)
{
    .reg .pred %p<2>;
    .reg .b32 %r<6>;
    .reg .b64 %d<5>;
    ld.param.u64 %d1, [out];
    ld.param.u32 %r1, [count];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r4, %r2, %r3, %r4;
    setp.ge.u32 %p1, %r4, %r1;
    @%p1 bra done;
    cvta.to.global.u64 %d2, %d1;
    mul.wide.u32 %d3, %r4, 4;
    add.s64 %d4, %d2, %d3;
    add.u32 %r5, %r4, 1;
    st.global.u32 [%d4], %r5;
done:
    ret;
}
\0"""
SOURCE = b"""extern "C" __global__ void fill(unsigned *out, unsigned count) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) out[i] = i + 1;
}\0"""


class CudaError(RuntimeError):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Driver:
    """libcuda with a context on one device."""

    def __init__(self, index: int) -> None:
        self.library = ctypes.CDLL("libcuda.so.1")
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self.call("cuInit", 0)
        self.call("cuDeviceGet", ctypes.byref(device), index)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.call("cuCtxSetCurrent", context)
        number = ctypes.c_int()
        self.capability = []
        for which in (75, 76):
            self.call("cuDeviceGetAttribute", ctypes.byref(number), which, device)
            self.capability.append(number.value)

    def call(self, name: str, *arguments: Any) -> None:
        status = getattr(self.library, name)(*arguments)
        if status:
            text = ctypes.c_char_p()
            self.library.cuGetErrorString(status, ctypes.byref(text))
            words = (text.value or b"unknown").decode()
            raise CudaError(status, f"{name}: error {status}, {words}")

    def run(self, image: Any) -> None:
        """Load a module (PTX or a cubin), run its kernel `fill`, check what it wrote."""
        module, kernel, out = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_uint64()
        self.call("cuModuleLoadData", ctypes.byref(module), image)
        self.call("cuModuleGetFunction", ctypes.byref(kernel), module, b"fill")
        self.call("cuMemAlloc_v2", ctypes.byref(out), 4 * COUNT)
        count = ctypes.c_uint(COUNT)
        addresses = [ctypes.cast(ctypes.byref(item), ctypes.c_void_p) for item in (out, count)]
        arguments = (ctypes.c_void_p * 2)(*addresses)
        blocks = (COUNT + 127) // 128
        self.call("cuLaunchKernel", kernel, blocks, 1, 1, 128, 1, 1, 0, None, arguments, None)
        got = (ctypes.c_uint * COUNT)()
        self.call("cuMemcpyDtoH_v2", got, out, 4 * COUNT)
        check(list(got) == list(range(1, COUNT + 1)))


def check(right: bool) -> None:
    if not right:
        raise RuntimeError("the kernel ran and its result is wrong")


def probe_driver(index: int) -> str:
    Driver(index).run(PTX)
    return "PTX compiled by the driver"


def probe_nvrtc(index: int) -> str:
    """The library that the variable NVRTC names: compiles for this GPU, and the result runs."""
    driver = Driver(index)
    library = ctypes.CDLL(os.environ["NVRTC"])
    target = "sm_{}{}".format(*driver.capability)
    program, size = ctypes.c_void_p(), ctypes.c_size_t()

    def call(name: str, *arguments: Any) -> None:
        status = getattr(library, name)(*arguments)
        if status:
            library.nvrtcGetErrorString.restype = ctypes.c_char_p
            words = library.nvrtcGetErrorString(status).decode()
            log = b""
            if program and not library.nvrtcGetProgramLogSize(program, ctypes.byref(size)):
                buffer = ctypes.create_string_buffer(size.value)
                library.nvrtcGetProgramLog(program, buffer)
                log = buffer.value
            raise RuntimeError(f"{name}: {words} {log.decode(errors='replace')}".strip())

    call("nvrtcCreateProgram", ctypes.byref(program), SOURCE, b"fill.cu", 0, None, None)
    options = (ctypes.c_char_p * 1)(f"--gpu-architecture={target}".encode())
    call("nvrtcCompileProgram", program, 1, options)
    call("nvrtcGetCUBINSize", program, ctypes.byref(size))
    image = ctypes.create_string_buffer(size.value)
    call("nvrtcGetCUBIN", program, image)
    driver.run(image)
    return f"compiled for {target}"


def probe_torch(index: int) -> str:
    torch = importlib.import_module("torch")
    device = torch.device("cuda", index)
    values = torch.arange(COUNT, device=device, dtype=torch.float32) + 1
    check(float(values.sum()) == COUNT * (COUNT + 1) / 2)
    square = torch.eye(4, device=device) * 2
    check(float((square @ square).trace()) == 16)
    inverse = torch.linalg.inv(square)
    check(float(inverse.trace()) == 2)
    query = torch.ones(1, 1, 8, 16, device=device, dtype=torch.float16)
    out = torch.nn.functional.scaled_dot_product_attention(query, query, query)
    check(float(out.float().mean()) == 1)
    return f"{torch.__version__}: sum, product, inverse, attention"


def probe_triton(index: int) -> str:
    torch = importlib.import_module("torch")
    triton = importlib.import_module("triton")
    global tl
    tl = importlib.import_module("triton.language")
    torch.cuda.set_device(index)

    @triton.jit  # type: ignore[untyped-decorator, unused-ignore]
    def fill(out, count, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
        at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        tl.store(out + at, at + 1, mask=at < count)

    out = torch.zeros(COUNT, device="cuda", dtype=torch.int32)
    fill[((COUNT + 127) // 128,)](out, COUNT, BLOCK=128)
    check(out.tolist() == list(range(1, COUNT + 1)))
    return str(triton.__version__)


def probe_cupy(index: int) -> str:
    cupy = importlib.import_module("cupy")
    with cupy.cuda.Device(index):
        check(int((cupy.arange(COUNT) + 1).sum()) == COUNT * (COUNT + 1) // 2)
        out = cupy.zeros(COUNT, cupy.uint32)
        kernel = cupy.RawKernel(SOURCE[:-1].decode(), "fill")
        kernel(((COUNT + 127) // 128,), (128,), (out, cupy.uint32(COUNT)))
        check(out.tolist() == list(range(1, COUNT + 1)))
    return f"{cupy.__version__}: a kernel of its own, one by NVRTC"


def probe_xformers(index: int) -> str:
    torch = importlib.import_module("torch")
    ops = importlib.import_module("xformers.ops")
    query = torch.ones(1, 32, 2, 64, device=torch.device("cuda", index), dtype=torch.float16)
    out = ops.memory_efficient_attention(query, query, query)
    check(float(out.float().mean()) == 1)
    return str(importlib.import_module("xformers").__version__)


def probe_flash_attn(index: int) -> str:
    torch = importlib.import_module("torch")
    flash_attn = importlib.import_module("flash_attn")
    query = torch.ones(1, 32, 2, 64, device=torch.device("cuda", index), dtype=torch.float16)
    out = flash_attn.flash_attn_func(query, query, query)
    check(float(out.float().mean()) == 1)
    return str(flash_attn.__version__)


def probe_spconv(index: int) -> str:
    torch = importlib.import_module("torch")
    spconv = importlib.import_module("spconv.pytorch")
    device = torch.device("cuda", index)
    at = torch.tensor([[0, 1, 1, 1], [0, 2, 2, 2]], dtype=torch.int32, device=device)
    convolve = spconv.SubMConv3d(16, 16, 3, bias=False).to(device)
    with torch.no_grad():
        convolve.weight.fill_(1)
        scene = spconv.SparseConvTensor(torch.ones(2, 16, device=device), at, [4, 4, 4], 1)
        out = convolve(scene).features
    check(out.shape == (2, 16) and bool((out > 15.9).all()))
    return str(importlib.import_module("spconv").__version__)


def probe_fixture(index: int) -> str:
    """A library that exports `int launch(int device)`: the CUDA error of its own kernel."""
    code = ctypes.CDLL(os.environ["FIXTURE"]).launch(index)
    if code:
        raise CudaError(code, f"CUDA error {code}")
    return "ran"


def main() -> None:
    name, index = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0
    try:
        told = {"ok": True, "what": globals()["probe_" + name](index)}
    except BaseException as error:  # noqa: BLE001 - whatever befalls the library is the answer
        code = getattr(error, "code", 0)
        text = f"{type(error).__name__}: {error}"
        told = {"ok": False, "error": text, "code": code if isinstance(code, int) else 0}
    sys.stdout.write("\n" + json.dumps(told) + "\n")
    sys.stdout.flush()
    os._exit(0)  # a library's own clean-up after a CUDA error may hang or crash


if __name__ == "__main__":
    main()
