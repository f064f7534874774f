// SPDX-License-Identifier: Apache-2.0
#include "client/gpu/cuda_runtime.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/gpu/cuda_launch.h"
#include "shared/base/size.h"
#include "shared/base/status_macros.h"

namespace stoker::gpu {
namespace {

absl::StatusCode CodeOf(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation:
      return absl::StatusCode::kResourceExhausted;
    case cudaErrorInvalidValue:
    case cudaErrorHostMemoryAlreadyRegistered:
    case cudaErrorHostMemoryNotRegistered:
      return absl::StatusCode::kInvalidArgument;
    case cudaErrorNotSupported:
    case cudaErrorDeviceUninitialized:
      return absl::StatusCode::kFailedPrecondition;
    case cudaErrorNoDevice:
    case cudaErrorInvalidDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorDevicesUnavailable:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorNoKernelImageForDevice:
      return absl::StatusCode::kUnavailable;
    default:
      return absl::StatusCode::kInternal;
  }
}

// The one way from CUDA's errors to ours. CUDA remembers the error and would give it to the next, innocent call:
// forgotten here.
absl::Status ToStatus(cudaError_t error, absl::string_view call, uint64_t bytes = 0) {
  if (error == cudaSuccess) return absl::OkStatus();
  (void)cudaGetLastError();
  return absl::Status(CodeOf(error), absl::StrCat(call, bytes > 0 ? absl::StrCat(" of ", FormatSize(bytes)) : "", ": ",
                                                  cudaGetErrorName(error), ": ", cudaGetErrorString(error)));
}

cudaStream_t StreamOf(Queue queue) { return reinterpret_cast<cudaStream_t>(queue); }
cudaEvent_t EventOf(Event event) { return reinterpret_cast<cudaEvent_t>(event); }

class CudaRuntime final : public DeviceRuntime {
 public:
  CudaRuntime(int device, DeviceInfo info, int max_shared_bytes)
      : device_(device), max_shared_bytes_(static_cast<uint32_t>(max_shared_bytes)), info_(std::move(info)) {}

  const DeviceInfo& info() const override { return info_; }

  absl::StatusOr<void*> Allocate(uint64_t bytes) override {
    STOKER_RETURN_IF_ERROR(Use());
    void* device = nullptr;
    STOKER_RETURN_IF_ERROR(ToStatus(cudaMalloc(&device, std::max<uint64_t>(bytes, 1)), "cudaMalloc", bytes));
    return device;
  }
  void Free(void* device) override { Ignore(cudaFree(device)); }

  absl::StatusOr<void*> AllocateHost(uint64_t bytes) override {
    STOKER_RETURN_IF_ERROR(Use());
    void* host = nullptr;
    STOKER_RETURN_IF_ERROR(
        ToStatus(cudaHostAlloc(&host, std::max<uint64_t>(bytes, 1), cudaHostAllocPortable), "cudaHostAlloc", bytes));
    return host;
  }
  void FreeHost(void* host) override { Ignore(cudaFreeHost(host)); }

  // The memory may be mapped read-only, so the flag for that is not left out where the device knows it.
  absl::Status RegisterHost(absl::Span<const uint8_t> memory) override {
    STOKER_RETURN_IF_ERROR(Use());
    const unsigned flags = cudaHostRegisterPortable | (info_.can_register ? cudaHostRegisterReadOnly : 0);
    return ToStatus(cudaHostRegister(const_cast<uint8_t*>(memory.data()), memory.size(), flags), "cudaHostRegister",
                    memory.size());
  }
  void UnregisterHost(const void* memory) override { Ignore(cudaHostUnregister(const_cast<void*>(memory))); }

