// SPDX-License-Identifier: Apache-2.0
// What the assembler asks of a device: memory, queues of work that is done in order, and events that tell how far a
// queue has come. Two implementations: CudaRuntime (cuda_runtime.h) and HostRuntime (host_runtime.h), the same work by
// threads of this process. One suite of tests runs on both.
//
//   absl::StatusOr<OwnedQueue> queue = OwnQueue(*runtime);
//   runtime.CopyToDevice(queue->get(), device, pinned, bytes);   // returns at once
//   runtime.Record(event->get(), queue->get());
//   runtime.Wait(event->get(), absl::Seconds(10));               // now `pinned` may be written again
//
// Order: operations of one queue are done one after the other. Operations of different queues are done in any order and
// at the same time, but for what QueueWait says. What the operations before a Record wrote is visible to all that waits
// for the event. Nothing here waits for the whole device.
//
// Errors: ResourceExhausted: no memory of that kind left, smaller requests may do · InvalidArgument: the caller's
// mistake, nothing happened · Unavailable: there is no such device · DeadlineExceeded of Wait · Internal: the device
// failed. A failure that only shows while an operation is done (an asynchronous one) comes back from a later call, and
// then from every call: the runtime is done for. Messages name the call, the object and the size.
//
// Threads: all members may be called by any threads at the same time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "client/gpu/kernels/program.h"
#include "shared/base/unique_fd.h"

namespace stoker::gpu {

// Handles. Of a CudaRuntime they are cudaStream_t and cudaEvent_t, so that a stream of PyTorch's is a Queue as it is.
using Queue = struct QueueHandle*;
using Event = struct EventHandle*;

struct DeviceInfo {
  std::string name;           // "NVIDIA H100 80GB HBM3", "host"
  std::string id;             // of this very device, the same in all processes that can import each other's memory
  uint64_t memory_bytes = 0;  // in all
  bool on_device = false;     // false: the "device" is this process' own memory
  bool can_register = false;  // RegisterHost may succeed for memory that is mapped read-only
  std::string notice = "";    // why this is not the device that was asked for; else empty
};

inline constexpr uint64_t kDeviceAlignment = 256;

class DeviceRuntime {
 public:
  virtual ~DeviceRuntime() = default;
  virtual const DeviceInfo& info() const = 0;

  // Device memory at a multiple of kDeviceAlignment, contents undefined. May wait for the device; to be called when
  // something is set up. Free: REQUIRES that no operation that uses it is pending.
  virtual absl::StatusOr<void*> Allocate(uint64_t bytes) = 0;
  virtual void Free(void* device) = 0;

  // Host memory that the device can read and write by itself ("pinned"). FreeHost as Free.
  virtual absl::StatusOr<void*> AllocateHost(uint64_t bytes) = 0;
  virtual void FreeHost(void* host) = 0;

  // Makes memory that is there, whole pages, readable to the device by itself until UnregisterHost(memory.data()).
  // Slow, 0.1 s and more a GB, and other processes' calls may wait meanwhile. InvalidArgument when a part of it is
  // registered. UnregisterHost: REQUIRES that no copy from it is pending.
  virtual absl::Status RegisterHost(absl::Span<const uint8_t> memory) = 0;
  virtual void UnregisterHost(const void* memory) = 0;

  // A queue of its own, not ordered with any other. DestroyQueue returns when all that was put into it is done or
  // cannot be; Drain waits for the same, without a deadline, and is meant for when something went wrong.
  virtual absl::StatusOr<Queue> CreateQueue() = 0;
  virtual void DestroyQueue(Queue queue) = 0;
  virtual absl::Status Drain(Queue queue) = 0;

  // Copies, asynchronously: the call returns when the copy is queued. `from` must not be written, and `to` not be used,
  // until an event that was recorded after it has come. The host's side must be pinned or registered, as one piece:
  // InvalidArgument otherwise. REQUIRES: 0 < bytes.
  virtual absl::Status CopyToDevice(Queue queue, void* to, const void* from, uint64_t bytes) = 0;
  virtual absl::Status CopyToHost(Queue queue, void* to, const void* from, uint64_t bytes) = 0;

