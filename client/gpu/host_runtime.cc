// SPDX-License-Identifier: Apache-2.0
#include "client/gpu/host_runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <deque>
#include <functional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "client/gpu/cuda_runtime.h"
#include "client/gpu/kernels/host_grid.h"
#include "shared/base/posix.h"
#include "shared/base/size.h"
#include "shared/base/status_macros.h"

namespace stoker::gpu {
namespace {

absl::Status Failure(absl::StatusCode code, absl::string_view call, uint64_t bytes, absl::string_view reason) {
  return absl::Status(code, absl::StrCat(call, bytes > 0 ? absl::StrCat(" of ", FormatSize(bytes)) : "", ": ", reason));
}

void* AlignedMemory(uint64_t bytes) { return ::aligned_alloc(4096, AlignUp(std::max<uint64_t>(bytes, 1), 4096)); }

absl::StatusOr<void*> MapFile(absl::string_view call, int file, uint64_t size) {
  void* const memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (memory == MAP_FAILED) return ErrnoStatus(errno, call, FormatSize(size));
  return memory;
}

uint64_t PhysicalMemory() {
  return static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

// The piece of `pieces` that holds `at`, or the end.
template <typename Pieces>
auto PieceOf(const Pieces& pieces, const uint8_t* at) {
  auto piece = pieces.upper_bound(at);
  if (piece == pieces.begin()) return pieces.end();
  --piece;
  return at < piece->first + piece->second ? piece : pieces.end();
}

}  // namespace

// An event outlives its handle as long as an operation refers to it.
struct HostRuntime::HostEvent {
  struct State {
    absl::Mutex mu;
    uint64_t recorded ABSL_GUARDED_BY(mu) = 0;  // times
    uint64_t come ABSL_GUARDED_BY(mu) = 0;      // the last that came
  };
  std::shared_ptr<State> state = std::make_shared<State>();
};

class HostRuntime::HostQueue {
 public:
  explicit HostQueue(HostRuntime* runtime) : runtime_(runtime), thread_([this] { Run(); }) {}
  ~HostQueue() {
    {
      absl::MutexLock lock(&mu_);
      ending_ = true;
    }
    thread_.join();
  }

  // Operations that order the queues are done even when the device has failed, so that nobody waits for ever.
  void Put(std::function<void()> work, bool orders) {
    absl::MutexLock lock(&mu_);
    operations_.push_back({std::move(work), orders});
  }

 private:
  struct Operation {
    std::function<void()> work;
    bool orders;
  };

  void Run() {
    while (true) {
      Operation operation;
      {
        absl::MutexLock lock(&mu_);
        mu_.Await(absl::Condition(this, &HostQueue::HasWork));
        if (operations_.empty()) return;
        operation = std::move(operations_.front());
        operations_.pop_front();
      }
      absl::SleepFor(runtime_->Delay());
      if (operation.orders || runtime_->BeginOperation()) operation.work();
    }
  }
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return ending_ || !operations_.empty(); }

