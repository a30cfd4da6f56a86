/// A CUDA device: memory, a stream, kernels and cuBLAS. Compiled by nvcc alone; cuda/emulator.hpp has the same face.
///
/// One stream, so the order of calls is the order of work; nothing waits for the device but wait(). Every call is checked:
/// what fails throws dpsgd::error with CUDA's name for it. What fails on the device is told by a later call, at the latest
/// by wait(): the trainer waits before it writes a checkpoint, so that none holds what a failed device left.
///
/// Copies to the device go by way of pinned memory (staging). A copy straight from the host's ordinary memory would either
/// wait for the device, or, of memory that somebody pinned, be read while the host already writes the next step's into it.
#pragma once

#if !defined(__CUDACC__)
#error "dpsgd: dpsgd/cuda.hpp is for nvcc; compile this file as CUDA, or include dpsgd/dpsgd.hpp for the CPU"
#endif

#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "dpsgd/core/error.hpp"
#include "dpsgd/core/view.hpp"
#include "dpsgd/cuda/kernel.hpp"

/// nvcc's own answer, while it compiles, to what no macro tells: is this number set?
extern "C" __device__ int __nvvm_reflect(const void* name);

namespace dpsgd::cuda {

namespace detail {

/// Throws dpsgd::error, with CUDA's name and words for it.
[[noreturn, gnu::cold]] inline void failed(const char* doing, const char* name, const char* words, source_place where) {
  const message_part all[] = {doing, ": ", name, *words ? ": " : "", words};
  throw error(dpsgd::detail::said_at(where, all, std::size(all)));
}
/// Throws dpsgd::error unless all is well.
inline void check(cudaError_t status, const char* doing, source_place where = source_place::here()) {
  if (status != cudaSuccess) failed(doing, cudaGetErrorName(status), cudaGetErrorString(status), where);
}
inline void check(cublasStatus_t status, const char* doing, source_place where = source_place::here()) {
  if (status != CUBLAS_STATUS_SUCCESS) failed(doing, cublasGetStatusName(status), cublasGetStatusString(status), where);
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

/// Pinned memory in pieces that are taken in turn. A piece is used again when the copy from it is done: 64 small copies,
/// or 16 MiB, may be under way before the host waits for the first.
class staging {
 public:
  static constexpr std::size_t pieces = 64, piece_bytes = std::size_t{256} << 10;

  staging() {
    void* memory = nullptr;
    check(cudaMallocHost(&memory, pieces * piece_bytes), "pinning memory of the host");
    memory_.reset(static_cast<char*>(memory));
    for (std::size_t i = 0; i < pieces; ++i) {
      cudaEvent_t made = nullptr;
      check(cudaEventCreateWithFlags(&made, cudaEventDisableTiming), "making an event");
      done_.emplace_back().handle.reset(made);
    }
  }
  /// The host's memory may be changed as soon as this returns.
  void upload(const void* host, std::size_t bytes, void* device, cudaStream_t to) {
    for (std::size_t at = 0; at < bytes; at += piece_bytes, next_ = (next_ + 1) % pieces) {
      const auto n = std::min(piece_bytes, bytes - at);
      char* const piece = memory_.get() + next_ * piece_bytes;
      check(cudaEventSynchronize(done_[next_]), "waiting for an earlier copy");  // at once, of an event never recorded
      std::memcpy(piece, static_cast<const char*>(host) + at, n);
      check(cudaMemcpyAsync(static_cast<char*>(device) + at, piece, n, cudaMemcpyHostToDevice, to),
            "copying to the device");
      check(cudaEventRecord(done_[next_], to), "recording an event");
    }
  }

 private:
  struct unpin {
    void operator()(char* p) const { cudaFreeHost(p); }
  };
  std::unique_ptr<char[], unpin> memory_;
  std::vector<event> done_;  // the last copy from each piece
  std::size_t next_ = 0;
};

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

/// No work at all.
struct nothing {
  constexpr void operator()(std::size_t) const {}
};

}  // namespace detail

/// Belongs to one thread, whose current device it is. Ranks may share a device: each has its own gpu.
class gpu {
 public:
  /// How many devices there are. Throws dpsgd::error where there is none, or where the driver is older than the toolkit.
  static int count() {
    int devices = 0, driver = 0;
    const auto status = cudaGetDeviceCount(&devices);
    if (status == cudaErrorInsufficientDriver) {
      detail::check(cudaDriverGetVersion(&driver), "asking for the driver's version");
      require(driver > 0, "there is no NVIDIA driver here; include dpsgd/dpsgd.hpp to train on the CPU");
      fail("the NVIDIA driver serves CUDA ", driver / 1000, ".", driver % 1000 / 10,
           ", but this program was built with the toolkit of ", CUDART_VERSION / 1000, ".", CUDART_VERSION % 1000 / 10,
           "; install a newer driver, or build with an older toolkit");
    }
    require(status != cudaErrorNoDevice && (status != cudaSuccess || devices > 0),
            "there is no CUDA device here; include dpsgd/dpsgd.hpp to train on the CPU");
    detail::check(status, "looking for a CUDA device");
    return devices;
  }

