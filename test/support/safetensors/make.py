"""
How the files beside this one were made, by the reference implementation:

    pip install safetensors==0.8.0 numpy==2.4.6 ml_dtypes==0.6.0
    python make.py
"""
import ml_dtypes
import numpy as np
from safetensors import TensorSpec, serialize
from safetensors.numpy import save

# Of every type that numpy has, and scalars, empty tensors and names that are hard on JSON and on JavaScript.
numpy_types = ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32",
               "float64", "complex64"]
tensors = {f"type {name}": np.array([[0, 1], [1, 0], [1, 1]]).astype(name) for name in numpy_types}
tensors["limits"] = np.array([-2**63, 2**63 - 1], dtype=np.int64)
tensors["scalar"] = np.array(0.1, dtype=np.float32)
tensors["empty"] = np.zeros((0, 3), dtype=np.float32)
tensors["__proto__"] = np.array([1.5, -2.5], dtype=np.float64)
tensors["constructor"] = np.array([7], dtype=np.uint8)
tensors["quote \" backslash \\ newline \n tab \t é 漢 😀"] = np.array([255], dtype=np.uint8)
tensors[""] = np.array([1], dtype=np.uint8)
open("numpy.safetensors", "wb").write(save(tensors, metadata={"format": "np", "__proto__": "é \" \n"}))

# Every code of the floats of a byte and less, and codes of those of 16 bits, with what they are worth as 32-bit floats
# by ml_dtypes. The reference implementation for Python writes no F6: there are only the worths of its codes.
def spec(dtype, array):
    kept.append(array)
    return TensorSpec(dtype=dtype, shape=list(array.shape), data_ptr=array.ctypes.data, data_len=array.nbytes)


kept, specs = [], {}
f16 = np.concatenate([np.arange(0, 65536, 97), [0x0001, 0x03FF, 0x0400, 0x7BFF, 0x7C00, 0x7C01, 0x7E00, 0x8000, 0xFC00]])
bf16 = np.concatenate([np.arange(0, 65536, 101), [0x0001, 0x007F, 0x0080, 0x7F7F, 0x7F80, 0x7FC0, 0x8000, 0xFF80]])
every = np.arange(256, dtype=np.uint8)
for name, dtype, codes, view in [
    ("F16", "float16", f16.astype(np.uint16), np.float16),
    ("BF16", "bfloat16", bf16.astype(np.uint16), ml_dtypes.bfloat16),
    ("F8_E5M2", "float8_e5m2", every, ml_dtypes.float8_e5m2),
    ("F8_E4M3", "float8_e4m3fn", every, ml_dtypes.float8_e4m3fn),
    ("F8_E8M0", "float8_e8m0fnu", every, ml_dtypes.float8_e8m0fnu),
    ("F8_E5M2FNUZ", "float8_e5m2fnuz", every, ml_dtypes.float8_e5m2fnuz),
    ("F8_E4M3FNUZ", "float8_e4m3fnuz", every, ml_dtypes.float8_e4m3fnuz),
]:
    specs[name] = spec(dtype, codes)
    specs[name + " worth"] = spec("float32", codes.view(view).astype(np.float32))
pairs = np.arange(8, dtype=np.uint8) * 2
specs["F4"] = spec("float4_e2m1fn_x2", pairs | (pairs + 1) << 4)
specs["F4 worth"] = spec("float32", np.arange(16, dtype=np.uint8).view(ml_dtypes.float4_e2m1fn).astype(np.float32))
for name, view in [("F6_E2M3", ml_dtypes.float6_e2m3fn), ("F6_E3M2", ml_dtypes.float6_e3m2fn)]:
    specs[name + " worth"] = spec("float32", np.arange(64, dtype=np.uint8).view(view).astype(np.float32))
open("floats.safetensors", "wb").write(serialize(specs))

# Nothing but metadata.
open("empty.safetensors", "wb").write(save({}, metadata={"format": "pt"}))