  HostRuntime* const runtime_;
  absl::Mutex mu_;
  std::deque<Operation> operations_ ABSL_GUARDED_BY(mu_);
  bool ending_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;  // last: it uses the others
};

std::unique_ptr<HostRuntime> HostRuntime::Create(const HostFaults& faults, const std::string& notice) {
  return std::unique_ptr<HostRuntime>(new HostRuntime(faults, notice));
}

absl::StatusOr<std::unique_ptr<DeviceRuntime>> OpenCudaOrHostRuntime(int device) {
  absl::StatusOr<std::unique_ptr<DeviceRuntime>> cuda = OpenCudaRuntime(device);
  if (!absl::IsUnavailable(cuda.status())) return cuda;
  return HostRuntime::Create({}, absl::StrCat("batches stay in host memory: ", cuda.status().message()));
}

HostRuntime::HostRuntime(const HostFaults& faults, const std::string& notice)
    : faults_(faults),
      info_({.name = "host",
             .id = "host",
             .memory_bytes = std::min(faults.memory_bytes, PhysicalMemory()),
             .can_register = true,
             .notice = notice}),
      random_(faults.seed) {}
HostRuntime::~HostRuntime() = default;

absl::Status HostRuntime::Enter(absl::string_view call, uint64_t bytes) {
  const int64_t number = calls_.fetch_add(1);
  if (failed_.load()) return Failure(absl::StatusCode::kInternal, call, bytes, "an operation before it failed");
  if (number == faults_.fail_call) {
    return Failure(absl::StatusCode::kInternal, call, bytes, absl::StrCat("call ", number, " is to fail"));
  }
  return absl::OkStatus();
}

bool HostRuntime::BeginOperation() {
  const int64_t number = operations_.fetch_add(1);
  if (number == faults_.fail_operation) failed_.store(true);
  return !failed_.load();
}

// SplitMix64 over a counter: each draw is another number of the seed's sequence, whichever thread draws.
absl::Duration HostRuntime::Delay() {
  if (faults_.max_delay <= absl::ZeroDuration()) return absl::ZeroDuration();
  uint64_t z = random_.fetch_add(0x9e3779b97f4a7c15) + 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  z ^= z >> 31;
  if (z % 2 == 0) return absl::ZeroDuration();
  return faults_.max_delay * (static_cast<double>(z >> 11) * 0x1p-53);
}

absl::StatusOr<void*> HostRuntime::Allocate(uint64_t bytes) {
  STOKER_RETURN_IF_ERROR(Enter("Allocate", bytes));
  absl::MutexLock lock(&mu_);
  STOKER_RETURN_IF_ERROR(CheckRoom("Allocate", bytes));
  void* const memory = AlignedMemory(bytes);
  if (memory == nullptr) return Failure(absl::StatusCode::kResourceExhausted, "Allocate", bytes, "no memory");
  device_.emplace(memory, Memory{bytes, UniqueFd()});
  device_bytes_ += bytes;
  return memory;
}

absl::Status HostRuntime::CheckRoom(absl::string_view call, uint64_t bytes) const {
  if (bytes <= faults_.memory_bytes - device_bytes_) return absl::OkStatus();
  return Failure(
      absl::StatusCode::kResourceExhausted, call, bytes,
      absl::StrCat("no memory: ", FormatSize(device_bytes_), " of ", FormatSize(faults_.memory_bytes), " are in use"));
}

void HostRuntime::Free(void* device) {
  absl::MutexLock lock(&mu_);
  const auto found = device_.find(device);
  if (found == device_.end()) return;
  const Memory memory = std::move(found->second);
  device_bytes_ -= memory.bytes;
  device_.erase(found);
  if (memory.file.valid()) {
    (void)::munmap(device, std::max<uint64_t>(memory.bytes, 1));
  } else {
    ::free(device);
  }
}

absl::StatusOr<void*> HostRuntime::AllocateHost(uint64_t bytes) {
  STOKER_RETURN_IF_ERROR(Enter("AllocateHost", bytes));
  void* const memory = AlignedMemory(bytes);
  if (memory == nullptr) return Failure(absl::StatusCode::kResourceExhausted, "AllocateHost", bytes, "no memory");
  absl::MutexLock lock(&mu_);
  pinned_.emplace(static_cast<const uint8_t*>(memory), bytes);
  return memory;
}

void HostRuntime::FreeHost(void* host) {
  absl::MutexLock lock(&mu_);
  if (pinned_.erase(static_cast<const uint8_t*>(host)) > 0) ::free(host);
}

absl::Status HostRuntime::RegisterHost(absl::Span<const uint8_t> memory) {
  STOKER_RETURN_IF_ERROR(Enter("RegisterHost", memory.size()));
  absl::MutexLock lock(&mu_);
  const auto next = registered_.lower_bound(memory.data());
  const bool overlaps = PieceOf(registered_, memory.data()) != registered_.end() ||
                        (next != registered_.end() && next->first < memory.data() + memory.size());
  if (memory.empty() || overlaps || reinterpret_cast<uintptr_t>(memory.data()) % 4096 != 0) {
    return Failure(absl::StatusCode::kInvalidArgument, "RegisterHost", memory.size(),
                   overlaps ? "a part of it is registered" : "it does not begin with a page");
  }
  registered_.emplace(memory.data(), memory.size());
  return absl::OkStatus();
}

void HostRuntime::UnregisterHost(const void* memory) {
  absl::MutexLock lock(&mu_);
  registered_.erase(static_cast<const uint8_t*>(memory));
}

absl::StatusOr<Queue> HostRuntime::CreateQueue() {
  STOKER_RETURN_IF_ERROR(Enter("CreateQueue", 0));
  queues_.fetch_add(1);
  return reinterpret_cast<Queue>(new HostQueue(this));
}

void HostRuntime::DestroyQueue(Queue queue) {
  delete reinterpret_cast<HostQueue*>(queue);
  queues_.fetch_sub(1);
}

absl::Status HostRuntime::Drain(Queue queue) {
  STOKER_RETURN_IF_ERROR(Enter("Drain", 0));
  absl::Notification done;
  reinterpret_cast<HostQueue*>(queue)->Put([&done] { done.Notify(); }, true);
  done.WaitForNotification();
  if (failed_.load()) return absl::InternalError("Drain: an operation before it failed");
  return absl::OkStatus();
}

bool HostRuntime::IsPinned(const void* host, uint64_t bytes) const {
  absl::MutexLock lock(&mu_);
  const auto* const at = static_cast<const uint8_t*>(host);
  for (const auto* pieces : {&pinned_, &registered_}) {
    const auto piece = PieceOf(*pieces, at);
    if (piece != pieces->end() && bytes <= piece->second - static_cast<uint64_t>(at - piece->first)) return true;
  }
  return false;
}

absl::Status HostRuntime::Copy(absl::string_view call, Queue queue, void* to, const void* from, const void* host,
                               uint64_t bytes) {
  STOKER_RETURN_IF_ERROR(Enter(call, bytes));
  if (!IsPinned(host, bytes)) {
    return Failure(absl::StatusCode::kInvalidArgument, call, bytes, "host memory is neither pinned nor registered");
  }
  const absl::Duration duration = faults_.bus_bytes_per_second == 0
                                      ? absl::ZeroDuration()
                                      : absl::Seconds(static_cast<double>(bytes) / faults_.bus_bytes_per_second);
  const auto copy = [to, from, bytes, duration] {
    std::memcpy(to, from, bytes);
    absl::SleepFor(duration);
  };
  reinterpret_cast<HostQueue*>(queue)->Put(copy, false);
  return absl::OkStatus();
}

absl::Status HostRuntime::CopyToDevice(Queue queue, void* to, const void* from, uint64_t bytes) {
  return Copy("CopyToDevice", queue, to, from, from, bytes);
}

absl::Status HostRuntime::CopyToHost(Queue queue, void* to, const void* from, uint64_t bytes) {
  return Copy("CopyToHost", queue, to, from, to, bytes);
}

absl::Status HostRuntime::Launch(Queue queue, const Program& program) {
  if (program.count == 0) return absl::OkStatus();
  STOKER_RETURN_IF_ERROR(Enter("Launch", 0));
  reinterpret_cast<HostQueue*>(queue)->Put([program] { RunOnHost(program); }, false);
  return absl::OkStatus();
}

absl::StatusOr<Event> HostRuntime::CreateEvent() {
  STOKER_RETURN_IF_ERROR(Enter("CreateEvent", 0));
  events_.fetch_add(1);
  return reinterpret_cast<Event>(new HostEvent);
}

void HostRuntime::DestroyEvent(Event event) {
  delete reinterpret_cast<HostEvent*>(event);
  events_.fetch_sub(1);
}

void HostRuntime::SetCaptured(Queue queue, bool captured) {
  absl::MutexLock lock(&mu_);
  if (captured) {
    captured_.insert(queue);
  } else {
    captured_.erase(queue);
  }
}

absl::Status HostRuntime::CheckNotCaptured(Queue queue) const {
  absl::MutexLock lock(&mu_);
  if (!captured_.contains(queue)) return absl::OkStatus();
  return absl::FailedPreconditionError("the queue is being captured");
}

absl::Status HostRuntime::Record(Event event, Queue queue) {
  STOKER_RETURN_IF_ERROR(Enter("Record", 0));
  STOKER_RETURN_IF_ERROR(CheckNotCaptured(queue));
  std::shared_ptr<HostEvent::State> state = reinterpret_cast<HostEvent*>(event)->state;
  uint64_t number;
  {
    absl::MutexLock lock(&state->mu);
    number = ++state->recorded;
  }
  const auto come = [state = std::move(state), number] {
    absl::MutexLock lock(&state->mu);
    state->come = std::max(state->come, number);
  };
  reinterpret_cast<HostQueue*>(queue)->Put(come, true);
  return absl::OkStatus();
}

absl::StatusOr<bool> HostRuntime::Query(Event event) {
  STOKER_RETURN_IF_ERROR(Enter("Query", 0));
  HostEvent::State& state = *reinterpret_cast<HostEvent*>(event)->state;
  absl::MutexLock lock(&state.mu);
  return state.come >= state.recorded;
}

absl::Status HostRuntime::Wait(Event event, absl::Duration timeout) {
  STOKER_RETURN_IF_ERROR(Enter("Wait", 0));
  HostEvent::State& state = *reinterpret_cast<HostEvent*>(event)->state;
  {
    absl::MutexLock lock(&state.mu);
    const auto has_come = [&state]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return state.come >= state.recorded; };
    if (!state.mu.AwaitWithTimeout(absl::Condition(&has_come), timeout)) {
      return absl::DeadlineExceededError("Wait: the event has not come yet");
    }
  }
  if (failed_.load()) return absl::InternalError("Wait: an operation before the event failed");
  return absl::OkStatus();
}

