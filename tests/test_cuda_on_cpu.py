"""What runs CUDA kernels on the CPU: does it compute what they say, and refuse what CUDA forbids?"""

import cuda_on_cpu
import numpy as np
import pytest
from cuda_on_cpu import CudaError, RawModule


def kernel(body, parameters="int* a", others=""):
    code = f'{others}\nextern "C" __global__ void f({parameters}) {{ {body} }}'
    return RawModule(code=code).get_function("f")


@pytest.fixture(params=range(3))
def seed(request, monkeypatch):
    monkeypatch.setattr(cuda_on_cpu, "seed", request.param)


def test_indices():
    a = np.zeros((2, 3, 4, 5), np.int32)
    body = """const int block = blockIdx.y * gridDim.x + blockIdx.x;
              const int thread = threadIdx.y * blockDim.x + threadIdx.x;
              a[block * blockDim.x * blockDim.y + thread] += 1000 * block + thread;"""
    kernel(body)((3, 2), (5, 4), (a,))
    np.testing.assert_array_equal(a.reshape(6, 20), 1000 * np.arange(6)[:, None] + np.arange(20))


@pytest.mark.usefixtures("seed")
@pytest.mark.parametrize("threads", [1, 31, 32, 100, 1024])
def test_a_tree_of_sums(threads):
    a = np.arange(3 * threads, dtype=np.int32).reshape(3, threads)
    out = np.zeros(3, np.int32)
    body = """extern __shared__ int part[];
              part[threadIdx.x] = a[blockIdx.x * blockDim.x + threadIdx.x];
              __syncthreads();
              for (int n = 1; n < blockDim.x; n *= 2) {
                const int other = threadIdx.x + n < blockDim.x ? part[threadIdx.x + n] : 0;
                __syncthreads();
                part[threadIdx.x] += other;
                __syncthreads();
              }
              if (threadIdx.x == 0) out[blockIdx.x] = part[0];"""
    kernel(body, "const int* a, int* out")((3,), (threads,), (a, out), shared_mem=4 * threads)
    np.testing.assert_array_equal(out, a.sum(1))


@pytest.mark.usefixtures("seed")
def test_warp_operations():
    a = np.arange(96, dtype=np.int32) ** 2
    body = """int v = a[threadIdx.x];
              for (int m = 16; m; m /= 2) v = max(v, __shfl_xor_sync(~0u, v, m));
              a[threadIdx.x] = v + __shfl_sync(~0u, int(threadIdx.x), 3);"""
    kernel(body)((1,), (96,), (a,))
    np.testing.assert_array_equal(a, np.repeat([31**2 + 3, 63**2 + 35, 95**2 + 67], 32))


@pytest.mark.usefixtures("seed")
def test_what_lanes_before_and_any_lane_have():
    a, found = np.arange(64, dtype=np.int32), np.zeros(64, np.int32)
    body = """const int v = a[threadIdx.x], before = __shfl_up_sync(~0u, v, 4);
              found[threadIdx.x] = __any_sync(~0u, v == 40) + 2 * __any_sync(~0u, v < 0);
              a[threadIdx.x] = before + 100 * __shfl_sync(~0u, v, 35);  // of lane 3
              found[threadIdx.x] += 10 * __popc(v);"""
    kernel(body, "int* a, int* found")((1,), (64,), (a, found))
    lane, warp = np.arange(64) % 32, np.arange(64) // 32
    np.testing.assert_array_equal(a, 32 * warp + np.where(lane < 4, lane, lane - 4) + 100 * (32 * warp + 3))
    np.testing.assert_array_equal(found, warp + 10 * np.array([int(k).bit_count() for k in range(64)]))


@pytest.mark.usefixtures("seed")
def test_atomic_sums():
    a = np.zeros(7, np.int32)
    kernel("atomicAdd(a + threadIdx.x % 7, int(threadIdx.x));")((5,), (70,), (a,))
    np.testing.assert_array_equal(a, [5 * sum(range(k, 70, 7)) for k in range(7)])


def test_threads_run_in_any_order(monkeypatch):
    orders = []
    for seed in range(4):
        monkeypatch.setattr(cuda_on_cpu, "seed", seed)
        a = np.zeros(33, np.int32)
        kernel("a[threadIdx.x] = atomicAdd(a + 32, 1);")((1,), (32,), (a,))
        assert sorted(a[:32]) == list(range(32))
        orders.append(tuple(a))
    assert len(set(orders)) == 4


