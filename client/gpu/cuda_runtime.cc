// SPDX-License-Identifier: Apache-2.0
#include "client/gpu/cuda_runtime.h"

#include <cuda.h>  // types only; the driver's library is opened by the CUDA runtime
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "client/gpu/cuda_calls.h"
#include "client/gpu/cuda_launch.h"
#include "client/gpu/cuda_shared_memory.h"
#include "shared/base/size.h"
#include "shared/base/status_macros.h"

namespace stoker::gpu {
namespace {

cudaStream_t StreamOf(Queue queue) { return reinterpret_cast<cudaStream_t>(queue); }
cudaEvent_t EventOf(Event event) { return reinterpret_cast<cudaEvent_t>(event); }

// What the CUDA runtime cannot do: make a device current for one call, and leave the caller's thread as it was.
// cudaSetDevice stays, and back to a device that the process does not use it would make a context there.
struct Driver {
  CUresult (*push)(CUcontext) = nullptr;
  CUresult (*pop)(CUcontext*) = nullptr;
  CUresult (*get)(CUdevice*, int) = nullptr;
  CUresult (*retain)(CUcontext*, CUdevice) = nullptr;
  CUresult (*uuid)(CUuuid*, CUdevice) = nullptr;
};

absl::StatusOr<Driver> FindDriver() {
  Driver driver;
  STOKER_RETURN_IF_ERROR(Find("cuCtxPushCurrent", &driver.push));
  STOKER_RETURN_IF_ERROR(Find("cuCtxPopCurrent", &driver.pop));
  STOKER_RETURN_IF_ERROR(Find("cuDeviceGet", &driver.get));
  STOKER_RETURN_IF_ERROR(Find("cuDevicePrimaryCtxRetain", &driver.retain));
  STOKER_RETURN_IF_ERROR(Find("cuDeviceGetUuid", &driver.uuid));
  return driver;
}

// While it lives, the calling thread's calls are for the device. They also are no part of a graph that is captured
// meanwhile, by PyTorch say: a capture forbids most calls to all threads that do not say so, and would fail by them.
class OnDevice {
 public:
  OnDevice(const Driver& driver, CUcontext context)
      : driver_(driver), status_(ToStatus(driver.push(context), "cuCtxPushCurrent")) {
    if (status_.ok()) (void)cudaThreadExchangeStreamCaptureMode(&capture_mode_);
  }
  ~OnDevice() {
    if (!status_.ok()) return;
    (void)cudaThreadExchangeStreamCaptureMode(&capture_mode_);
    CUcontext ours;
    (void)driver_.pop(&ours);
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

  const absl::Status& status() const { return status_; }

 private:
  const Driver& driver_;
  const absl::Status status_;
  cudaStreamCaptureMode capture_mode_ = cudaStreamCaptureModeRelaxed;  // then what the thread had
};

// Memory is registered for the process and all its devices, so those of its runtimes that do are counted.
struct Registrations {
  absl::Mutex mu;
  std::map<const void*, std::pair<size_t, int>> of ABSL_GUARDED_BY(mu);  // address -> size, count
};

Registrations& ProcessRegistrations() {
  static auto* const registrations = new Registrations;
  return *registrations;
}

class CudaRuntime final : public DeviceRuntime {
 public:
  CudaRuntime(const Driver& driver, CUdevice device, CUcontext context, DeviceInfo info, int max_shared_bytes)
      : driver_(driver),
        context_(context),
        max_shared_bytes_(static_cast<uint32_t>(max_shared_bytes)),
        info_(std::move(info)),
        shared_memory_(CudaSharedMemory::Create(device)) {}

  const DeviceInfo& info() const override { return info_; }

  absl::StatusOr<void*> Allocate(uint64_t bytes) override {
    void* device = nullptr;
    STOKER_RETURN_IF_ERROR(Do("cudaMalloc", bytes, [&] { return cudaMalloc(&device, std::max<uint64_t>(bytes, 1)); }));
    return device;
  }
  void Free(void* device) override {
    const OnDevice current(driver_, context_);
    if (shared_memory_.ok() && (*shared_memory_)->Free(device)) return;
    Try([=] { return cudaFree(device); });
  }