  /// This thread's current device. Throws dpsgd::error as count() does, and where the program was not built for it.
  gpu() : gpu(current()) {}
  /// Device `number`, which becomes this thread's current one: a rank's own, `world.rank() % gpu::count()`, say.
  explicit gpu(int number) : device_(number) {
    const int devices = count();
    require(number >= 0 && number < devices, "there is no CUDA device ", number, ": they are numbered 0 to ",
            devices - 1);
    detail::check(cudaSetDevice(device_), "choosing a device");
    detail::check(cudaGetDeviceProperties(&properties_, device_), "asking what the device is");
    cudaFuncAttributes attributes;
    const auto built = cudaFuncGetAttributes(&attributes, detail::run<each_element<detail::nothing>>);
    require(built != cudaErrorNoKernelImageForDevice && built != cudaErrorInvalidDeviceFunction &&
                built != cudaErrorUnsupportedPtxVersion,
            "this program was not built for ", static_cast<const char*>(properties_.name), " (sm_", properties_.major,
            properties_.minor, "); name that in CMAKE_CUDA_ARCHITECTURES, sm_80 being the least");
    detail::check(built, "asking for a kernel");
    cudaStream_t stream = nullptr;
    detail::check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream");
    stream_.handle.reset(stream);
    cublasHandle_t blas = nullptr;
    detail::check(cublasCreate(&blas), "starting cuBLAS");
    blas_.handle.reset(blas);
    detail::check(cublasSetStream(blas_, stream_), "giving cuBLAS its stream");
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
      detail::check(cudaMemGetInfo(&left, &all), "asking how much memory the device has");
      detail::too_little_memory(bytes, left, all);
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

  /// Copies n elements, in the order of launches. The host may change them as soon as this returns.
  template <class T>
  void upload(const T* host, std::size_t n, T* device) {
    staging_.upload(host, n * sizeof(T), device, stream_);
  }
  /// The host may read what came back after wait(). (Into ordinary memory CUDA waits already; who downloads waits next.)
  template <class T>
  void download(const T* device, std::size_t n, T* host) const {
    if (n == 0) return;
    detail::check(cudaMemcpyAsync(host, device, n * sizeof(T), cudaMemcpyDeviceToHost, stream_),
                  "copying from the device");
  }
  /// Copies from the device to the device.
  template <class T>
  void copy(const T* from, std::size_t n, T* to) const {
    detail::check(cudaMemcpyAsync(to, from, n * sizeof(T), cudaMemcpyDeviceToDevice, stream_), "copying on the device");
  }
  template <class T>
  void zero(T* device, std::size_t n) const {
    detail::check(cudaMemsetAsync(device, 0, n * sizeof(T), stream_), "clearing device memory");
  }
  /// Until all that was asked for is done. Throws what the device could not do.
  void wait() const { detail::check(cudaStreamSynchronize(stream_), "waiting for the device"); }

  /// c (m, n) = a (m, k) b (k, n) + (add ? c : 0), by the rows' strides; a and b may stand transposed. Sizes below 2^31.
  /// Of a handle with one stream and a workspace of its own, cuBLAS promises the same bits again.
  void multiply(matrix_view<const float, device_memory> a, bool a_transposed, matrix_view<const float, device_memory> b,
                bool b_transposed, matrix_view<float, device_memory> c, bool add, precision p = precision::single) {
    if (c.rows == 0 || c.cols == 0) return;
    // cuBLAS stores columns where we store rows: it is asked for c^T = b^T a^T. COMPUTE_32F rounds no operand.
    const float one = 1, rest = add ? 1 : 0;
    const auto compute = p == precision::tf32   ? CUBLAS_COMPUTE_32F_FAST_TF32
                         : p == precision::bf16 ? CUBLAS_COMPUTE_32F_FAST_16BF
                                                : CUBLAS_COMPUTE_32F;
    detail::check(cublasGemmEx(blas_, b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
                               a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N, static_cast<int>(c.cols),
                               static_cast<int>(c.rows), static_cast<int>(a_transposed ? a.rows : a.cols), &one, b.data,
                               CUDA_R_32F, static_cast<int>(b.stride), a.data, CUDA_R_32F, static_cast<int>(a.stride),
                               &rest, c.data, CUDA_R_32F, static_cast<int>(c.stride), compute, CUBLAS_GEMM_DEFAULT),
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

  static int current() {
    count();
    int device = 0;
    detail::check(cudaGetDevice(&device), "asking for the current device");
    return device;
  }

  int device_;
  cudaDeviceProp properties_{};
  detail::stream stream_;
  detail::staging staging_;
  device_array<char> workspace_;  // of blas_, which ends before it
  detail::blas blas_;
};

}  // namespace dpsgd::cuda
