// SPDX-License-Identifier: Apache-2.0
// Gets a batch's bytes to where the device can fetch them by itself: chunks of segments are registered when the first
// batch in them comes, for good, and copied from in place, or bytes go through a small ring of pinned buffers. Where
// the budget does not suffice for all of an arena, batches in what was registered first are copied in place, others
// not.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/gpu/device_runtime.h"
#include "client/src/batch_data.h"

namespace stoker::gpu {

enum class StagingMode {
  kAuto,        // registered where that is possible and within the budget, else the ring
  kRing,        // one copy by the processor, then the buffer is free for the next batch
  kRegistered,  // or an error
};

struct StagingOptions {
  StagingMode mode = StagingMode::kAuto;
  uint64_t register_budget_bytes = uint64_t{1} << 30;  // of what is registered at the same time
  uint64_t register_chunk_bytes = uint64_t{64} << 20;  // of one call: a multiple of 4096
  int ring_buffers = 2;
  uint64_t ring_buffer_bytes = 0;  // at least the largest batch
};

// Not thread-safe. REQUIRES, at destruction: no copy is pending.
class Staging {
 public:
  Staging(DeviceRuntime& runtime, const StagingOptions& options) : runtime_(runtime), options_(options) {}

  // Queues the copy of `from`, a part of the batch's extent, to the device. True: it is read in place, so the batch
  // must be kept until an event that is recorded after has come. False: it was copied away, the batch is not needed any
  // more. Waits by `await` for the buffer of the ring that was used longest ago.
  using Await = absl::FunctionRef<absl::Status(Event)>;
  absl::StatusOr<bool> Upload(Queue queue, const client::BatchData& batch, absl::Span<const uint8_t> from, void* to,
                              Await await);

  uint64_t registered_bytes() const { return registered_bytes_; }
  uint64_t pinned_bytes() const { return ring_.size() * options_.ring_buffer_bytes; }
  const std::string& notice() const { return notice_; }  // why batches take the ring though that was not asked for

 private:
  struct Segment {
    std::shared_ptr<const void> memory;
    absl::Span<const uint8_t> mapping;
    std::vector<Registration> chunks;  // of none: not registered
    absl::Status failure;              // of a chunk: no other is tried
    uint64_t registered_bytes = 0;
  };
  struct Buffer {
    PinnedMemory memory;
    OwnedEvent copied;
  };

  absl::StatusOr<bool> Registered(const client::BatchData& batch, absl::Span<const uint8_t> from);
  absl::Status Register(const client::BatchData& batch, absl::Span<const uint8_t> from);
  Segment& SegmentOf(const client::BatchData& batch);
  // Those that only this object still holds: their daemon is gone.
  void DropUnused();
  absl::Status CopyInPlace(Queue queue, const uint8_t* mapping, absl::Span<const uint8_t> from, uint8_t* to);
  absl::Status CopyByRing(Queue queue, absl::Span<const uint8_t> from, void* to, Await await);

  DeviceRuntime& runtime_;
  const StagingOptions options_;
  std::vector<Segment> segments_;
  std::vector<Buffer> ring_;
  size_t next_buffer_ = 0;
  uint64_t registered_bytes_ = 0;
  std::string notice_;
};

}  // namespace stoker::gpu