  absl::StatusOr<void*> AllocateHost(uint64_t bytes) override {
    void* host = nullptr;
    STOKER_RETURN_IF_ERROR(Do("cudaHostAlloc", bytes, [&] {
      return cudaHostAlloc(&host, std::max<uint64_t>(bytes, 1), cudaHostAllocPortable);
    }));
    return host;
  }
  void FreeHost(void* host) override {
    Try([=] { return cudaFreeHost(host); });
  }

  // The memory may be mapped read-only, so the flag for that is not left out where the device knows it.
  absl::Status RegisterHost(absl::Span<const uint8_t> memory) override {
    const unsigned flags = cudaHostRegisterPortable | (info_.can_register ? cudaHostRegisterReadOnly : 0);
    Registrations& registrations = ProcessRegistrations();
    absl::MutexLock lock(&registrations.mu);
    const auto [known, first] = registrations.of.try_emplace(memory.data(), memory.size(), 1);
    if (!first && known->second.first == memory.size()) {
      ++known->second.second;
      return absl::OkStatus();
    }
    absl::Status status = Do("cudaHostRegister", memory.size(), [&] {
      return cudaHostRegister(const_cast<uint8_t*>(memory.data()), memory.size(), flags);
    });
    if (!status.ok() && first) registrations.of.erase(known);
    return status;
  }
  void UnregisterHost(const void* memory) override {
    Registrations& registrations = ProcessRegistrations();
    absl::MutexLock lock(&registrations.mu);
    const auto known = registrations.of.find(memory);
    if (known == registrations.of.end() || --known->second.second > 0) return;
    registrations.of.erase(known);
    Try([=] { return cudaHostUnregister(const_cast<void*>(memory)); });
  }

  absl::StatusOr<Queue> CreateQueue() override {
    cudaStream_t stream = nullptr;
    STOKER_RETURN_IF_ERROR(
        Do("cudaStreamCreateWithFlags", 0, [&] { return cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking); }));
    return reinterpret_cast<Queue>(stream);
  }
  void DestroyQueue(Queue queue) override {
    Try([=] { return cudaStreamSynchronize(StreamOf(queue)); });
    Try([=] { return cudaStreamDestroy(StreamOf(queue)); });
  }
  absl::Status Drain(Queue queue) override {
    return Do("cudaStreamSynchronize", 0, [=] { return cudaStreamSynchronize(StreamOf(queue)); });
  }

  absl::Status CopyToDevice(Queue queue, void* to, const void* from, uint64_t bytes) override {
    STOKER_RETURN_IF_ERROR(CheckPinned(from, bytes));
    return Do("cudaMemcpyAsync to the device", bytes,
              [=] { return cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, StreamOf(queue)); });
  }
  absl::Status CopyToHost(Queue queue, void* to, const void* from, uint64_t bytes) override {
    STOKER_RETURN_IF_ERROR(CheckPinned(to, bytes));
    return Do("cudaMemcpyAsync to the host", bytes,
              [=] { return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, StreamOf(queue)); });
  }

  absl::Status Launch(Queue queue, const Program& program) override {
    uint32_t blocks = 0, shared_bytes = 0;
    for (int c = 0; c < program.count; ++c) {
      blocks += program.calls[c].blocks;
      shared_bytes = std::max(shared_bytes, program.calls[c].shared_bytes);
    }
    if (blocks == 0) return absl::OkStatus();
    if (shared_bytes > max_shared_bytes_) {
      return absl::FailedPreconditionError(
          absl::StrCat("launch: ", info_.name, " gives a block ", FormatSize(max_shared_bytes_),
                       " of shared memory, and ", FormatSize(shared_bytes), " are needed: choose smaller images"));
    }
    return Do("launch", 0, [&] { return LaunchProgram(program, blocks, shared_bytes, StreamOf(queue)); });
  }

