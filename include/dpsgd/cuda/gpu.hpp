/// A CUDA device: memory, a stream, kernels and cuBLAS. Compiled by nvcc alone; cuda/emulator.hpp has the same face.
///
/// One stream, so the order of calls is the order of work; nothing waits for the device but wait(). Every call is checked:
/// what fails throws dpsgd::error with CUDA's name for it.
#pragma once

#if !defined(__CUDACC__)
#error "dpsgd: dpsgd/cuda.hpp is for nvcc; compile this file as CUDA, or include dpsgd/dpsgd.hpp for the CPU"
#endif

#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "dpsgd/core/error.hpp"
#include "dpsgd/core/view.hpp"
#include "dpsgd/cuda/kernel.hpp"

/// nvcc's own answer, while it compiles, to what no macro tells: is this number set?
extern "C" __device__ int __nvvm_reflect(const void* name);

namespace dpsgd::cuda {

namespace detail {

/// Throws dpsgd::error unless CUDA says that all is well.
inline void check(cudaError_t status, const char* doing, source_place where = source_place::here()) {
  if (status != cudaSuccess)
    throw error(text(doing, ": ", cudaGetErrorName(status), ": ", cudaGetErrorString(status), " [", where.file, ":",
                     where.line, "]"));
}
inline void check(cublasStatus_t status, const char* doing, source_place where = source_place::here()) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw error(text(doing, ": ", cublasGetStatusName(status), " [", where.file, ":", where.line, "]"));
}

/// A handle of CUDA's that ends with its owner.
template <class Handle, auto Destroy>
struct owner {
  struct destroy {
    void operator()(Handle h) const { Destroy(h); }
  };
  std::unique_ptr<std::remove_pointer_t<Handle>, destroy> handle;
  operator Handle() const { return handle.get(); }
};
using stream = owner<cudaStream_t, cudaStreamDestroy>;
using event = owner<cudaEvent_t, cudaEventDestroy>;
using blas = owner<cublasHandle_t, cublasDestroy>;

/// A team of a kernel, as its threads see it.
template <class Kernel>
class device_team {
 public:
  __device__ explicit device_team(float* shared) : shared_(shared) {}
  __device__ std::size_t rank() const { return blockIdx.x; }
  __device__ std::size_t size() const { return gridDim.x; }
  __device__ float* shared() const { return shared_; }
  template <class F>
  __device__ void each(F f) {
    f(static_cast<int>(threadIdx.x), registers_);
    __syncthreads();
  }

 private:
  float* shared_;
  registers_of<Kernel> registers_{};
};

template <class Kernel>
__global__ void __launch_bounds__(Kernel::threads) run(const Kernel kernel) {
  extern __shared__ float4 shared[];
  // With --use_fast_math or --ftz=true the guards against what is not finite, and the noise, would have other bits than on
  // the CPU. Nothing the preprocessor sees tells of them, so the assembler is given an instruction that it does not know;
  // else the compiler drops it.
  if (__nvvm_reflect("__CUDA_FTZ") != 0) asm volatile("dpsgd__do_not_compile_with__use_fast_math_or_ftz;");
  device_team<Kernel> team(reinterpret_cast<float*>(shared));
  kernel(team);
}

}  // namespace detail

class gpu {
 public:
  /// The current device. Throws dpsgd::error where there is none, or where the driver is older than the toolkit.
  gpu() {
    int devices = 0;
    const auto status = cudaGetDeviceCount(&devices);
    require(
        status != cudaErrorInsufficientDriver,
        "the NVIDIA driver is older than the CUDA toolkit that this program was built with; install a newer driver, "
        "or build with an older toolkit");
    require(status != cudaErrorNoDevice && (status != cudaSuccess || devices > 0),
            "there is no CUDA device here; include dpsgd/dpsgd.hpp to train on the CPU");
    detail::check(status, "looking for a CUDA device");
    detail::check(cudaGetDevice(&device_), "asking for the current device");
    detail::check(cudaGetDeviceProperties(&properties_, device_), "asking what the device is");
    cudaStream_t stream;
    detail::check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream");
    stream_.handle.reset(stream);
    cublasHandle_t blas;
    detail::check(cublasCreate(&blas), "starting cuBLAS");
    blas_.handle.reset(blas);
    detail::check(cublasSetStream(blas_, stream_), "giving cuBLAS its stream");
    // Products in full single precision: a norm computed in less must still bound the sensitivity.
    detail::check(cublasSetMathMode(blas_, CUBLAS_PEDANTIC_MATH), "setting cuBLAS's precision");
    // Its own workspace would be allocated within a step; see the manual on cublasSetWorkspace.
    workspace_ = make<char>(std::size_t{32} << 20);
    detail::check(cublasSetWorkspace(blas_, workspace_.data(), workspace_.size()), "giving cuBLAS its workspace");
  }