  absl::StatusOr<Queue> CreateQueue() override {
    STOKER_RETURN_IF_ERROR(Use());
    cudaStream_t stream = nullptr;
    STOKER_RETURN_IF_ERROR(
        ToStatus(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags"));
    return reinterpret_cast<Queue>(stream);
  }
  void DestroyQueue(Queue queue) override {
    Ignore(cudaStreamSynchronize(StreamOf(queue)));
    Ignore(cudaStreamDestroy(StreamOf(queue)));
  }
  absl::Status Drain(Queue queue) override {
    STOKER_RETURN_IF_ERROR(Use());
    return ToStatus(cudaStreamSynchronize(StreamOf(queue)), "cudaStreamSynchronize");
  }

  absl::Status CopyToDevice(Queue queue, void* to, const void* from, uint64_t bytes) override {
    STOKER_RETURN_IF_ERROR(CheckPinned(from, bytes));
    return ToStatus(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, StreamOf(queue)),
                    "cudaMemcpyAsync to the device", bytes);
  }
  absl::Status CopyToHost(Queue queue, void* to, const void* from, uint64_t bytes) override {
    STOKER_RETURN_IF_ERROR(CheckPinned(to, bytes));
    return ToStatus(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, StreamOf(queue)),
                    "cudaMemcpyAsync to the host", bytes);
  }

  absl::Status Launch(Queue queue, const Program& program) override {
    uint32_t blocks = 0, shared_bytes = 0;
    for (int c = 0; c < program.count; ++c) {
      blocks += program.calls[c].blocks;
      shared_bytes = std::max(shared_bytes, program.calls[c].shared_bytes);
    }
    if (blocks == 0) return absl::OkStatus();
    STOKER_RETURN_IF_ERROR(Use());
    if (shared_bytes > max_shared_bytes_) {
      return absl::FailedPreconditionError(
          absl::StrCat("launch: ", info_.name, " gives a block ", FormatSize(max_shared_bytes_),
                       " of shared memory, and ", FormatSize(shared_bytes), " are needed: choose smaller images"));
    }
    return ToStatus(LaunchProgram(program, blocks, shared_bytes, StreamOf(queue)), "launch");
  }