  absl::StatusOr<Event> CreateEvent() override {
    cudaEvent_t event = nullptr;
    STOKER_RETURN_IF_ERROR(
        Do("cudaEventCreateWithFlags", 0, [&] { return cudaEventCreateWithFlags(&event, cudaEventDisableTiming); }));
    return reinterpret_cast<Event>(event);
  }
  void DestroyEvent(Event event) override {
    Try([=] { return cudaEventDestroy(EventOf(event)); });
  }
  absl::Status Record(Event event, Queue queue) override {
    STOKER_RETURN_IF_ERROR(CheckNotCaptured(queue));
    return Do("cudaEventRecord", 0, [=] { return cudaEventRecord(EventOf(event), StreamOf(queue)); });
  }
  absl::StatusOr<bool> Query(Event event) override {
    bool come = true;
    STOKER_RETURN_IF_ERROR(Do("cudaEventQuery", 0, [&] {
      const cudaError_t error = cudaEventQuery(EventOf(event));
      if (error != cudaErrorNotReady) return error;
      (void)cudaGetLastError();
      come = false;
      return cudaSuccess;
    }));
    return come;
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
    STOKER_RETURN_IF_ERROR(CheckNotCaptured(queue));
    return Do("cudaStreamWaitEvent", 0, [=] { return cudaStreamWaitEvent(StreamOf(queue), EventOf(event), 0); });
  }

  absl::StatusOr<void*> AllocateExportable(uint64_t bytes) override {
    return WithSharedMemory([=](CudaSharedMemory& memory) { return memory.Allocate(bytes); });
  }
  absl::StatusOr<UniqueFd> Export(void* device) override {
    return WithSharedMemory([=](CudaSharedMemory& memory) { return memory.Export(device); });
  }
  absl::StatusOr<void*> Import(int file, uint64_t bytes) override {
    return WithSharedMemory([=](CudaSharedMemory& memory) { return memory.Import(file, bytes); });
  }
  void CloseImport(void* device) override { Free(device); }

 private:
  template <typename Call>
  absl::Status Do(absl::string_view name, uint64_t bytes, Call call) const {
    const OnDevice current(driver_, context_);
    STOKER_RETURN_IF_ERROR(current.status());
    return ToStatus(call(), name, bytes);
  }
  // Of a call that gives something back: there is nothing to do about it, and at the end of a process CUDA may be gone.
  template <typename Call>
  void Try(Call call) const {
    (void)Do("", 0, call);
  }

  template <typename Call>
  auto WithSharedMemory(Call call) -> decltype(call(std::declval<CudaSharedMemory&>())) {
    STOKER_RETURN_IF_ERROR(shared_memory_.status());
    const OnDevice current(driver_, context_);
    STOKER_RETURN_IF_ERROR(current.status());
    return call(**shared_memory_);
  }

  // Our queues would become part of the caller's graph.
  absl::Status CheckNotCaptured(Queue queue) const {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    STOKER_RETURN_IF_ERROR(
        Do("cudaStreamIsCapturing", 0, [&] { return cudaStreamIsCapturing(StreamOf(queue), &status); }));
    if (status == cudaStreamCaptureStatusNone) return absl::OkStatus();
    return absl::FailedPreconditionError(
        "the stream is being captured into a graph: fetch batches, and let go of them, outside of the capture");
  }

  // From other memory CUDA would copy too, but wait for it, and read it at another time than the contract says.
  absl::Status CheckPinned(const void* host, uint64_t bytes) const {
    for (const void* at : {host, static_cast<const void*>(static_cast<const uint8_t*>(host) + bytes - 1)}) {
      cudaPointerAttributes attributes = {};
      STOKER_RETURN_IF_ERROR(
          Do("cudaPointerGetAttributes", bytes, [&] { return cudaPointerGetAttributes(&attributes, at); }));
      if (attributes.type != cudaMemoryTypeHost) {
        return absl::InvalidArgumentError(
            absl::StrCat("copy of ", FormatSize(bytes), ": host memory is neither pinned nor registered"));
      }
    }
    return absl::OkStatus();
  }