@pytest.mark.parametrize(
    ("body", "launch", "message"),
    [
        ("if (threadIdx.x) __syncthreads();", ((1,), (8,)), "never reach a __syncthreads"),
        ("if (threadIdx.x < 8) __syncwarp();", ((1,), (32,)), "do not take part"),
        ("__syncwarp();", ((1,), (48,)), "do not take part"),
        ("if (threadIdx.x % 2) __syncthreads(); else __syncwarp();", ((1,), (32,)), "do not take part"),
        ("a[0] = __shfl_xor_sync(~0u, 1, 32);", ((1,), (32,)), "a lane that does not exist"),
        ("extern __shared__ int s[]; s[2] = 1;", ((1,), (1,), 8), "beyond its dynamic shared memory"),
        ("a[4] = 1;", ((1,), (1,)), "writes beyond argument 0"),
        ("((uint4*)(a + 1))->x = 1;", ((1,), (1,)), "a misaligned address"),
        ("float4 v = *(float4*)(a + 2); a[0] = v.x;", ((1,), (1,)), "a misaligned address"),
        ("a[-1] = 1;", ((1,), (1,)), "writes beyond argument 0"),
        ("", ((1,), (1025,)), "a block of 1025 threads"),
        ("", ((0,), (32,)), "a grid that is empty"),
        ("", ((1, 65536), (32,)), "a grid that is empty or too large"),
        ("", ((1,), (32,), 48 * 1024 + 1), "more than 48 KiB"),
        ("__shared__ int s[100]; a[0] = s[threadIdx.x];", ((1,), (32,), 48 * 1024 - 300), "more than 48 KiB"),
    ],
)
def test_what_cuda_forbids(body, launch, message):
    a = np.zeros(4, np.int32)
    run = kernel(body)
    with pytest.raises(CudaError, match=message):
        run(*launch[:2], (a,), *launch[2:])
    kernel("__syncthreads(); a[threadIdx.x] = 7;")((1,), (4,), (a,))  # and the next launch works
    assert (a == 7).all()


def test_a_slice_is_as_misaligned_as_it_was():
    run = kernel("b[0] = *(const int*)a;", "const unsigned char* a, int* b")
    a, b = np.arange(20, dtype=np.uint8), np.zeros(1, np.int32)
    run((1,), (1,), (a[4:], b))
    assert b[0] == 0x07060504
    with pytest.raises(CudaError, match="a misaligned address"):
        run((1,), (1,), (a[3:], b))


@pytest.mark.parametrize("where", ["extern __shared__ float s[];", "__shared__ float s[4];"])
def test_shared_memory_is_not_zero(where):
    a = np.zeros(4, np.float32)
    run = kernel(f"{where} a[threadIdx.x] = s[threadIdx.x]; s[threadIdx.x] = 1;", "float* a")
    for _ in range(2):
        run((2,), (4,), (a,), 16)
        assert np.isnan(a).all()


def test_what_lies_beyond_an_array_is_not_a_number():
    a = np.zeros(4, np.float32)
    kernel("a[0] = a[4] + 1; a[1] = a[-1] * 0;", "float* a")((1,), (1,), (a,))
    assert np.isnan(a[:2]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(2), np.int32(1)), "argument 0 .* takes >f4"),
        ((np.zeros(2, "f4"), np.int64(1)), "argument 1 .* takes i4"),
        ((np.zeros(2, "f4"), 1), "argument 1 .* takes i4"),
        ((np.zeros(2, "f4"), np.zeros(1, "i4")), "argument 1"),
        ((np.zeros(2, "f4"),), "takes 2 arguments, and 1 came"),
        ((np.zeros((4, 4), "f4")[:, 1], np.int32(1)), "with gaps"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(CudaError, match=message):
        kernel("a[0] = b;", "float* a, int b")((1,), (1,), arguments)


def test_floats_are_not_summed_in_any_order():
    with pytest.raises(CudaError, match="sums of floats would depend on the order"):
        kernel("atomicAdd(a, 1.f);", "float* a")