  // Queues the kernels of `program`, all as one launch: they run in any order and at the same time. The program is
  // copied, the memory that it points at is used until it is done. Nothing happens for a program without kernels.
  virtual absl::Status Launch(Queue queue, const Program& program) = 0;

  // Record: the event comes when all that was queued before is done. An event that was recorded again means the last
  // time; one that never was has come. DestroyEvent may be called at any time.
  virtual absl::StatusOr<Event> CreateEvent() = 0;
  virtual void DestroyEvent(Event event) = 0;
  // FailedPrecondition, with nothing changed, while a caller's queue is being captured into a graph, which then does
  // nothing; as of QueueWait.
  virtual absl::Status Record(Event event, Queue queue) = 0;

  // Whether it has come, at once.
  virtual absl::StatusOr<bool> Query(Event event) = 0;
  // Blocks the caller until it has come, at most `timeout`.
  virtual absl::Status Wait(Event event, absl::Duration timeout) = 0;
  // What is queued from now on is done after the event as recorded now. Blocks nobody.
  virtual absl::Status QueueWait(Queue queue, Event event) = 0;

  // Memory that other processes on the same device may map too; Free as of Allocate. It is counted: the bytes stay
  // until the last process, alive or not, has unmapped them. Export gives a descriptor that can be sent to another
  // process, and Import maps it there (or here), until CloseImport. FailedPrecondition where the platform cannot.
  // REQUIRES: `device` came from AllocateExportable; `bytes` is what was allocated.
  virtual absl::StatusOr<void*> AllocateExportable(uint64_t bytes) = 0;
  virtual absl::StatusOr<UniqueFd> Export(void* device) = 0;
  virtual absl::StatusOr<void*> Import(int memory, uint64_t bytes) = 0;
  virtual void CloseImport(void* device) = 0;
};

// Gives one thing of a runtime back when it goes. Move-only; a default or moved-from one owns nothing.
template <typename T, void (DeviceRuntime::*kGiveBack)(T)>
class Owned {
 public:
  Owned() = default;
  Owned(DeviceRuntime* runtime, T value) : runtime_(runtime), value_(value) {}
  Owned(Owned&& other) noexcept : runtime_(other.runtime_), value_(std::exchange(other.value_, nullptr)) {}
  Owned& operator=(Owned&& other) noexcept {
    if (this != &other) {
      Reset();
      runtime_ = other.runtime_;
      value_ = std::exchange(other.value_, nullptr);
    }
    return *this;
  }
  ~Owned() { Reset(); }

  T get() const { return value_; }
  void Reset() {
    if (value_ != nullptr) (runtime_->*kGiveBack)(std::exchange(value_, nullptr));
  }

 private:
  DeviceRuntime* runtime_ = nullptr;
  T value_ = nullptr;
};

using DeviceMemory = Owned<void*, &DeviceRuntime::Free>;
using PinnedMemory = Owned<void*, &DeviceRuntime::FreeHost>;
using Registration = Owned<const void*, &DeviceRuntime::UnregisterHost>;
using OwnedQueue = Owned<Queue, &DeviceRuntime::DestroyQueue>;
using OwnedEvent = Owned<Event, &DeviceRuntime::DestroyEvent>;

template <typename Owner, typename T>
absl::StatusOr<Owner> Own(DeviceRuntime& runtime, absl::StatusOr<T> value) {
  if (!value.ok()) return value.status();
  return Owner(&runtime, *value);
}
inline absl::StatusOr<OwnedQueue> OwnQueue(DeviceRuntime& runtime) {
  return Own<OwnedQueue>(runtime, runtime.CreateQueue());
}
inline absl::StatusOr<OwnedEvent> OwnEvent(DeviceRuntime& runtime) {
  return Own<OwnedEvent>(runtime, runtime.CreateEvent());
}

}  // namespace stoker::gpu
