// SPDX-License-Identifier: Apache-2.0
// The last step of the data path: batches of a loader become tensors in device memory, ahead of their use.
//
//   absl::StatusOr<std::unique_ptr<Assembler>> assembler = Assembler::Open(runtime, FromLoader(loader), options);
//   while (true) {
//     absl::StatusOr<std::optional<DeviceBatch>> batch = (*assembler)->Next(stream);
//     if (!batch.ok()) return batch.status();
//     if (!batch->has_value()) break;   // the epoch is over
//     Train(stream, (*batch)->tensors());
//   }
//
// A compact batch is expanded on the device, all its tensors by one launch (expansion.h).
//
// While step k trains, step k + 1 is uploaded: `depth` batches have their own place in device memory, all allocated at
// Open, so that memory can run out there and not later. A batch's lease goes back to the daemon when its bytes were
// copied, not before and not later; where a failing device leaves that open, at Close. That of a batch which another
// process uploaded goes back when its use has ended. No call waits for the device as a whole.
//
// Order on the device: what the consumer puts into its queue after Next comes after the upload; a DeviceBatch that is
// destroyed is overwritten after what the queue holds by then. The same goes for the queues that UseOn was told. All
// these queues must live until the last copy of the batch is destroyed.
//
// A consumer that is being captured into a graph gets FailedPrecondition, and the batch by a later Next; a batch that
// is let go during a capture of its consumer ends the assembler, for it cannot be told when its memory is no longer
// read.
//
// Errors: those of the loader come from Next as they are, in the place of the batch that failed. Any error, a failed
// call of the device too, closes the assembler: Next hands out what was uploaded before it, then gives the same error
// until Restart, and for ever if it was the device's. A timeout is no error.
//
// Threads: Open starts two; Next on one thread at a time, all else on any. A DeviceBatch may outlive its assembler.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/gpu/device_runtime.h"
#include "client/gpu/expansion.h"
#include "client/gpu/staging.h"
#include "stoker/loader.h"

namespace stoker::gpu {

// Where batches come from.
struct BatchSource {
  v1::SessionReply::Opened info;
  v1::Position start;  // of the first batch
  // As Loader::Next; called by one thread of the assembler.
  std::function<absl::StatusOr<std::optional<Batch>>(absl::Duration timeout)> next;
};
// REQUIRES: `loader` outlives the assembler; nobody else calls its Next meanwhile.
BatchSource FromLoader(Loader& loader);

// The caller's memory, PyTorch's say. `allocate` returns memory at a multiple of kDeviceAlignment, or null.
struct DeviceAllocator {
  std::function<void*(uint64_t bytes)> allocate;
  std::function<void(void* memory)> free;
};

struct AssemblerOptions {
  int depth = 2;      // batches on the device at once, in [1, 64]; fewer where memory is short,
  int min_depth = 1;  // but not fewer than these, in [1, depth]: of who holds one while asking for the next, 2
  uint64_t device_bytes_limit = 0;  // of all of them together; 0: what the device has
  StagingMode staging = StagingMode::kAuto;
  uint64_t register_budget_bytes = uint64_t{1} << 30;
  // Of a batch that waits for nothing but the device; after that it is taken to hang. Consumers may take any time.
  absl::Duration device_timeout = absl::Seconds(60);
  DeviceAllocator allocator = {};  // empty: the runtime's
  ExpandOptions expand = {};       // what is made on the device of what is uploaded
  // Uploads for other processes that read the same stream on this device and share too, and reads what they upload.
  // Nobody may write to tensors that were uploaded (those that were expanded are each process' own). What others keep
  // for long is replaced, beyond the limit, by as much other memory. SHARING.md. Not with an allocator.
  bool share = false;
};

struct SlotUse;

// Tensors in device memory. A value: copies share the place, which is free again when the last of them is destroyed.
// That may wait for the device if the assembler is gone.
class DeviceBatch {
 public:
  // Holds nothing.
  DeviceBatch() = default;

  uint64_t epoch() const { return epoch_; }
  uint64_t step() const { return step_; }
  uint64_t samples() const { return samples_; }
  const std::vector<DeviceTensor>& tensors() const { return tensors_; }
  absl::StatusOr<DeviceTensor> Get(absl::string_view name) const;
  uint64_t uploaded_bytes() const { return uploaded_bytes_; }  // over the bus
  uint64_t expanded_bytes() const { return expanded_bytes_; }  // made on the device

  // Waits until all of it is there, for who reads it by other means than the queue, and tells whether all could be
  // made: InvalidArgument or DataLoss naming the sample that could not. Next gives that error too, some batches later.
  // REQUIRES: it came from Next.
  absl::Status Wait(absl::Duration timeout) const;

  // What is put into `queue` from now on may use the batch too. REQUIRES: it came from Next.
  absl::Status UseOn(Queue queue) const;

 private:
  friend class AssemblerCore;

  std::shared_ptr<const SlotUse> use_;
  size_t slot_ = 0;
  size_t words_ = 0;
  uint64_t epoch_ = 0, step_ = 0, samples_ = 0, uploaded_bytes_ = 0, expanded_bytes_ = 0;
  std::vector<DeviceTensor> tensors_;
};

struct AssemblerReport {
  int depth;
  int held;                   // of these, by the caller: the next batch does not come while all are
  uint64_t device_bytes;      // allocated at Open: the ceiling
  uint64_t registered_bytes;  // of segments
  uint64_t pinned_bytes;      // of the ring
  uint64_t batches;           // that came to the device, of these
  uint64_t borrowed_batches;  // read where another process had uploaded them
  uint64_t uploaded_bytes;
  uint64_t expanded_bytes;
  std::string notice;  // what is not as it was asked for, and why; else empty
};

class AssemblerCore;

class Assembler {
 public:
  // ResourceExhausted, with the numbers, when not even min_depth batches of the largest size fit into the limit or the
  // device's memory; InvalidArgument for options out of range; else what the runtime says. `runtime` is kept.
  static absl::StatusOr<std::unique_ptr<Assembler>> Open(std::shared_ptr<DeviceRuntime> runtime, BatchSource source,
                                                         const AssemblerOptions& options);
  ~Assembler();  // Close()

  // The next batch, or nullopt once at the end of each epoch. `consumer`: the queue that will use it; it waits on the
  // device, the caller does not. Blocks until a batch is on its way; DeadlineExceeded after `timeout`.
  absl::StatusOr<std::optional<DeviceBatch>> Next(Queue consumer, absl::Duration timeout = absl::InfiniteDuration());

  // Forgets what Next has not handed out, calls `seek`, which may move the source, and goes on with what the source
  // then gives, from the position that `seek` returns. Memory, registrations and batches in the caller's hands stay.
  // When `seek` fails, its error is returned, and the assembler stays closed, to be restarted again or dropped;
  // FailedPrecondition, without a call of `seek`, when it is closed because the device failed: open another one.
  // REQUIRES: no Next and no Close at the same time.
  absl::Status Restart(const std::function<absl::StatusOr<v1::Position>()>& seek);

  // After the last batch that Next handed out: to go on from after an error.
  v1::Position position() const;
  AssemblerReport report() const;

  // Ends the threads, waits for copies that read leased memory, and returns all leases. Next gives Cancelled then. May
  // be called twice.
  void Close();

 private:
  explicit Assembler(std::shared_ptr<AssemblerCore> core) : core_(std::move(core)) {}
  std::shared_ptr<AssemblerCore> core_;
};

}  // namespace stoker::gpu
