// SPDX-License-Identifier: Apache-2.0
#include "client/gpu/staging.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "shared/base/size.h"
#include "shared/base/status_macros.h"

namespace stoker::gpu {

absl::StatusOr<bool> Staging::Upload(Queue queue, const client::BatchData& batch, absl::Span<const uint8_t> from,
                                     void* to, Await await) {
  STOKER_ASSIGN_OR_RETURN(const bool registered, Registered(batch));
  if (registered) {
    STOKER_RETURN_IF_ERROR(CopyInPlace(queue, batch.mapping().data(), from, static_cast<uint8_t*>(to)));
    return true;
  }
  STOKER_RETURN_IF_ERROR(CopyByRing(queue, from, to, await));
  return false;
}

absl::StatusOr<bool> Staging::Registered(const client::BatchData& batch) {
  if (options_.mode == StagingMode::kRing) return false;
  const absl::Span<const uint8_t> mapping = batch.mapping();
  const auto known = std::find_if(segments_.begin(), segments_.end(),
                                  [&](const Segment& segment) { return segment.mapping.data() == mapping.data(); });
  if (!mapping.empty() && known != segments_.end()) return known->registered;
  absl::Status status;
  DropUnused();
  if (mapping.empty()) {
    status = absl::FailedPreconditionError("the batch is not in shared memory");
  } else if (!runtime_.info().can_register) {
    status =
        absl::UnimplementedError(absl::StrCat(runtime_.info().name, " cannot read memory that is mapped read-only"));
  } else if (mapping.size() > options_.register_budget_bytes - registered_bytes_) {
    status = absl::ResourceExhaustedError(
        absl::StrCat("a segment of ", FormatSize(mapping.size()), " is over the budget of ",
                     FormatSize(options_.register_budget_bytes), " for registered memory, of which ",
                     FormatSize(registered_bytes_), " are used"));
  } else {
    segments_.push_back({batch.memory(), mapping, {}, false});
    status = Register(segments_.back());
  }
  if (status.ok()) return true;
  if (options_.mode == StagingMode::kRegistered) return status;
  notice_ = absl::StrCat("batches go through pinned buffers: ", status.message());
  return false;
}

absl::Status Staging::Register(Segment& segment) {
  for (uint64_t at = 0; at < segment.mapping.size(); at += options_.register_chunk_bytes) {
    const absl::Span<const uint8_t> chunk = segment.mapping.subspan(at, options_.register_chunk_bytes);
    if (absl::Status status = runtime_.RegisterHost(chunk); !status.ok()) {
      segment.chunks.clear();
      return status;
    }
    segment.chunks.emplace_back(&runtime_, chunk.data());
  }
  segment.registered = true;
  registered_bytes_ += segment.mapping.size();
  return absl::OkStatus();
}

void Staging::DropUnused() {
  // A batch whose copy is pending holds its memory too.
  std::erase_if(segments_, [this](Segment& segment) {
    if (segment.memory.use_count() > 1) return false;
    if (segment.registered) registered_bytes_ -= segment.mapping.size();
    segment.chunks.clear();  // while it is mapped: what erase_if moves over it is assigned memory first
    return true;
  });
}

absl::Status Staging::CopyInPlace(Queue queue, const uint8_t* mapping, absl::Span<const uint8_t> from, uint8_t* to) {
  // Two registrations are not one piece, though they lie side by side.
  while (!from.empty()) {
    const uint64_t offset = static_cast<uint64_t>(from.data() - mapping);
    const uint64_t bytes =
        std::min<uint64_t>(from.size(), options_.register_chunk_bytes - offset % options_.register_chunk_bytes);
    STOKER_RETURN_IF_ERROR(runtime_.CopyToDevice(queue, to, from.data(), bytes));
    from.remove_prefix(bytes);
    to += bytes;
  }
  return absl::OkStatus();
}

absl::Status Staging::CopyByRing(Queue queue, absl::Span<const uint8_t> from, void* to, Await await) {
  if (from.empty()) return absl::OkStatus();
  if (from.size() > options_.ring_buffer_bytes) {
    return absl::InternalError(absl::StrCat("a batch of ", FormatSize(from.size()), " does not fit a pinned buffer of ",
                                            FormatSize(options_.ring_buffer_bytes)));
  }
  if (next_buffer_ == ring_.size()) {
    STOKER_ASSIGN_OR_RETURN(PinnedMemory memory,
                            Own<PinnedMemory>(runtime_, runtime_.AllocateHost(options_.ring_buffer_bytes)));
    STOKER_ASSIGN_OR_RETURN(OwnedEvent copied, OwnEvent(runtime_));
    ring_.push_back({std::move(memory), std::move(copied)});
  }
  Buffer& buffer = ring_[next_buffer_];
  STOKER_RETURN_IF_ERROR(await(buffer.copied.get()));
  std::memcpy(buffer.memory.get(), from.data(), from.size());
  STOKER_RETURN_IF_ERROR(runtime_.CopyToDevice(queue, to, buffer.memory.get(), from.size()));
  STOKER_RETURN_IF_ERROR(runtime_.Record(buffer.copied.get(), queue));
  next_buffer_ = (next_buffer_ + 1) % static_cast<size_t>(options_.ring_buffers);
  return absl::OkStatus();
}

}  // namespace stoker::gpu
