// SPDX-License-Identifier: Apache-2.0
#include "server/arena/arena.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shared/base/status_macros.h"
#include "shared/segment/header.h"

namespace stoker::arena {
namespace {

constexpr uint64_t kPrefaultStep = 16 << 20;

// How often a segment is tried again, under another name, when the sweep of another daemon was quicker than its lock.
constexpr int kCreateAttempts = 20;

}  // namespace

absl::StatusOr<std::unique_ptr<Arena>> Arena::Create(const ArenaOptions& options) {
  std::unique_ptr<Arena> arena(new Arena(options));
  for (uint64_t left = options.capacity_bytes; left >= 2 * segment::kSegmentHeaderBytes;) {
    const uint64_t size = std::min(left, options.segment_bytes);
    STOKER_RETURN_IF_ERROR(arena->AddSegment(size));
    left -= size;
  }
  if (arena->slots_.empty()) return absl::InvalidArgumentError("arena: no room for a segment");
  arena->created_.assign(arena->slots_.begin(), arena->slots_.end());
  return arena;
}

absl::Status Arena::AddSegment(uint64_t size_bytes) {
  absl::StatusOr<segment::Segment> segment = absl::UnavailableError("");
  for (int i = 0; i < kCreateAttempts && absl::IsUnavailable(segment.status()); ++i) {
    segment = segment::Segment::Create({.directory = options_.directory,
                                        .instance_id = options_.instance_id,
                                        .generation = next_generation_++,
                                        .size_bytes = size_bytes});
  }
  if (!segment.ok()) return segment.status();
  largest_extent_ = std::max(largest_extent_, size_bytes - segment::kSegmentHeaderBytes);
  slots_.push_back(
      std::shared_ptr<Slot>(new Slot{std::move(*segment), ExtentAllocator(segment::kSegmentHeaderBytes, size_bytes)}));
  return absl::OkStatus();
}

std::optional<Extent> Arena::Allocate(uint64_t size, uint64_t slot) {
  for (uint32_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i] == nullptr || slots_[i]->retired) continue;
    if (const auto offset = slots_[i]->allocator.Allocate(size, slot)) return Extent{i, *offset, size};
  }
  return std::nullopt;
}

void Arena::Free(const Extent& extent) {
  std::shared_ptr<Slot>& slot = slots_[extent.segment];
  slot->allocator.Free(extent.offset, extent.size);
  if (slot->retired && slot->allocator.used() == 0) {
    slot.reset();
    gone_.push_back(extent.segment);
  }
}

uint8_t* Arena::data(const Extent& extent) const { return slots_[extent.segment]->segment.data() + extent.offset; }

void Arena::Describe(const Extent& extent, v1::BatchDescriptor* batch) const {
  slots_[extent.segment]->segment.Describe(batch->mutable_segment());
  batch->set_extent_offset_bytes(extent.offset);
  batch->set_extent_size_bytes(extent.size);
}

absl::StatusOr<std::vector<uint32_t>> Arena::ReplaceUnlinked() {
  for (uint32_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i] == nullptr || slots_[i]->retired || slots_[i]->segment.linked()) continue;
    wanted_.push_back(slots_[i]->segment.size_bytes());
    slots_[i]->retired = true;
    if (slots_[i]->allocator.used() == 0) {
      slots_[i].reset();
      gone_.push_back(i);
    }
  }
  std::vector<uint32_t> added;
  while (!wanted_.empty()) {
    if (absl::Status status = AddSegment(wanted_.back()); !status.ok()) {
      if (added.empty()) return status;
      break;  // the caller must hear of the new ones; the next call says why it is not all
    }
    wanted_.pop_back();
    added.push_back(static_cast<uint32_t>(slots_.size() - 1));
  }
  return added;
}

std::vector<uint32_t> Arena::TakeRetired() { return std::exchange(gone_, {}); }

absl::Status Arena::Prefault(const std::atomic<bool>& stop) {
  for (const std::weak_ptr<Slot>& created : created_) {
    const std::shared_ptr<Slot> slot = created.lock();
    if (slot == nullptr) continue;  // removed by somebody, and already replaced
    const uint64_t size = slot->segment.size_bytes();
    for (uint64_t done = 0; done < size && !stop.load(std::memory_order_relaxed);) {
      const uint64_t step = std::min(kPrefaultStep, size - done);
      STOKER_RETURN_IF_ERROR(slot->segment.Prefault(done, step));
      slot->prefaulted.store(done += step, std::memory_order_relaxed);
    }
  }
  return absl::OkStatus();
}

std::vector<Arena::SegmentInfo> Arena::segments() const {
  std::vector<SegmentInfo> infos;
  for (uint32_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i] == nullptr) continue;
    infos.push_back({i, &slots_[i]->segment, slots_[i]->allocator.used(), slots_[i]->prefaulted.load()});
  }
  return infos;
}

uint64_t Arena::capacity_bytes() const {
  uint64_t sum = 0;
  for (const auto& slot : slots_) sum += slot && !slot->retired ? slot->allocator.capacity() : 0;
  return sum;
}

uint64_t Arena::RoomFor(uint64_t size) const {
  uint64_t sum = 0;
  for (const auto& slot : slots_) sum += slot && !slot->retired ? slot->allocator.capacity() / size : 0;
  return sum;
}

uint64_t Arena::used_bytes() const {
  uint64_t sum = 0;
  for (const auto& slot : slots_) sum += slot ? slot->allocator.used() : 0;
  return sum;
}

}  // namespace stoker::arena
