// SPDX-License-Identifier: Apache-2.0
// A device runtime without a device: each queue is a thread of this process that does its operations in order, and
// device memory is ordinary memory. For training on the CPU through the same interface, and for tests: it does what a
// device may do, slowly, in another order than the caller's, and not at all.
//
//   std::unique_ptr<HostRuntime> runtime = HostRuntime::Create();
//   std::unique_ptr<HostRuntime> worse = HostRuntime::Create({.seed = 7, .max_delay = absl::Milliseconds(1)});
//
// Beyond the contract of DeviceRuntime, which it keeps to the letter: host memory that is not pinned is refused, and
// with AddressSanitizer every use of memory that was given back is found.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "client/gpu/device_runtime.h"

namespace stoker::gpu {

// What goes wrong. All by number or by seed, so that it goes wrong again.
struct HostFaults {
  static constexpr int64_t kNever = -1;

  uint64_t seed = 0;
  // Before about half of all operations a queue waits up to this long, so that queues overtake each other.
  absl::Duration max_delay = absl::ZeroDuration();
  // Copies take this long, without a processor, as over a bus; 0: as long as memcpy does.
  uint64_t bus_bytes_per_second = 0;
  uint64_t memory_bytes = uint64_t{1} << 40;  // of the device
  // The call of this number, from 0, of those that return a status, fails and does nothing.
  int64_t fail_call = kNever;
  // The operation of this number, from 0 in order of execution, fails; nothing is done any more, every call is an
  // error.
  int64_t fail_operation = kNever;
};

class HostRuntime final : public DeviceRuntime {
 public:
  // What is there now; all zero when everything was given back.
  struct Live {
    uint64_t device_bytes, pinned, registered, queues, events, imports;
    bool operator==(const Live&) const = default;
  };

  // `notice`: why not another runtime, for the reports of who uses it.
  static std::unique_ptr<HostRuntime> Create(const HostFaults& faults = {}, const std::string& notice = "");
  ~HostRuntime() override;  // REQUIRES: everything was given back

  const DeviceInfo& info() const override { return info_; }
  absl::StatusOr<void*> Allocate(uint64_t bytes) override;
  void Free(void* device) override;
  absl::StatusOr<void*> AllocateHost(uint64_t bytes) override;
  void FreeHost(void* host) override;
  absl::Status RegisterHost(absl::Span<const uint8_t> memory) override;
  void UnregisterHost(const void* memory) override;
  absl::StatusOr<Queue> CreateQueue() override;
  void DestroyQueue(Queue queue) override;
  absl::Status Drain(Queue queue) override;
  absl::Status CopyToDevice(Queue queue, void* to, const void* from, uint64_t bytes) override;
  absl::Status CopyToHost(Queue queue, void* to, const void* from, uint64_t bytes) override;
  absl::Status Launch(Queue queue, const Program& program) override;
  absl::StatusOr<Event> CreateEvent() override;
  void DestroyEvent(Event event) override;
  absl::Status Record(Event event, Queue queue) override;
  absl::StatusOr<bool> Query(Event event) override;
  absl::Status Wait(Event event, absl::Duration timeout) override;
  absl::Status QueueWait(Queue queue, Event event) override;
  absl::StatusOr<void*> AllocateExportable(uint64_t bytes) override;
  absl::StatusOr<UniqueFd> Export(void* device) override;
  absl::StatusOr<void*> Import(int memory, uint64_t bytes) override;
  void CloseImport(void* device) override;

  // While it is on, the queue refuses events, as a stream does that is being captured.
  void SetCaptured(Queue queue, bool captured);

  Live live() const;
  int64_t calls() const { return calls_.load(); }            // that returned a status
  int64_t operations() const { return operations_.load(); }  // that were done

 private:
  class HostQueue;
  struct HostEvent;
  struct Memory {
    uint64_t bytes;
    UniqueFd file;  // of exportable memory
  };

  HostRuntime(const HostFaults& faults, const std::string& notice);

  // The next call's fault, or the failure of an operation, which stays. `call` and `bytes` are for the message.
  absl::Status Enter(absl::string_view call, uint64_t bytes);
  // Whether the next operation is to be done; called by the queues' threads.
  bool BeginOperation();
  absl::Duration Delay();
  absl::Status Copy(absl::string_view call, Queue queue, void* to, const void* from, const void* host, uint64_t bytes);
  absl::Status CheckNotCaptured(Queue queue) const;
  bool IsPinned(const void* host, uint64_t bytes) const;
  absl::Status CheckRoom(absl::string_view call, uint64_t bytes) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const HostFaults faults_;
  const DeviceInfo info_;
  std::atomic<int64_t> calls_ = 0;
  std::atomic<int64_t> operations_ = 0;
  std::atomic<uint64_t> random_;
  std::atomic<bool> failed_ = false;

  mutable absl::Mutex mu_;
  std::map<const void*, Memory> device_ ABSL_GUARDED_BY(mu_);       // by address
  std::map<const uint8_t*, uint64_t> pinned_ ABSL_GUARDED_BY(mu_);  // allocated here
  std::map<const uint8_t*, uint64_t> registered_ ABSL_GUARDED_BY(mu_);
  std::map<const void*, uint64_t> imports_ ABSL_GUARDED_BY(mu_);
  uint64_t device_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  std::set<Queue> captured_ ABSL_GUARDED_BY(mu_);
  std::atomic<uint64_t> queues_ = 0;
  std::atomic<uint64_t> events_ = 0;
};

// That of OpenCudaRuntime; a HostRuntime, with the reason in its info and in reports, where there is no such device.
// Errors: those of a device that is there and fails.
absl::StatusOr<std::unique_ptr<DeviceRuntime>> OpenCudaOrHostRuntime(int device);

}  // namespace stoker::gpu
