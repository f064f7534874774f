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
  STOKER_ASSIGN_OR_RETURN(const bool registered, Registered(batch, from));
  if (registered) {
    STOKER_RETURN_IF_ERROR(CopyInPlace(queue, batch.mapping().data(), from, static_cast<uint8_t*>(to)));
    return true;
  }
  STOKER_RETURN_IF_ERROR(CopyByRing(queue, from, to, await));
  return false;
}

absl::StatusOr<bool> Staging::Registered(const client::BatchData& batch, absl::Span<const uint8_t> from) {
  if (options_.mode == StagingMode::kRing) return false;
  const absl::Status status = Register(batch, from);
  if (status.ok()) return true;
  if (options_.mode == StagingMode::kRegistered) return status;
  notice_ = absl::StrCat("batches go through pinned buffers: ", status.message());
  return false;
}

// What of the segment `from` lies in.
absl::Status Staging::Register(const client::BatchData& batch, absl::Span<const uint8_t> from) {
  if (batch.mapping().empty()) return absl::FailedPreconditionError("the batch is not in shared memory");
  if (!runtime_.info().can_register) {
    return absl::UnimplementedError(absl::StrCat(runtime_.info().name, " cannot read memory that is mapped read-only"));
  }
  Segment& segment = SegmentOf(batch);
  const auto begin = static_cast<uint64_t>(from.data() - segment.mapping.data());
  const uint64_t chunk_bytes = options_.register_chunk_bytes;
  for (uint64_t i = begin / chunk_bytes; i * chunk_bytes < begin + from.size(); ++i) {
    if (segment.chunks[i].get() != nullptr) continue;
    STOKER_RETURN_IF_ERROR(segment.failure);
    const absl::Span<const uint8_t> chunk = segment.mapping.subspan(i * chunk_bytes, chunk_bytes);
    if (chunk.size() > options_.register_budget_bytes - registered_bytes_) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the arena is over the budget of ", FormatSize(options_.register_budget_bytes),
                       " for registered memory, of which ", FormatSize(registered_bytes_), " are used"));
    }
    segment.failure = runtime_.RegisterHost(chunk);
    STOKER_RETURN_IF_ERROR(segment.failure);
    segment.chunks[i] = Registration(&runtime_, chunk.data());
    segment.registered_bytes += chunk.size();
    registered_bytes_ += chunk.size();
  }
  return absl::OkStatus();
}

Staging::Segment& Staging::SegmentOf(const client::BatchData& batch) {
  const absl::Span<const uint8_t> mapping = batch.mapping();
  const auto known = std::find_if(segments_.begin(), segments_.end(),
                                  [&](const Segment& segment) { return segment.mapping.data() == mapping.data(); });
  if (known != segments_.end()) return *known;
  DropUnused();
  Segment segment{batch.memory(), mapping, {}, absl::OkStatus(), 0};
  segment.chunks.resize((mapping.size() + options_.register_chunk_bytes - 1) / options_.register_chunk_bytes);
  segments_.push_back(std::move(segment));
  return segments_.back();
}

void Staging::DropUnused() {
  // A batch whose copy is pending holds its memory too.
  std::erase_if(segments_, [this](Segment& segment) {
    if (segment.memory.use_count() > 1) return false;
    registered_bytes_ -= segment.registered_bytes;
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