  const Driver driver_;
  const CUcontext context_;
  const uint32_t max_shared_bytes_;
  const DeviceInfo info_;
  const absl::StatusOr<std::unique_ptr<CudaSharedMemory>> shared_memory_;  // or why it cannot be had
};

absl::StatusOr<int> Attribute(cudaDeviceAttr attribute, int device) {
  int value = 0;
  STOKER_RETURN_IF_ERROR(ToStatus(cudaDeviceGetAttribute(&value, attribute, device), "cudaDeviceGetAttribute"));
  return value;
}

// Whether segments, which are mapped read-only, can be registered so that copies read them by DMA. A device that reads
// the host's page tables only populates what is registered, and does not count it as pinned.
absl::StatusOr<bool> CanRegister(int device) {
  STOKER_ASSIGN_OR_RETURN(const int registers, Attribute(cudaDevAttrHostRegisterSupported, device));
  STOKER_ASSIGN_OR_RETURN(const int read_only, Attribute(cudaDevAttrHostRegisterReadOnlySupported, device));
  STOKER_ASSIGN_OR_RETURN(const int populates, Attribute(cudaDevAttrPageableMemoryAccessUsesHostPageTables, device));
  return registers != 0 && read_only != 0 && populates == 0;
}

absl::StatusOr<std::unique_ptr<DeviceRuntime>> Open(int device) {
  STOKER_ASSIGN_OR_RETURN(const Driver driver, FindDriver());
  CUdevice handle;
  CUcontext context = nullptr;
  STOKER_RETURN_IF_ERROR(ToStatus(driver.get(&handle, device), "cuDeviceGet"));
  // Kept until the process ends, as the CUDA runtime keeps it: other libraries use the same.
  STOKER_RETURN_IF_ERROR(ToStatus(driver.retain(&context, handle), "cuDevicePrimaryCtxRetain"));
  const OnDevice current(driver, context);
  STOKER_RETURN_IF_ERROR(current.status());
  cudaDeviceProp properties = {};
  STOKER_RETURN_IF_ERROR(ToStatus(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties"));
  STOKER_ASSIGN_OR_RETURN(const bool can_register, CanRegister(device));
  STOKER_ASSIGN_OR_RETURN(const int max_shared_bytes, Attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  // A device that none of the kernels' builds runs on shows here, not at the first batch.
  STOKER_RETURN_IF_ERROR(ToStatus(PrepareLaunch(max_shared_bytes), "cudaFuncSetAttribute"));
  CUuuid uuid = {};
  STOKER_RETURN_IF_ERROR(ToStatus(driver.uuid(&uuid, handle), "cuDeviceGetUuid"));
  const std::string id = absl::BytesToHexString(absl::string_view(uuid.bytes, sizeof(uuid.bytes)));
  return std::make_unique<CudaRuntime>(driver, handle, context,
                                       DeviceInfo{.name = properties.name,
                                                  .id = absl::StrCat("cuda ", id),
                                                  .memory_bytes = properties.totalGlobalMem,
                                                  .on_device = true,
                                                  .can_register = can_register},
                                       max_shared_bytes);
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceRuntime>> OpenCudaRuntime(int device) {
  int devices = 0;
  absl::Status status = ToStatus(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
  if (!status.ok()) return absl::UnavailableError(absl::StrCat("no CUDA device: ", status.message()));
  if (device < 0 || device >= devices) {
    return absl::UnavailableError(absl::StrCat("CUDA device ", device, ": there are ", devices));
  }
  absl::StatusOr<std::unique_ptr<DeviceRuntime>> runtime = Open(device);
  if (!runtime.ok()) return Annotate(runtime.status(), absl::StrCat("CUDA device ", device));
  return runtime;
}

}  // namespace stoker::gpu