absl::Status HostRuntime::QueueWait(Queue queue, Event event) {
  STOKER_RETURN_IF_ERROR(Enter("QueueWait", 0));
  STOKER_RETURN_IF_ERROR(CheckNotCaptured(queue));
  std::shared_ptr<HostEvent::State> state = reinterpret_cast<HostEvent*>(event)->state;
  uint64_t number;
  {
    absl::MutexLock lock(&state->mu);
    number = state->recorded;
  }
  const auto wait = [state = std::move(state), number] {
    absl::MutexLock lock(&state->mu);
    const auto has_come = [&state, number]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return state->come >= number; };
    state->mu.Await(absl::Condition(&has_come));
  };
  reinterpret_cast<HostQueue*>(queue)->Put(wait, true);
  return absl::OkStatus();
}

absl::StatusOr<void*> HostRuntime::AllocateExportable(uint64_t bytes) {
  STOKER_RETURN_IF_ERROR(Enter("AllocateExportable", bytes));
  absl::MutexLock lock(&mu_);
  STOKER_RETURN_IF_ERROR(CheckRoom("AllocateExportable", bytes));
  UniqueFd file(::memfd_create("stoker device", MFD_CLOEXEC));
  const uint64_t size = std::max<uint64_t>(bytes, 1);
  if (!file.valid() || ::ftruncate(file.get(), static_cast<off_t>(size)) != 0) {
    return ErrnoStatus(errno, "AllocateExportable", FormatSize(bytes));
  }
  STOKER_ASSIGN_OR_RETURN(void* const memory, MapFile("AllocateExportable", file.get(), size));
  device_.emplace(memory, Memory{bytes, std::move(file)});
  device_bytes_ += bytes;
  return memory;
}