  template <kernel Kernel>
  std::size_t teams_at_once(const Kernel& k) const {
    int per_multiprocessor = 0;
    allow_shared(k);
    detail::check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_multiprocessor, detail::run<Kernel>,
                                                                Kernel::threads, shared_floats(k) * sizeof(float)),
                  "asking how many teams fit");
    return std::max<std::size_t>(1, static_cast<std::size_t>(per_multiprocessor)) *
           static_cast<std::size_t>(properties_.multiProcessorCount);
  }
  std::size_t most_shared_floats() const { return properties_.sharedMemPerBlockOptin / sizeof(float); }

  template <class T>
  device_array<T> make(std::size_t n) const {
    void* memory = nullptr;
    const std::size_t bytes = std::max<std::size_t>(n * sizeof(T), 1);
    const auto status = cudaMalloc(&memory, bytes);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // a failed allocation is not the end of the device
      std::size_t left = 0, all = 0;
      cudaMemGetInfo(&left, &all);
      fail("the device has too little memory: ", bytes >> 20, " MiB more were asked for, and ", left >> 20, " of ",
           all >> 20, " MiB are free, so ", (bytes - std::min(bytes, left)) >> 20,
           " MiB are missing; take a smaller model or data set, or fewer rows at a time");
    }
    detail::check(status, "allocating device memory");
    std::shared_ptr<T[]> owned(static_cast<T*>(memory), [](T* p) { cudaFree(p); });
    detail::check(cudaMemsetAsync(memory, 0, bytes, stream_), "clearing device memory");
    return {std::move(owned), n};
  }

  template <kernel Kernel>
  void launch(const Kernel& k, std::size_t teams) {
    if (teams == 0) return;
    allow_shared(k);
    detail::run<Kernel>
        <<<static_cast<unsigned>(teams), Kernel::threads, shared_floats(k) * sizeof(float), stream_.handle.get()>>>(k);
    detail::check(cudaGetLastError(), "launching a kernel");
  }

  template <class T>
  void upload(const T* host, std::size_t n, T* device) const {
    detail::check(cudaMemcpyAsync(device, host, n * sizeof(T), cudaMemcpyHostToDevice, stream_),
                  "copying to the device");
  }
  template <class T>
  void download(const T* device, std::size_t n, T* host) const {
    detail::check(cudaMemcpyAsync(host, device, n * sizeof(T), cudaMemcpyDeviceToHost, stream_),
                  "copying from the device");
  }
  template <class T>
  void zero(T* device, std::size_t n) const {
    detail::check(cudaMemsetAsync(device, 0, n * sizeof(T), stream_), "clearing device memory");
  }
  /// Until all that was asked for is done. Throws what the device could not do.
  void wait() const { detail::check(cudaStreamSynchronize(stream_), "waiting for the device"); }

  /// c (m, n) = a (m, k) b (k, n) + (add ? c : 0), by the rows' strides; a and b may stand transposed.
  void multiply(matrix_view<const float, device_memory> a, bool a_transposed, matrix_view<const float, device_memory> b,
                bool b_transposed, matrix_view<float, device_memory> c, bool add) {
    if (c.rows == 0 || c.cols == 0) return;
    // cuBLAS stores columns where we store rows: it is asked for c^T = b^T a^T.
    const float one = 1, rest = add ? 1 : 0;
    detail::check(
        cublasSgemm(blas_, b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N, a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
                    static_cast<int>(c.cols), static_cast<int>(c.rows),
                    static_cast<int>(a_transposed ? a.rows : a.cols), &one, b.data, static_cast<int>(b.stride), a.data,
                    static_cast<int>(a.stride), &rest, c.data, static_cast<int>(c.stride)),
        "multiplying matrices");
  }

  /// The device's name, for people.
  const char* name() const { return properties_.name; }
  cudaStream_t stream() const { return stream_; }

 private:
  /// More than 48 KiB of shared memory must be asked for.
  template <class Kernel>
  void allow_shared(const Kernel& k) const {
    const auto bytes = shared_floats(k) * sizeof(float);
    if (bytes > 48 * 1024)
      detail::check(cudaFuncSetAttribute(detail::run<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                         static_cast<int>(bytes)),
                    "asking for shared memory");
  }

  int device_ = 0;
  cudaDeviceProp properties_{};
  detail::stream stream_;
  detail::blas blas_;
  device_array<char> workspace_;
};

}  // namespace dpsgd::cuda