  absl::StatusOr<Event> CreateEvent() override {
    STOKER_RETURN_IF_ERROR(Use());
    cudaEvent_t event = nullptr;
    STOKER_RETURN_IF_ERROR(
        ToStatus(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreateWithFlags"));
    return reinterpret_cast<Event>(event);
  }
  void DestroyEvent(Event event) override { Ignore(cudaEventDestroy(EventOf(event))); }
  absl::Status Record(Event event, Queue queue) override {
    STOKER_RETURN_IF_ERROR(Use());
    return ToStatus(cudaEventRecord(EventOf(event), StreamOf(queue)), "cudaEventRecord");
  }
  absl::StatusOr<bool> Query(Event event) override {
    STOKER_RETURN_IF_ERROR(Use());
    const cudaError_t error = cudaEventQuery(EventOf(event));
    if (error == cudaErrorNotReady) {
      (void)cudaGetLastError();
      return false;
    }
    STOKER_RETURN_IF_ERROR(ToStatus(error, "cudaEventQuery"));
    return true;
  }
  // CUDA has no wait with a deadline. Asked often at first, then rarely: a copy of some megabytes is over in 100 us.
  absl::Status Wait(Event event, absl::Duration timeout) override {
    const absl::Time deadline = absl::Now() + timeout;
    absl::Duration pause = absl::Microseconds(10);
    while (true) {
      STOKER_ASSIGN_OR_RETURN(const bool come, Query(event));
      if (come) return absl::OkStatus();
      if (absl::Now() >= deadline) return absl::DeadlineExceededError("wait: the event has not come yet");
      absl::SleepFor(pause);
      pause = std::min(2 * pause, absl::Microseconds(200));
    }
  }
  absl::Status QueueWait(Queue queue, Event event) override {
    STOKER_RETURN_IF_ERROR(Use());
    return ToStatus(cudaStreamWaitEvent(StreamOf(queue), EventOf(event), 0), "cudaStreamWaitEvent");
  }

  absl::StatusOr<ExportedMemory> Export(void* device, uint64_t bytes) override {
    STOKER_RETURN_IF_ERROR(Use());
    cudaIpcMemHandle_t handle;
    STOKER_RETURN_IF_ERROR(ToStatus(cudaIpcGetMemHandle(&handle, device), "cudaIpcGetMemHandle", bytes));
    ExportedMemory exported = {};
    static_assert(sizeof(handle) == sizeof(exported.handle));
    std::memcpy(exported.handle, &handle, sizeof(handle));
    exported.bytes = bytes;
    return exported;
  }
  absl::StatusOr<void*> Import(const ExportedMemory& memory) override {
    STOKER_RETURN_IF_ERROR(Use());
    cudaIpcMemHandle_t handle;
    std::memcpy(&handle, memory.handle, sizeof(handle));
    void* device = nullptr;
    STOKER_RETURN_IF_ERROR(ToStatus(cudaIpcOpenMemHandle(&device, handle, cudaIpcMemLazyEnablePeerAccess),
                                    "cudaIpcOpenMemHandle", memory.bytes));
    return device;
  }
  void CloseImport(void* device) override { Ignore(cudaIpcCloseMemHandle(device)); }

 private:
  // The current device is the calling thread's.
  absl::Status Use() const { return ToStatus(cudaSetDevice(device_), "cudaSetDevice"); }

  // From other memory CUDA would copy too, but wait for it, and read it at another time than the contract says.
  absl::Status CheckPinned(const void* host, uint64_t bytes) const {
    STOKER_RETURN_IF_ERROR(Use());
    for (const void* at : {host, static_cast<const void*>(static_cast<const uint8_t*>(host) + bytes - 1)}) {
      cudaPointerAttributes attributes = {};
      STOKER_RETURN_IF_ERROR(ToStatus(cudaPointerGetAttributes(&attributes, at), "cudaPointerGetAttributes", bytes));
      if (attributes.type != cudaMemoryTypeHost) {
        return absl::InvalidArgumentError(
            absl::StrCat("copy of ", FormatSize(bytes), ": host memory is neither pinned nor registered"));
      }
    }
    return absl::OkStatus();
  }

  // Of a call that gives something back: there is nothing to do about it, and at the end of a process CUDA may be gone.
  static void Ignore(cudaError_t error) {
    if (error != cudaSuccess) (void)cudaGetLastError();
  }

  const int device_;
  const uint32_t max_shared_bytes_;
  const DeviceInfo info_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceRuntime>> OpenCudaRuntime(int device) {
  int devices = 0;
  absl::Status status = ToStatus(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
  if (!status.ok()) return absl::UnavailableError(absl::StrCat("no CUDA device: ", status.message()));
  if (device < 0 || device >= devices) {
    return absl::UnavailableError(absl::StrCat("CUDA device ", device, ": there are ", devices));
  }
  const std::string what = absl::StrCat("CUDA device ", device);
  STOKER_RETURN_IF_ERROR(Annotate(ToStatus(cudaSetDevice(device), "cudaSetDevice"), what));
  cudaDeviceProp properties = {};
  STOKER_RETURN_IF_ERROR(
      Annotate(ToStatus(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties"), what));
  int read_only = 0, max_shared_bytes = 0;
  STOKER_RETURN_IF_ERROR(ToStatus(cudaDeviceGetAttribute(&read_only, cudaDevAttrHostRegisterReadOnlySupported, device),
                                  "cudaDeviceGetAttribute"));
  STOKER_RETURN_IF_ERROR(
      ToStatus(cudaDeviceGetAttribute(&max_shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
               "cudaDeviceGetAttribute"));
  // A device that none of the kernels' builds runs on shows here, not at the first batch.
  STOKER_RETURN_IF_ERROR(Annotate(ToStatus(PrepareLaunch(max_shared_bytes), "cudaFuncSetAttribute"), what));
  return std::make_unique<CudaRuntime>(device,
                                       DeviceInfo{.name = properties.name,
                                                  .memory_bytes = properties.totalGlobalMem,
                                                  .on_device = true,
                                                  .can_register = read_only != 0},
                                       max_shared_bytes);
}

}  // namespace stoker::gpu