absl::StatusOr<UniqueFd> HostRuntime::Export(void* device) {
  STOKER_RETURN_IF_ERROR(Enter("Export", 0));
  absl::MutexLock lock(&mu_);
  const auto found = device_.find(device);
  if (found == device_.end() || !found->second.file.valid()) {
    return Failure(absl::StatusCode::kInvalidArgument, "Export", 0, "no exportable allocation begins there");
  }
  UniqueFd copy(::fcntl(found->second.file.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) return ErrnoStatus(errno, "Export", "a descriptor");
  return copy;
}

absl::StatusOr<void*> HostRuntime::Import(int memory, uint64_t bytes) {
  STOKER_RETURN_IF_ERROR(Enter("Import", bytes));
  const uint64_t size = std::max<uint64_t>(bytes, 1);
  struct stat found = {};
  if (::fstat(memory, &found) != 0 || static_cast<uint64_t>(found.st_size) != size) {
    return Failure(absl::StatusCode::kInvalidArgument, "Import", bytes, "no memory of this size");
  }
  STOKER_ASSIGN_OR_RETURN(void* const mapped, MapFile("Import", memory, size));
  absl::MutexLock lock(&mu_);
  imports_.emplace(mapped, size);
  return mapped;
}

void HostRuntime::CloseImport(void* device) {
  absl::MutexLock lock(&mu_);
  const auto found = imports_.find(device);
  if (found == imports_.end()) return;
  (void)::munmap(device, found->second);
  imports_.erase(found);
}

HostRuntime::Live HostRuntime::live() const {
  absl::MutexLock lock(&mu_);
  return {device_bytes_, pinned_.size(), registered_.size(), queues_.load(), events_.load(), imports_.size()};
}

}  // namespace stoker::gpu
